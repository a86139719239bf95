"""`fairsynth experiment`: does it help, on real held-out patients, against baselines and the oracle."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table as RichTable

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import DataOption, JsonOption, parse_data
from fairsynth.cli.progress import StudyProgress
from fairsynth.config import read_study
from fairsynth.errors import ConfigError
from fairsynth.federation.engine.app import find_app

if TYPE_CHECKING:
    from fairsynth.experiments.evidence.headline import Headlines

QUICK = (500, 500)  # real, synthetic
QUICK_SEEDS = 2


class Table(StrEnum):
    """What is compared."""

    table1 = "table1"
    table2 = "table2"
    ablation = "ablation"
    ceiling = "ceiling"


class Setting(StrEnum):
    """Whose patients."""

    a = "a"
    b = "b"
    c = "c"
    opposite = "opposite"


def run(
    table: Annotated[Table, typer.Argument(help="What is compared; see docs/evidence.md.", show_default=False)],
    setting: Annotated[
        Setting | None,
        typer.Option(
            help="a: Diabetes-130; b: simulated MIMIC-III and PIC; c: b with bias; opposite: biases that cancel out."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trials of each row, each on another draw of patients.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Folder of results.  [default: runs/<table>, with --quick runs/<table>-quick]")
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="Study file: a setting of your own, called by the study's name.")
    ] = None,
    data: DataOption = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trials at the same time, one core each.")] = 2,
    real: Annotated[int | None, typer.Option(min=1, help="One row only: real training patients of all sites.")] = None,
    synthetic: Annotated[int | None, typer.Option(min=1, help="That row's synthetic patients of all sites.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One small row, two seeds: does it run at all.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the trials that are not there yet, on all cores asked for, and write what all of the folder's trials say.

    Stop it at any time: finished trials are kept.

    Example: `fairsynth experiment table1 --setting a --seeds 5 --out runs/table1`

    A setting of your own: `fairsynth experiment table1 --study my.yaml`
    """
    from fairsynth.experiments.evidence.counting import Sizes
    from fairsynth.experiments.evidence.grid import finished, run_grid
    from fairsynth.experiments.evidence.publish import publish

    name, file = _whose(setting, study)
    size = _size(real, synthetic, quick=quick)
    folder = out or Path("runs") / (f"{table.value}-quick" if quick else table.value)
    if folder.exists() and not folder.is_dir():
        raise ConfigError.of("no folder", where=f"--out {folder}", expected="a folder, or a new name for one")
    number = min(seeds, QUICK_SEEDS) if quick else seeds
    with TrialsProgress(errors if as_json else output) as progress:
        run_grid(
            table.value,
            setting=name,
            study=file,
            seeds=number,
            out=folder,
            work=folder / "pool" / name,
            jobs=jobs,
            data=parse_data(data),
            rows=None if size is None else [Sizes(real=size[0], synthetic=size[1])],
            on_event=progress,
        )
        progress({"event": "publishing"})
        found = publish(
            finished(table.value, setting=name, out=folder),
            table=table.value,
            command=_command(table, setting, study),
            out=folder,
        )
    if as_json:
        typer.echo(json.dumps({"out": str(folder), "summary": found.model_dump(mode="json")}))
        return
    _show(found)
    output.print(f"results: [bold]{folder}[/bold]", highlight=False, soft_wrap=True)


def _whose(setting: Setting | None, study: Path | None) -> tuple[str, Path]:
    """The setting's name and its study file; a study of the user's own lends its name. Raises ConfigError."""
    if setting is not None:
        return setting.value, study or find_app() / "studies" / f"evidence_{setting.value}.yaml"
    if study is None:
        raise ConfigError.of("no setting", where="options", expected=f"--setting {'|'.join(Setting)}, or --study FILE")
    name = read_study(study).name
    if name in list(Setting):
        raise ConfigError.of(
            "a name that is taken", where=f"{study}  name: {name}", do="call your study something else"
        )
    return name, study


def _size(real: int | None, synthetic: int | None, *, quick: bool) -> tuple[int, int] | None:
    """The one row that is asked for; None for the table's own. Raises ConfigError."""
    if (real is None) != (synthetic is None):
        given = "--real" if synthetic is None else "--synthetic"
        raise ConfigError.of("half a row", where=given, expected="both --real and --synthetic, or neither")
    if real is not None and synthetic is not None:
        return real, synthetic
    return QUICK if quick else None


def _command(table: Table, setting: Setting | None, study: Path | None) -> str:
    """What makes these results again, wherever they are put, but for seeds and sizes."""
    whose = ("" if setting is None else f" --setting {setting.value}") + ("" if study is None else f" --study {study}")
    return f"fairsynth experiment {table.value}{whose}"


class TrialsProgress(StudyProgress):
    """The same for the trials of a table."""

    def _on_trials(self, event: dict[str, Any]) -> None:
        if event["done"] == event["of"] and "seed" not in event:
            self._step("every trial is there already", note=f"{event['of']} trials")
            return
        if self.current is None or "seed" not in event:
            self._step("running trials", total=event["of"], note=f"{event['done']} of {event['of']} were there")
        if self.current is not None:
            self.progress.update(self.current, completed=event["done"])
        if not self.console.is_terminal and "seed" in event:
            self.console.print(f"  {event['done']} of {event['of']} trials", highlight=False)

    def _on_publishing(self, event: dict[str, Any]) -> None:
        self._step("writing tables and charts")


def _show(found: Headlines) -> None:
    """Print the headlines of each row, and how many targets are met."""
    from fairsynth.experiments.evidence.tables import interval, mean_sd, share

    table = RichTable(title="real held-out patients, mean (sd) over seeds", title_justify="left")
    for name in (
        "predictor",
        "real",
        "synthetic",
        "threshold",
        "worst TPR",
        "minus the best baseline",
        "of the ceiling",
    ):
        table.add_column(name)
    for predictor, lines in ((name, one) for of in found.settings.values() for name, one in of.items()):
        for one in lines:
            table.add_row(
                predictor.replace("_", " "),
                f"{one.real:,}",
                f"{one.synthetic:,}",
                one.threshold,
                mean_sd(one.wtpr, seeds=one.seeds),
                interval(one.wtpr_gain_ci),
                share(one.ceiling_share),
            )
    output.print(table)
    counted = Counter(target.status for row in found.rows for target in row.targets)
    output.print("targets: " + (", ".join(f"{counted[status]} {status}" for status in sorted(counted)) or "none"))
