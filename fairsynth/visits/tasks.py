"""Tasks: one example a patient, as the last visit of its history, its prediction time and its label.

In:  visits of the cohort.   Out: one row a patient who has an example.
Never: events; the tokens before the prediction time are picked in tokens.py.

A task is a function of the visits and the plan's `TaskConfig`, registered as an entry point of `fairsynth.tasks`:

    visits     subject_id, visit_id, order (0 = first), admitted, discharged, died (in the hospital, in this visit),
               hospice (discharged to one), readmission (30D, LATER, NONE; null: not known), sorted by subject_id and
               order
    returns    subject_id, last_order (the last visit of the history), predicted_at, open (whether that last visit was
               still going on at `predicted_at`), label (Int64, 0 or 1)
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

import numpy as np
import polars as pl

from fairsynth.config import TaskConfig
from fairsynth.errors import ConfigError
from fairsynth.registered import registered
from fairsynth.seeds import stream
from fairsynth.visits.split import keyed_hash

Task = Callable[[pl.DataFrame, TaskConfig], pl.DataFrame]

ENTRY_POINTS = "fairsynth.tasks"
EXAMPLE_COLUMNS = ("subject_id", "last_order", "predicted_at", "open", "label")


class Outcome(StrEnum):
    """What a label of 1 says of the label's visit, as far as a source's events can tell it."""

    death = "death"
    readmission = "readmission"
    other = "other"


def load_task(name: str) -> Task:
    """The task registered as `name`. Raises ConfigError with the names that are registered."""
    found = registered(ENTRY_POINTS)
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


def readmission_30d(visits: pl.DataFrame, config: TaskConfig) -> pl.DataFrame:
    """Readmitted within 30 days of an index visit, predicted from the history up to it, at its discharge.

    The index visit is drawn by a keyed hash of the patient's id among the visits that ended neither in death nor at a
    hospice, and of which it is known whether a readmission followed.
    """
    del config
    eligible = visits.filter(~pl.col("died"), ~pl.col("hospice"), pl.col("readmission").is_not_null())
    drawn = pl.Series(keyed_hash(eligible["subject_id"].to_numpy(), key=stream(0, "readmission_30d", "index visit")))
    choice = drawn % eligible.select(pl.len().over("subject_id").cast(pl.UInt64)).to_series()
    index = eligible.filter(pl.int_range(pl.len(), dtype=pl.UInt64).over("subject_id") == choice)
    label = (pl.col("readmission") == "30D").alias("label")
    return _examples(index, last_order=pl.col("order"), predicted_at=pl.col("discharged"), is_open=False, label=label)


def outcome_of(name: str) -> Outcome:
    """What the task's label says, asked of the task itself: which fact about a made-up patient turns it from 0 to 1."""
    if _labels(name, died=False) == [0] and _labels(name, died=True) == [1]:
        return Outcome.death
    if _labels(name, readmission="NONE") == [0] and _labels(name, readmission="30D") == [1]:
        return Outcome.readmission
    return Outcome.other


def label_visit_follows(name: str) -> bool:
    """Whether the visit whose outcome is the label comes after the record's last visit, asked of the task itself.

    Then a patient with one visit is no example, and of two visits the first is the record.
    """
    single, double = _probe(name, visits=1), _probe(name, visits=2)
    return single.is_empty() and double["last_order"].to_list() == [0]


def _labels(name: str, *, died: bool = False, readmission: str = "NONE") -> list[int]:
    examples = _probe(name, visits=2, died=died, readmission=readmission)
    return [int(label) for label in examples["label"]]


def _probe(name: str, *, visits: int, died: bool = False, readmission: str = "NONE") -> pl.DataFrame:
    """What the task makes of a patient with `visits` visits, the last of which ends in death if `died`."""
    days = [datetime(2000, 1, day) for day in range(1, 2 * visits + 1)]
    frame = pl.DataFrame(
        {
            "subject_id": np.ones(visits, dtype=np.int64),
            "visit_id": np.arange(1, visits + 1),
            "order": np.arange(visits),
            "admitted": days[::2],
            "discharged": days[1::2],
            "died": [False] * (visits - 1) + [died],
            "hospice": [False] * visits,
            "readmission": [readmission] * visits,
        },
        schema_overrides={"admitted": pl.Datetime("us"), "discharged": pl.Datetime("us")},
    )
    return load_task(name)(frame, TaskConfig(name=name))


def _last(visits: pl.DataFrame) -> pl.DataFrame:
    return visits.group_by("subject_id", maintain_order=True).last()


def _examples(
    last: pl.DataFrame, *, last_order: pl.Expr, predicted_at: pl.Expr, is_open: bool, label: pl.Expr | None = None
) -> pl.DataFrame:
    return last.select(
        "subject_id",
        last_order.alias("last_order"),
        predicted_at.alias("predicted_at"),
        pl.lit(is_open).alias("open"),
        (pl.col("died") if label is None else label).cast(pl.Int64).alias("label"),
    )
