"""`fairsynth demo`: the whole pipeline on two simulated hospitals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.options import JsonOption
from fairsynth.cli.study import execute
from fairsynth.experiments.engines import Engine
from fairsynth.federation.engine.app import find_app


def run(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    engine: Annotated[
        Engine, typer.Option(help="Flower's simulation, or real processes on loopback.")
    ] = Engine.simulation,
    force: Annotated[bool, typer.Option(help="Replace the results of an earlier run in the same folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate a MIMIC-III-shaped and a PIC-shaped hospital, run the federated study, and write the report.

    The study is `studies/demo.yaml`: copy it to start your own.
    """
    execute(find_app() / "studies" / "demo.yaml", out=out, engine=engine, data={}, force=force, as_json=as_json)
