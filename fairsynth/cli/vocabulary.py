"""`fairsynth vocabulary`: what of each site's data the shared vocabulary says."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import DataOption, JsonOption, parse_data
from fairsynth.cli.progress import StudyProgress
from fairsynth.config import read_study

if TYPE_CHECKING:
    from fairsynth.experiments.vocabulary import KindShares, SiteVocabulary, VocabularyReport


def run(
    study: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    data: DataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the sites; `study` in the same folder uses them. [default: runs/<name of the study>]"
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many unmapped codes of each kind are printed.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Agree on a study's vocabulary and say, site by site, what share of the events it covers and what it leaves out.

    Example: `fairsynth vocabulary studies/mimic3demo_pic.yaml`
    """
    from fairsynth.experiments.vocabulary import survey_vocabulary

    folder = out or Path("runs") / read_study(study).name
    with StudyProgress(errors if as_json else output) as progress:
        report = survey_vocabulary(study, out=folder, data=parse_data(data), on_event=progress)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    output.print(_agreed(report))
    for site in report.sites:
        output.print(_shares(site, report))
        if site.unmapped or site.rare:
            output.print(_unmapped(site, report, top=top))


def _agreed(report: VocabularyReport) -> Table:
    numbers = [f"{number} site{'s' if number > 1 else ''}" for number in range(1, len(report.sites) + 1)]
    table = Table("kind", title=f"{report.study}: agreed codes, by the number of sites that propose them")
    for name in ("codes", *numbers):
        table.add_column(name, justify="right")
    for row in report.agreed:
        table.add_row(row.kind, f"{row.codes:,}", *(f"{count:,}" for count in row.by_sites))
    return table


def _shares(site: SiteVocabulary, report: VocabularyReport) -> Table:
    table = Table("kind", title=f"{site.site}: share of events", title_justify="left")
    for name in ("events", "mapped", "agreed", "shared with another site"):
        table.add_column(name, justify="right")
    for row in site.kinds:
        table.add_row(row.kind, *_cells(row, report))
    return table


def _cells(row: KindShares, report: VocabularyReport) -> tuple[str, ...]:
    if row.events is None:
        return (f"of fewer than {report.minimum_patients} patients", "", "", "")
    shares = (row.mapped, row.agreed, row.shared)
    return (f"{row.events:,}", *("own words" if share is None else f"{share:.1%}" for share in shares))


def _unmapped(site: SiteVocabulary, report: VocabularyReport, *, top: int) -> Table:
    """The commonest unmapped codes of each kind, and how many more there are."""
    table = Table("kind", "code", "unit", "description", title=f"{site.site}: unmapped codes", title_justify="left")
    for name in ("events", "patients"):
        table.add_column(name, justify="right")
    for kind in (row.kind for row in site.kinds):
        codes = [code for code in site.unmapped if code.kind == kind]
        for code in islice(codes, top):
            text = (code.code, code.unit or "", code.description or "")
            table.add_row(kind, *text, f"{code.events:,}", f"{code.patients:,}")
        if len(codes) > top:
            table.add_row(kind, f"[dim]{len(codes) - top:,} more codes[/dim]")
        if rare := site.rare.get(kind):
            table.add_row(kind, f"[dim]{rare:,} codes below {report.minimum_patients} patients[/dim]")
        table.add_section()
    return table
