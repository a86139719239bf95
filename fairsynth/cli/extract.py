"""`fairsynth extract`: raw tables to MEDS events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fairsynth import artefacts
from fairsynth.cli.console import output
from fairsynth.cli.options import JsonOption


def run(
    data: Annotated[Path, typer.Argument(help="Folder with the raw tables (.csv, .csv.gz or .parquet).")],
    config: Annotated[Path, typer.Option(help="Folder with site.yaml, e.g. site_configs/mimic3.")],
    out: Annotated[Path, typer.Option(help="The events are written to OUT/events.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Read a hospital's raw tables by its rules and write MEDS events, all or nothing.

    Example: `fairsynth extract raw/pic --config site_configs/pic --out work/pic`
    """
    from fairsynth.extraction import extract

    events = extract(data, config=config, root=out)
    flow = artefacts.read_flow(events)
    if as_json:
        typer.echo(json.dumps({"events": str(events), "flow": flow}))
        return
    for step, count in flow.items():
        output.print(f"{count:>14,}  {step}", highlight=False)
    output.print(f"[bold]{events}[/bold]", highlight=False, soft_wrap=True)
