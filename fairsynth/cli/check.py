"""`fairsynth check`: everything that can be checked before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fairsynth.cli.console import output
from fairsynth.cli.study import DataOption, JsonOption, parse_data
from fairsynth.experiments.study import Checked, check


def run(
    study: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a study file, its site configurations and every site's tables; all problems in one pass, nothing written.

    Example: `fairsynth check studies/mimic3demo_pic.yaml`
    """
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
