"""`fairsynth simulate`: raw tables of a simulated hospital."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import JsonOption
from fairsynth.config import BiasConfig, SimulationConfig, checked
from fairsynth.errors import ConfigError

PATIENTS = 1000  # unless told otherwise


class Source(enum.StrEnum):
    """Whose schema the tables follow."""

    mimic3 = "mimic3"
    pic = "pic"


class Mix(enum.StrEnum):
    """Which mix of groups is drawn."""

    natural = "natural"
    study = "study"


def run(
    source: Annotated[Source, typer.Argument(help="Schema, code systems and quirks of this database.")],
    patients: Annotated[int | None, typer.Option(help="Number of patients.", show_default=str(PATIENTS))] = None,
    full_size: Annotated[bool, typer.Option("--full-size", help="As many patients as the real source has.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed gives fresh patients of the same process.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the CSV tables; must be absent or empty.")] = Path("raw"),
    mix: Annotated[
        Mix, typer.Option(help="`natural`: as in the source; `study`: minorities large enough.")
    ] = Mix.natural,
    detail: Annotated[float, typer.Option(help="Share of the calibrated lab and drug rows to write.")] = 1.0,
    bias_group: Annotated[
        list[str] | None,
        typer.Option(help="A group that the next four act on; repeatable.  [default: all but the reference group]"),
    ] = None,
    under_representation: Annotated[float, typer.Option(help="Share of these patients left out.")] = 0.0,
    under_documentation: Annotated[float, typer.Option(help="Chance that a code of theirs is lost.")] = 0.0,
    only_danger: Annotated[
        bool,
        typer.Option("--only-danger", help="Of their codes and lab values, only those that tell of danger are lost."),
    ] = False,
    outcome_shift: Annotated[float, typer.Option(help="Rotation of their outcome model, 0 to 1.")] = 0.0,
    label_noise: Annotated[float, typer.Option(help="Chance that a death of theirs is not recorded.")] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Write raw MIMIC-III- or PIC-shaped tables drawn from a known, written-down process (docs/simulator.md).

    Example: `fairsynth simulate pic --patients 2000 --mix study --out raw/pic`
    """
    from fairsynth import simulate as simulator

    if full_size and patients is not None:
        raise ConfigError.of("two sizes", where="options", expected="--patients or --full-size", do="give one of them")
    bias = {
        "groups": tuple(bias_group) if bias_group else None,
        "under_representation": under_representation,
        "under_documentation": under_documentation,
        "undocumented": "danger" if only_danger else None,
        "outcome_shift": outcome_shift,
        "label_noise": label_noise,
    }
    size = PATIENTS if patients is None else patients
    values = {"source": source.value, "patients": size, "seed": seed, "mix": mix.value, "detail": detail}
    config = checked(SimulationConfig, {**values, "bias": checked(BiasConfig, bias, where="options")}, where="options")
    config = simulator.full_size(config) if full_size else config
    with errors.status(f"simulating {config.patients:,} patients"):
        summary = simulator.simulate(config, out)
    if as_json:
        typer.echo(json.dumps({"tables": str(out), **asdict(summary)}))
        return
    output.print(f"{summary}\n[bold]{out}[/bold]  (simulated patients: no real person)", highlight=False)
