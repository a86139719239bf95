"""`fairsynth generate`: synthetic patients at one site of a finished run."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import errors, output
from fairsynth.cli.study import JsonOption
from fairsynth.experiments.study import Run


class Arm(enum.StrEnum):
    """Which of the study's two generators."""

    fairsynth = "fairsynth"
    plain = "plain"


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    site: Annotated[str, typer.Option(help="The site whose codes and tables the patients are written in.")],
    out: Annotated[Path, typer.Option(help="Folder for `events/` (MEDS) and `tables/` (the source's own format).")],
    patients: Annotated[int, typer.Option(min=1, help="Number of synthetic patients.")] = 1000,
    group: Annotated[str | None, typer.Option(help="Only patients of this group.")] = None,
    label: Annotated[int | None, typer.Option(min=0, max=1, help="Only patients with this label.")] = None,
    arm: Annotated[Arm, typer.Option(help="The fairness-optimised generator, or the plain one.")] = Arm.fairsynth,
    seed: Annotated[int, typer.Option(help="Another seed gives other patients.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Sample synthetic patients at a site, as MEDS events and as tables in the source's own format.

    They stay at the site: the release gate is not part of this version (docs/augmentation.md).

    Example: `fairsynth generate runs/demo --site boston --group black --label 1 --patients 200 --out synthetic`
    """
    from fairsynth.experiments.generate import generate

    result = Run(root=folder.resolve())
    with errors.status(f"sampling {patients:,} synthetic patients"):
        made = generate(result, site=site, arm=arm.value, number=patients, condition=(group, label), out=out, seed=seed)
    if as_json:
        typer.echo(json.dumps({"patients": made, "events": str(out / "events"), "tables": str(out / "tables")}))
        return
    output.print(f"{made:,} synthetic patients: [bold]{out}[/bold]", highlight=False, soft_wrap=True)
