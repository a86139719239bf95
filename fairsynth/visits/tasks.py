"""Tasks: one example a patient, as the last visit of its history, its prediction time and its label.

In:  visits of the cohort.   Out: one row a patient who has an example.
Never: events; the tokens before the prediction time are picked in tokens.py.

A task is a function of the visits and the plan's `TaskConfig`, registered as an entry point of `fairsynth.tasks`:

    visits     subject_id, visit_id, order (0 = first), admitted, discharged, died (in the hospital, in this visit),
               sorted by subject_id and order
    returns    subject_id, last_order (the last visit of the history), predicted_at, open (whether that last visit was
               still going on at `predicted_at`), label (Int64, 0 or 1)
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import entry_points

import polars as pl

from fairsynth.config import TaskConfig
from fairsynth.errors import ConfigError

Task = Callable[[pl.DataFrame, TaskConfig], pl.DataFrame]

ENTRY_POINTS = "fairsynth.tasks"
EXAMPLE_COLUMNS = ("subject_id", "last_order", "predicted_at", "open", "label")


def load_task(name: str) -> Task:
    """The task registered as `name`. Raises ConfigError with the names that are registered."""
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        raise ConfigError.of(
            "unknown task", where=f"study file  task.name -> {name!r}", expected=f"one of: {', '.join(sorted(found))}"
        )
    task: Task = found[name].load()
    return task


def mortality_next_visit(visits: pl.DataFrame, config: TaskConfig) -> pl.DataFrame:
    """Died in the hospital in the last visit, predicted from all visits before it, at its admission."""
    del config
    last = _last(visits).filter(pl.col("order") > 0)
    return _examples(last, last_order=pl.col("order") - 1, predicted_at=pl.col("admitted"), is_open=False)


def in_hospital_mortality(visits: pl.DataFrame, config: TaskConfig) -> pl.DataFrame:
    """Died in the hospital in the last visit, predicted `observation_hours` after its admission.

    Patients who leave or die within the window are kept.
    """
    predicted_at = pl.col("admitted") + timedelta(hours=config.observation_hours)
    return _examples(_last(visits), last_order=pl.col("order"), predicted_at=predicted_at, is_open=True)


def _last(visits: pl.DataFrame) -> pl.DataFrame:
    return visits.group_by("subject_id", maintain_order=True).last()


def _examples(last: pl.DataFrame, *, last_order: pl.Expr, predicted_at: pl.Expr, is_open: bool) -> pl.DataFrame:
    return last.select(
        "subject_id",
        last_order.alias("last_order"),
        predicted_at.alias("predicted_at"),
        pl.lit(is_open).alias("open"),
        pl.col("died").cast(pl.Int64).alias("label"),
    )
