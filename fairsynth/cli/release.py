"""`fairsynth release`: may synthetic patients leave the site, and the one way out for those that may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import JsonOption
from fairsynth.config import checked
from fairsynth.errors import ConfigError

if TYPE_CHECKING:
    from fairsynth.synthesis.release.check import Report

app = typer.Typer(
    help="The release gate: synthetic patients leave a site after it, or by an officer's name (docs/release.md).",
    no_args_is_help=True,
)
_STYLES = {"PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow", "NOT_RUN": "dim"}

SiteFolder = Annotated[
    Path,
    typer.Argument(metavar="SITE_FOLDER", help="Folder of a site: `sites/<site>` of a run, or of `fairsynth train`."),
]
Synthetic = Annotated[
    Path | None,
    typer.Option(help="Folder that `fairsynth generate` wrote.  [default: the site's synthetic patients of the study]"),
]


@app.command()
def check(
    folder: SiteFolder,
    synthetic: Synthetic = None,
    canaries: Annotated[
        Path | None, typer.Option(help="JSON: the codes of each patient that was planted before training.")
    ] = None,
    secret: Annotated[
        list[str] | None, typer.Option(help="A code that must not be guessed, beside the usual ones; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Examine a site's synthetic patients, for its officer; three runs a generator. Exit code 2: they may not leave.

    The table, and `release/` in the site's folder, stay at the site: a gate that is read outside tells who was in
    training.

    Example: `fairsynth release check runs/demo/sites/boston`
    """
    from fairsynth.synthesis.release.check import blocked, check_release, read_asked

    asked = read_asked(canaries, secret or ())
    with errors.status("comparing synthetic with real patients"):
        report = check_release(folder.resolve(), synthetic=synthetic, asked=asked)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _show(report)
    if report.verdict.blocking:
        raise blocked(report, where=folder)


@app.command()
def export(
    folder: SiteFolder,
    out: Annotated[Path, typer.Option(help="Folder for `export/`: events, tables, and the card.")],
    synthetic: Synthetic = None,
    officer_override: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who releases what the gate blocks; on the card and recorded.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; recorded at the site.")] = None,
    use: Annotated[str | None, typer.Option(help="What the patients are for, on the card.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy synthetic patients out of the site, with a card: after the gate, or by an officer's name.

    Example: `fairsynth release export runs/demo/sites/boston --out to-the-university`
    """
    from fairsynth.synthesis.release.card import INTENDED_USE
    from fairsynth.synthesis.release.export import Override
    from fairsynth.synthesis.release.export import export as write

    if (officer_override is None) != (reason is None):
        raise ConfigError.of("an override needs a name and a reason", where="--officer-override NAME --reason TEXT")
    override = None
    if officer_override is not None:
        override = checked(Override, {"officer": officer_override, "reason": reason}, where="--officer-override")
    made = write(folder.resolve(), out=out, synthetic=synthetic, override=override, intended_use=use or INTENDED_USE)
    if as_json:
        typer.echo(json.dumps({"export": str(made), "card": str(made / "card.json")}))
        return
    output.print(f"exported, with its card: [bold]{made}[/bold]", highlight=False, soft_wrap=True)


def _show(report: Report) -> None:
    """The officer's table."""
    verdict = report.verdict
    title = f"{verdict.synthetic:,} synthetic patients, run {report.run} of {report.limit} of this generator"
    table = Table("gate", "", "verdict", "why", title=title, title_justify="left", title_style="bold")
    for one in verdict.results:
        style = _STYLES[one.verdict.value]
        table.add_row(one.gate, one.title, f"[{style}]{one.verdict.value}[/{style}]", one.reason)
    output.print(table)
    for name, ones in verdict.groups.items():
        said = ", ".join(f"{one.gate} {one.verdict.value}" for one in ones)
        output.print(f"  {name}: {said}", highlight=False, markup=False)
    output.print(f"verdict: {verdict.outcome.value}. This page stays at the site.", highlight=False)
