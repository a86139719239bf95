"""`fairsynth check`: everything that can be checked before anything runs, of a study or of one site's data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fairsynth import artefacts
from fairsynth.cli.console import errors, output
from fairsynth.cli.options import JsonOption, parse_data
from fairsynth.config import read_study
from fairsynth.errors import ConfigError

if TYPE_CHECKING:
    from fairsynth.experiments.study import Checked

MUST_BE_MENDED = 2  # exit code


def run(
    target: Annotated[Path, typer.Argument(metavar="STUDY|SITE", help="A study file, or a folder with site.yaml.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="[SITE=]FOLDER",
            help="Raw tables: of a site, FOLDER; of a study, SITE=FOLDER overrides the study file.",
        ),
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="With a SITE: the study whose task, groups, split and thresholds apply.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With a SITE: also write the report to this file, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a study and every site's tables, or print the data-quality report of one site; nothing else is written.

    A site's report ends with a verdict; the exit code is 2 if something must be mended, 0 otherwise.

    Example: `fairsynth check studies/mimic3demo_pic.yaml`

    Example: `fairsynth check site_configs/pic --data raw/pic`
    """
    if not target.exists():
        expected = "a study file, or a folder with site.yaml"
        raise ConfigError.of("missing file or folder", where=str(target), expected=expected, do="check the path")
    if target.is_dir():
        _check_site(target, data=data, study=study, out=out, as_json=as_json)
    elif study or out:
        raise ConfigError.of("bad option", where="--study, --out", expected="a folder with site.yaml before them")
    else:
        _check_study(target, data=data, as_json=as_json)


def _check_site(config: Path, *, data: list[str] | None, study: Path | None, out: Path | None, as_json: bool) -> None:
    from fairsynth.cli.quality import show_quality
    from fairsynth.quality import check_site

    if not data or len(data) > 1:
        raise ConfigError.of("bad option", where="--data", expected="one folder with the site's raw tables")
    with errors.status("reading the tables"):
        report = check_site(Path(data[0]), config=config, study=read_study(study) if study else None)
    told = report.model_dump(mode="json", by_alias=True)
    if out is not None:
        artefacts.write_json(out, told)
    if as_json:
        typer.echo(json.dumps(told))
    else:
        show_quality(report)
    if report.number("error"):
        raise typer.Exit(MUST_BE_MENDED)


def _check_study(study: Path, *, data: list[str] | None, as_json: bool) -> None:
    from fairsynth.experiments.study import check

    config, sites = check(study, data=parse_data(data))
    if as_json:
        typer.echo(json.dumps({"study": config.name, "sites": [_as_json(site) for site in sites]}))
        return
    table = Table("site", "configuration", "table", "rows", title=f"{config.name}: nothing wrong found")
    for site in sites:
        rows = _rows(site)
        for number, (name, count) in enumerate(rows):
            first = number == 0
            table.add_row(site.entry.site if first else "", site.config.name if first else "", name, count)
    output.print(table)


def _rows(site: Checked) -> list[tuple[str, str]]:
    if site.tables is None:
        patients = site.entry.simulate.patients if site.entry.simulate else 0
        return [("(to be simulated)", f"{patients:,} patients")]
    return [(name, f"{count:,}") for name, count in site.tables.rows.items()]


def _as_json(site: Checked) -> dict[str, object]:
    rows = None if site.tables is None else dict(site.tables.rows)
    return {"site": site.entry.site, "config": str(site.config), "rows": rows}
