"""Drawn tokens and a calendar -> the events of synthetic patients.

In:  `Drawn` (tokens with their source codes), `Plot` (which visits there are), `Timeline`.   Out: an events frame.
Never: files; a choice of codes (choices.py) or of dates (timeline.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from fairsynth.extraction.columns import EVENT_SCHEMA
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.synthesis.timeline import Intervals, Timeline, Times
from fairsynth.visits.labs import BINS, NORMAL

# Identifiers of synthetic patients and visits: FIRST_ID, FIRST_ID + 1, ... They fit 32-bit columns, and lie above all
# identifiers of the sources (MIMIC-III and PIC stay below 1,000,000).
FIRST_ID = 2_000_000_000
SYNTHETIC = "SYNTHETIC"  # the type of an admission, and of a discharge, that the decoder cannot name

CODED = ("DX", "PX")  # at discharge
OBSERVED_SECONDS = 6 * 3600  # drugs, laboratory values and units fall in the first hours of a visit


@dataclass(frozen=True, kw_only=True, eq=False)
class Visits:
    """The V visits that are written: `patient` (V,) their owner, `patient_offsets` (B + 1,), `of_record` (W,) where
    visit w of the records went, `last` (B,) the visit whose outcome is the label, `readmission` (up to B) visits that
    are there because the label says that one follows within 30 days."""

    patient: IntArray
    patient_offsets: IntArray
    of_record: IntArray
    last: IntArray
    readmission: IntArray
    first_patient: int = FIRST_ID
    first_visit: int = FIRST_ID


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What tokens became: `codes` (visit, token, kind, source, unit, value: one row a token of a visit), source codes
    drawn once a patient or visit, and days. A source is null where the decoder has none.
    """

    codes: pl.DataFrame
    sex: pl.Series  # (B,)
    group: pl.Series  # (B,)
    outcome: pl.Series  # (B,) what the source says of the label; null: nothing
    died: pl.Series  # (B,) whether the patient dies in the label's visit
    admission: pl.Series  # (V,)
    discharge: pl.Series  # (V,)
    intervals: Intervals
    undecodable: dict[str, int]  # kind -> tokens without a source code


def assemble(
    drawn: Drawn, *, visits: Visits, times: Timeline, rng: np.random.Generator, group_once: bool = False
) -> pl.DataFrame:
    """All events in the columns of EVENT_SCHEMA, sorted by patient and time, undated ones first.

    The group is told at every visit, or, with `group_once`, of the patient, outside any visit.
    """
    frames = [
        *_of_patients(drawn, visits=visits, times=times),
        *_of_visits(drawn, visits=visits, times=times),
        _of_groups(drawn.group, visits=visits, times=times, once=group_once),
        _of_codes(drawn.codes, visits=visits, times=times, rng=rng),
    ]
    events = pl.concat([_typed(frame) for frame in frames]).drop_nulls("code")
    return events.sort("subject_id", "time", "visit_id", "code", "numeric_value", "unit", nulls_last=False)


def _of_patients(drawn: Drawn, *, visits: Visits, times: Timeline) -> Iterator[pl.DataFrame]:
    """Birth, sex, death."""
    subject = pl.Series("subject_id", visits.first_patient + np.arange(len(times.birth)))
    yield pl.DataFrame({"subject_id": subject, "time": times.birth, "code": "MEDS_BIRTH"})
    yield pl.DataFrame({"subject_id": subject, "code": drawn.sex})
    ended = pl.DataFrame({"subject_id": subject, "time": times.end[visits.last], "code": "MEDS_DEATH"})
    yield ended.filter(drawn.died)


def _of_visits(drawn: Drawn, *, visits: Visits, times: Timeline) -> Iterator[pl.DataFrame]:
    """Admission, discharge, and the outcome in the last visit."""
    ids = {
        "subject_id": visits.first_patient + visits.patient,
        "visit_id": visits.first_visit + np.arange(len(visits.patient)),
    }
    admission = drawn.admission.fill_null(f"ADMISSION//{SYNTHETIC}")
    discharge = drawn.discharge.fill_null(f"DISCHARGE//{SYNTHETIC}")
    yield pl.DataFrame({**ids, "time": times.start, "code": admission})
    yield pl.DataFrame({**ids, "time": times.end, "code": discharge})
    yield pl.DataFrame(
        {
            "subject_id": visits.first_patient + np.arange(len(visits.last)),
            "visit_id": visits.first_visit + visits.last,
            "time": times.end[visits.last],
            "code": drawn.outcome,
        }
    )


def _of_groups(group: pl.Series, *, visits: Visits, times: Timeline, once: bool) -> pl.DataFrame:
    """The group of every patient."""
    if once:
        return pl.DataFrame({"subject_id": visits.first_patient + np.arange(len(group)), "code": group})
    ids = {
        "subject_id": visits.first_patient + visits.patient,
        "visit_id": visits.first_visit + np.arange(len(visits.patient)),
    }
    return pl.DataFrame({**ids, "time": times.start, "code": group.gather(visits.patient)})


def _of_codes(codes: pl.DataFrame, *, visits: Visits, times: Timeline, rng: np.random.Generator) -> pl.DataFrame:
    """Diagnoses and procedures at discharge; drugs, units and laboratory values in the first hours."""
    kept = codes.filter(pl.col("source").is_not_null(), pl.col("source") != "")
    kept = kept.with_columns(_share_of_window(rng.random(len(kept))))
    visit = kept["visit"].to_numpy()
    start, end = times.start[visit], times.end[visit]
    observed = _observed(start, end, share=kept["share"].to_numpy())
    at = np.where(kept["kind"].is_in(CODED).to_numpy(), end, observed)
    return pl.DataFrame(
        {
            "subject_id": visits.first_patient + visits.patient[visit],
            "visit_id": visits.first_visit + visit,
            "time": at,
            "code": kept["source"],
            "numeric_value": kept["value"],
            "unit": kept["unit"],
        }
    )


def _share_of_window(uniform: FloatArray) -> pl.Expr:
    """`share`: when in the observed window an event falls, 0 to 1.

    Values of one test are spaced so that the most abnormal comes first and the least abnormal last, which is what the
    two tokens of a test mean (fairsynth/visits/tokens.py).
    """
    parts = pl.col("token").str.split("//")
    severity = parts.list.get(2, null_on_oob=True).replace_strict(
        {name: abs(index - NORMAL) for index, name in enumerate(BINS)}, default=0, return_dtype=pl.Int64
    )
    test = ["visit", parts.list.get(1, null_on_oob=True)]
    rank = severity.rank("ordinal", descending=True).over(test)
    spaced = rank.cast(pl.Float64) / (pl.len().over(test) + 1)
    return pl.when(pl.col("kind") == "LAB").then(spaced).otherwise(pl.Series(uniform)).alias("share")


def _observed(start: Times, end: Times, *, share: FloatArray) -> Times:
    """`share` of the way through the first hours of a visit, or through the first half of a shorter one."""
    seconds = np.minimum((end - start) / np.timedelta64(2, "s"), OBSERVED_SECONDS)
    moments: Times = start + np.floor(seconds * (0.01 + 0.98 * share)).astype("timedelta64[s]")
    return moments


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with the columns of EVENT_SCHEMA, absent ones null."""
    absent = [pl.lit(None).alias(name) for name in EVENT_SCHEMA if name not in frame.columns]
    return frame.with_columns(absent).select(pl.col(name).cast(dtype) for name, dtype in EVENT_SCHEMA.items())
