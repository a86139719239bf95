"""`fairsynth train`: a generator of one site alone, without a server."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import DataOption, JsonOption, parse_data
from fairsynth.cli.progress import TrainingProgress


class Device(enum.StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def run(
    study: Annotated[Path, typer.Argument(help="The study file (YAML); its `fit` section says how to train.")],
    out: Annotated[Path, typer.Option(help="Folder of the model; it holds the site's cohort and stays at the site.")],
    site: Annotated[str | None, typer.Option(help="Which site of the study, if there are several.")] = None,
    data: DataOption = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the patients, at most; overrides the file.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patients a step; overrides the file.")] = None,
    threads: Annotated[int | None, typer.Option(help="Torch threads; overrides the file.")] = None,
    device: Annotated[Device | None, typer.Option(help="auto: the GPU if there is one; overrides the file.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on where a killed training was, to the same weights.")] = False,
    force: Annotated[bool, typer.Option(help="Replace the model of an earlier training in the same folder.")] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="How often the state is written to resume from.")
    ] = 60,
    as_json: JsonOption = False,
) -> None:
    """Train a generator on one site's patients, until the validation NLL no longer falls.

    Example: `fairsynth train studies/demo.yaml --site boston --out models/boston`
    """
    from fairsynth.experiments.train import train

    given = {"epochs": epochs, "batch_size": batch_size, "threads": threads, "device": device and device.value}
    options = {name: value for name, value in given.items() if value is not None}
    with TrainingProgress(errors if as_json else output) as progress:
        model, halo = train(
            study,
            out=out,
            site=site,
            data=parse_data(data),
            options=options,
            resume=resume,
            force=force,
            every_seconds=checkpoint_seconds,
            on_event=progress,
        )
    history = halo.history
    best = history.epochs[history.best]
    if as_json:
        told = {"model": str(model.root), "best_epoch": history.best + 1, **asdict(best), "epochs": len(history.epochs)}
        typer.echo(json.dumps(told))
        return
    nll = f"epoch {history.best + 1} of {len(history.epochs)}: training NLL {best.train:.3f} nats a visit"
    nll += "" if best.validation is None else f", validation {best.validation:.3f}"
    output.print(nll, highlight=False)
    output.print(f"model: [bold]{model.root}[/bold]", highlight=False, soft_wrap=True)
