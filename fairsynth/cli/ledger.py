"""`fairsynth ledger`: what left a site, and whether the list is as it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import JsonOption
from fairsynth.errors import ConfigError
from fairsynth.governance import ledger as ledgers
from fairsynth.governance.ledger import Entry

ALTERED = 1  # exit code
DIGITS = 12  # of a hash that is shown

app = typer.Typer(help="What left a site: show the list, verify it (docs/egress.md).", no_args_is_help=True)

SiteArgument = Annotated[Path, typer.Argument(metavar="SITE_FOLDER", help="The site's folder, with site.json.")]


@app.command()
def show(
    site: SiteArgument,
    study: Annotated[str, typer.Option(help="Only of this study: the first digits of its plan's hash.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show every release: what, when, to which study, how many bytes, and the privacy loss where it was measured.

    Example: `fairsynth ledger show runs/demo/sites/boston`
    """
    entries = [entry for entry in ledgers.read(_checked(site)) if entry.study.startswith(study)]
    if as_json:
        typer.echo(json.dumps([entry.model_dump(mode="json") for entry in entries]))
        return
    table = Table("", "when (UTC)", "event", "what", "study", "bytes", "epsilon", "hash", title=str(site))
    for entry in entries:
        epsilon = "" if entry.epsilon is None else f"{entry.epsilon:g}"
        when = entry.time[:19].replace("T", " ")
        table.add_row(
            str(entry.number),
            when,
            _event(entry),
            _what(entry),
            entry.study[:DIGITS],
            f"{entry.bytes:,}",
            epsilon,
            entry.hash[:DIGITS],
        )
    output.print(table)
    spent = sum(entry.epsilon or 0.0 for entry in entries)
    sent = sum(entry.bytes for entry in entries if entry.event in ("released", "resent"))
    output.print(f"{len(entries)} lines, {sent:,} bytes left, epsilon {spent:g}", highlight=False)


@app.command()
def verify(
    site: SiteArgument,
    expect: Annotated[str, typer.Option(help="A hash that was noted earlier: a line must have it.")] = "",
    key: Annotated[str, typer.Option(help="The site's public key, if noted elsewhere.  [default: identity.pub]")] = "",
) -> None:
    """Check every line's hash, chain and signature, and that none is missing. Exit code 1 if one is not as written.

    Example: `fairsynth ledger verify runs/demo/sites/boston`
    """
    root = _checked(site)
    fault = ledgers.find_fault(root, public=_key(key), expected=expect or None)
    if fault is not None:
        where = f"{root / ledgers.NAME}:{fault.line}"
        errors.print(f"FS-404 ledger altered: {where}  {fault.what}", highlight=False, soft_wrap=True, markup=False)
        raise typer.Exit(ALTERED)
    entries = ledgers.read(root)
    output.print(f"sound: {len(entries)} lines, each signed by this site", highlight=False)
    if entries:
        output.print(f"last hash {entries[-1].hash}  (note it elsewhere; later: --expect HASH)", highlight=False)
    if ledgers.has_torn_line(root):
        output.print("a crash left part of a line, which was never sent; the next release moves it aside")


def _checked(site: Path) -> Path:
    if not (site / ledgers.NAME).is_file() and not (site / ledgers.HEAD).is_file():
        raise ConfigError.of("no ledger", where=str(site / ledgers.NAME), do="give a site's folder; nothing left yet")
    return site


def _key(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text) or None
    except ValueError:
        raise ConfigError.of("bad option", where="--key", expected="64 hexadecimal digits") from None


def _event(entry: Entry) -> str:
    return f"{entry.event} ({entry.resend_of})" if entry.resend_of else entry.event


def _what(entry: Entry) -> str:
    if entry.event == "approved":
        return f"by {entry.officer}"
    values = sum(entry.arrays.values())
    masked = sum(size for name, size in entry.arrays.items() if name in entry.masked)
    parts = [entry.kind or entry.label]
    if values:
        parts.append(f"{values:,} numbers" + (f", {masked:,} of them masked" if masked else ""))
    return ": ".join(parts)
