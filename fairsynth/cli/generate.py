"""`fairsynth generate`: synthetic patients at one site of a finished run, or of a model that it trained alone."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import output
from fairsynth.cli.options import JsonOption
from fairsynth.cli.progress import drawing
from fairsynth.errors import ConfigError


class Arm(enum.StrEnum):
    """Which of the study's two generators."""

    fairsynth = "fairsynth"
    plain = "plain"


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="Folder of a finished run, or of `fairsynth train`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for `events/` (MEDS) and `tables/` (the source's own format).")],
    site: Annotated[
        str | None, typer.Option(help="Of a run: the site whose codes and tables the patients are written in.")
    ] = None,
    patients: Annotated[int, typer.Option(min=1, help="Number of synthetic patients.")] = 1000,
    group: Annotated[str | None, typer.Option(help="Only patients of this group.")] = None,
    label: Annotated[int | None, typer.Option(min=0, max=1, help="Only patients with this label.")] = None,
    sex: Annotated[str | None, typer.Option(help="Only patients of this sex: female or male.")] = None,
    age: Annotated[str | None, typer.Option(help="Only patients of this age band, such as 70-79.")] = None,
    arm: Annotated[
        Arm, typer.Option(help="Of a run: the fairness-optimised generator, or the plain one.")
    ] = Arm.fairsynth,
    seed: Annotated[int, typer.Option(help="Another seed gives other patients.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Sample synthetic patients at a site, as MEDS events and as tables in the source's own format.

    They stay at the site: what may leave is what `fairsynth release export` writes (docs/release.md).

    Example: `fairsynth generate runs/demo --site boston --group black --label 1 --patients 200 --out synthetic`
    """
    from fairsynth.experiments.generate import generate, source_of_model, source_of_run
    from fairsynth.experiments.study import Run
    from fairsynth.experiments.train import Model
    from fairsynth.halo import conditions

    model = Model(root=folder.resolve())
    if not model.exists and site is None:
        raise ConfigError.of("which site?", where="--site", expected="a site of the run", do="or the folder of a model")
    if model.exists:
        source = source_of_model(model)
    else:
        source = source_of_run(Run(root=folder.resolve()), site=str(site), arm=arm.value)
    asked = conditions(source.vocabulary, patients, group=group, label=label, sex=sex, age=age)
    with drawing(patients) as on_patients:
        made = generate(source, conditions=asked, out=out, seed=seed, on_patients=on_patients)
    if as_json:
        typer.echo(json.dumps({"patients": made, "events": str(out / "events"), "tables": str(out / "tables")}))
        return
    output.print(f"{made:,} synthetic patients: [bold]{out}[/bold]", highlight=False, soft_wrap=True)
