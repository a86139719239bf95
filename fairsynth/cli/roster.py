"""`fairsynth roster`: who takes part in a masked study, by public key; each site signs it, one after the other."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from fairsynth.cli.console import output
from fairsynth.cli.plans import read_plan
from fairsynth.errors import ConfigError
from fairsynth.federation import boundary
from fairsynth.federation.masking.roster import (
    NAME,
    Member,
    Roster,
    SignedRoster,
    read_roster_file,
    write_roster,
    write_roster_file,
)
from fairsynth.federation.plans import plan_sha256
from fairsynth.governance.approval import path_of, read_approval
from fairsynth.governance.identity import load_identity
from fairsynth.provisioning.connection import read_server
from fairsynth.schemas import SiteId

app = typer.Typer(
    help="Who takes part in a masked study: write the list, sign it, check it (docs/masking.md).", no_args_is_help=True
)

PlanOption = Annotated[Path, typer.Option(help="The study plan (JSON).")]
RosterArgument = Annotated[Path, typer.Argument(metavar="ROSTER", help="The roster (JSON).")]


@app.command()
def new(
    plan: PlanOption,
    out: Annotated[Path, typer.Option(help="Where to write it.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="SITE=KEY...", help="Each site's identity.pub: a file, or its 64 digits."),
    ] = None,
    consortium: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Take the keys of the plan's sites from this folder of a coordinator."),
    ] = None,
    epoch: Annotated[int, typer.Option(min=0, help="One more than the last, when keys are exchanged.")] = 0,
) -> None:
    """Write a roster that nobody has signed yet.

    The keys must have come from the sites by a way that the server's operator cannot change: in person, by telephone.

    So had those in a coordinator's folder, when the requests' digits were compared (docs/provisioning.md).

    Example: `fairsynth roster new boston=boston.pub lyon=lyon.pub graz=graz.pub --plan plan.json --out roster.json`
    """
    if bool(keys) == (consortium is not None):
        raise ConfigError.of("whose keys?", where="fairsynth roster new", expected="SITE=KEY..., or --consortium")
    study, keys = read_plan(plan), keys or []
    members = dict(_member(key) for key in keys) if consortium is None else _granted(consortium, study.roster)
    if len(members) < len(keys) or set(members) != set(study.roster):
        raise ConfigError.of(
            "sites are not the plan's",
            where=", ".join(sorted(members)),
            expected=f"{', '.join(study.roster)}, each once",
        )
    if out.exists():
        raise ConfigError.of("a roster is here", where=str(out), expected="a new file", do="another --out")
    try:
        roster = Roster(
            plan_sha256=plan_sha256(study),
            epoch=epoch,
            minimum_sites=len(members),
            members=tuple(Member(site=site, public_key=members[site]) for site in sorted(members)),
        )
    except ValidationError:
        expected = "two sites or more, each with 64 hexadecimal digits of its own"
        raise ConfigError.of("keys that make no roster", where="SITE=KEY", expected=expected) from None
    write_roster_file(out, SignedRoster(roster=roster))
    output.print(f"roster: [bold]{out}[/bold], signed by none of {len(members)}", highlight=False, soft_wrap=True)


@app.command()
def sign(
    site: Annotated[Path, typer.Argument(metavar="SITE_FOLDER", help="The site's folder, with site.json.")],
    roster: RosterArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Show the sites and their keys, then add this site's signature to the file.

    Example: `fairsynth roster sign site roster.json`
    """
    place, identity, signed = boundary.place_of(site), load_identity(site), read_roster_file(roster)
    read_approval(path_of(site, signed.roster.plan_sha256))  # a site signs for no study that it has not approved
    output.print(_shown(signed))
    if not yes and not typer.confirm(f"Are these the keys that the sites gave you? Sign as {place.site}?"):
        output.print("nothing was signed")
        raise typer.Exit(1)
    signed = signed.signed(place.site, identity)
    write_roster_file(roster, signed)
    left = [one for one in signed.roster.sites if one not in signed.signatures]
    output.print(f"signed; still to sign: {', '.join(left) or 'nobody'}", highlight=False)


@app.command()
def check(
    roster: RosterArgument,
    plan: PlanOption,
    put: Annotated[
        list[Path] | None, typer.Option(help=f"Also write it to this folder, a site's or the server's, as {NAME}.")
    ] = None,
) -> None:
    """Check that every site signed the roster, for this plan.

    Example: `fairsynth roster check roster.json --plan plan.json --put site`
    """
    signed = read_roster_file(roster)
    study = read_plan(plan)
    found = signed.verified(plan_sha256=plan_sha256(study), sites=study.roster)
    for folder in put or []:
        write_roster(folder, signed)
    output.print(f"signed by all {len(found.sites)}: {', '.join(found.sites)}; epoch {found.epoch}", highlight=False)


def _granted(folder: Path, sites: Collection[SiteId]) -> dict[SiteId, str]:
    """The identities of those of `sites` that have a grant. Raises ConfigError when one has none."""
    granted = read_server(folder).granted
    if missing := [site for site in sites if site not in granted]:
        raise ConfigError.of(
            "sites of the plan without a grant",
            where=str(folder),
            expected=f"granted: {', '.join(missing)}",
            do="fairsynth provision show",
        )
    return {site: granted[site].identity for site in sites}


def _member(text: str) -> tuple[SiteId, str]:
    site, separator, key = text.partition("=")
    if not separator:
        raise ConfigError.of("bad argument", where=text, expected="SITE=KEY")
    path = Path(key)
    return SiteId(site), (path.read_text(encoding="ascii").strip() if path.is_file() else key)


def _shown(signed: SignedRoster) -> Table:
    roster = signed.roster
    table = Table("site", "public key", "signed", title=f"study {roster.plan_sha256[:12]}, epoch {roster.epoch}")
    for member in roster.members:
        table.add_row(Text(member.site), member.public_key, "yes" if member.site in signed.signatures else "no")
    return table
