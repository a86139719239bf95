"""`fairsynth provision`: certificates, keys and grants of a consortium, at its coordinator and at its sites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import JsonOption
from fairsynth.errors import ConfigError, FairSynthError, KeyRefused
from fairsynth.operations import registration
from fairsynth.provisioning import coordinator, documents, grants, node_keys, request
from fairsynth.provisioning.authority import check_server
from fairsynth.provisioning.connection import CONNECTION, SERVER, SERVER_FILE, read_connection, read_server
from fairsynth.provisioning.permissions import Who, permission_problems
from fairsynth.provisioning.records import CONSORTIUM

app = typer.Typer(
    help="Certificates, keys and grants of a consortium, at its coordinator and its sites (docs/provisioning.md).",
    no_args_is_help=True,
)

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="The coordinator's folder.")]
SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help="The site's name.")]


def _say(line: str) -> None:
    output.print(line, highlight=False, soft_wrap=True)


@app.command()
def init(
    consortium: Annotated[Path, typer.Argument(metavar="CONSORTIUM.yaml", help="Server and sites.")],
    out: Annotated[Path, typer.Option(help="The coordinator's folder: new, or empty.")],
) -> None:
    """At the coordinator: make the authority, the server's certificate and a kit for each site.

    Example: `fairsynth provision init consortium.yaml --out consortium`
    """
    sha256 = coordinator.init(consortium, out)
    _say(f"coordinator's folder: [bold]{out}[/bold]; keep it to yourself, and a copy of it")
    _say(f"authority, to be compared by telephone: {documents.spoken(sha256)}")
    for path in sorted((out / "kits").glob("*.json")):
        _say(f"kit: {path}")


@app.command("request")
def make_request(
    kit: Annotated[Path, typer.Argument(metavar="KIT.json", help="From the coordinator.")],
    out: Annotated[Path, typer.Option(help="The site's folder; made when it is not there.")],
    renew: Annotated[bool, typer.Option("--renew", help="A new SuperNode key; the identity stays.")] = False,
) -> None:
    """At the site: make the keys that are missing, and the request that goes to the coordinator.

    Example: `fairsynth provision request boston.kit.json --out site`
    """
    made = request.make_request(kit, out, renew=renew)
    _say(f"request: [bold]{out / request.REQUEST}[/bold]; send this file alone to the coordinator")
    _tell(made)
    _say(f"authority of the kit:                {documents.spoken(made.ca_sha256)}")


@app.command()
def accept(
    folder: FolderArgument,
    asked: Annotated[Path, typer.Argument(metavar="REQUEST.json", help="From the site.")],
    digits: Annotated[
        str | None, typer.Option(help="The 32 digits that the site read to you: nothing is signed for others.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: the digits were compared.")] = False,
) -> None:
    """At the coordinator: check a site's request and sign its grant, once the site has read its digits to you.

    Example: `fairsynth provision accept consortium request.json`
    """
    _tell(documents.read(asked, documents.Request))
    if digits is None and not yes and not typer.confirm("Did the site read these digits to you, by telephone?"):
        _say("nothing was signed")
        raise typer.Exit(1)
    _, record = grants.accept(folder, asked, digits=digits)
    _say(f"grant {record.serial} for {record.site}: [bold]{folder / 'grants' / f'{record.site}.grant.json'}[/bold]")


@app.command()
def install(
    grant: Annotated[Path, typer.Argument(metavar="GRANT.json", help="From the coordinator.")],
    site: Annotated[Path, typer.Argument(metavar="SITE_FOLDER", help="Where `request` made the keys.")],
) -> None:
    """At the site: check the grant and install it; a renewed key takes its place.

    Example: `fairsynth provision install boston.grant.json site`
    """
    made = request.install(grant, site)
    _say(f"{made.site}: grant {made.serial} of {made.consortium} installed; the server is {made.address}")


@app.command()
def add(folder: FolderArgument, site: SiteArgument) -> None:
    """At the coordinator: invite one more site, or a revoked one again.

    Example: `fairsynth provision add consortium graz`
    """
    _say(f"kit: [bold]{coordinator.add(folder, site)}[/bold]")


@app.command()
def revoke(folder: FolderArgument, site: SiteArgument) -> None:
    """At the coordinator: take a site's grant back. `apply` tells the SuperLink.

    Example: `fairsynth provision revoke consortium lyon`
    """
    coordinator.revoke(folder, site)
    _say(f"{site} is revoked; now, where the SuperLink runs: fairsynth provision apply")


@app.command()
def renew(
    folder: FolderArgument,
    server: Annotated[
        bool, typer.Option("--server", help="The server's, as without it: a site's key is renewed at the site.")
    ] = True,
) -> None:
    """At the coordinator: a new key and certificate of the server, by the same authority. Sites need nothing.

    Example: `fairsynth provision renew consortium --server`
    """
    until = coordinator.renew_server(folder)
    _say(f"server's certificate valid until {until:%Y-%m-%d}; restart SuperLink and proxy with it")


@app.command()
def apply(
    folder: FolderArgument,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The SuperLink itself, without password. Default: the proxy, with it."),
    ] = None,
) -> None:
    """At the server: register granted SuperNode keys with the running SuperLink, unregister replaced and revoked ones.

    Example: `fairsynth provision apply consortium --address 127.0.0.1:8000`
    """
    done = registration.apply(folder, address=address)
    for what, sites in (
        ("registered", done.registered),
        ("unregistered", done.unregistered),
        ("unchanged", done.unchanged),
    ):
        _say(f"{what}: {', '.join(sites) or 'none'}")


@app.command()
def show(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """At the coordinator: sites and their keys, certificates and how long they last.

    Example: `fairsynth provision show consortium --json`
    """
    found = coordinator.show(folder)
    if as_json:
        typer.echo(json.dumps(found))
        return
    _say(f"{found['consortium']}: {found['host']}, port {found['port']}")
    for what in ("authority", "certificate"):
        one = found[what]
        left = "EXPIRED" if one["expired"] else f"{one['days_left']} days left"
        _say(f"{what:<12} {documents.spoken(one['sha256'])}, until {one['valid_until'][:10]}: {left}")
    table = Table("site", "state", "grant", "granted (UTC)", "SuperNode key", "identity", title_justify="left")
    for site in found["sites"]:
        keys = [_short(site["supernode_sha256"]), _short(site["identity"])]
        when = (site["granted"] or "")[:16].replace("T", " ")
        table.add_row(Text(site["site"]), site["state"], str(site["serial"] or ""), when, *keys)
    output.print(table)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A site's, a server's or the coordinator's.")],
) -> None:
    """Before each start, at site or server: exit code 2 unless private files are this user's alone and all are there.

    Example: `fairsynth provision check site`
    """
    who, found = _checked(folder)
    for error in found:
        for problem in error.problems:
            line = f"{error.code} {problem.what}: {problem.where}" + (f"  do: {problem.do}" if problem.do else "")
            errors.print(line, markup=False, highlight=False, soft_wrap=True)
    if found:
        raise typer.Exit(2)
    _say(f"{who}: in order")


def _checked(folder: Path) -> tuple[Who, list[FairSynthError]]:
    """Whose folder it is, and what is wrong there."""
    who: Who
    if (folder / CONSORTIUM).is_file():
        who, server = "coordinator", folder / SERVER
    elif (folder / SERVER_FILE).is_file():
        who, server = "server", folder
    elif any((folder / name).exists() for name in (CONNECTION, request.REQUEST, "site.json")):
        who, server = "site", None
    else:
        raise ConfigError.of(
            "no folder of a site or server", where=str(folder), expected=f"{CONNECTION}, {SERVER_FILE} or {CONSORTIUM}"
        )
    problems = permission_problems(folder, who, complete=True)
    found: list[FairSynthError] = [KeyRefused(problems)] if problems else []
    try:
        if server is None:
            read_connection(folder)
        elif not problems:
            read_server(server)
            check_server(server)
    except FairSynthError as error:
        found.append(error)
    return who, found


def _tell(made: documents.Request) -> None:
    _say(f"request, to be compared by telephone: {documents.spoken(made.sha256)}")
    _say(f"  SuperNode key {node_keys.fingerprint(made.supernode)}")
    _say(f"  identity      {made.identity}")


def _short(digest: str | None) -> str:
    return "" if digest is None else f"{digest[:16]}..."
