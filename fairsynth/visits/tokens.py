"""Visits of a record and events -> the tokens of each visit, with nothing later than the prediction time.

In:  the events table, the cohort's visits, one example a patient.   Out: `Tokens`.
Never: labels as tokens; a missing value filled in. A test that was not done in a visit has no token in that visit, and
no value is carried forward from an earlier one.

What counts as known at the prediction time: every event up to that time in a visit of the record; of a visit that is
still open then, the diagnoses and procedures too, although they are coded after discharge (retrospective coding, see
docs/cohort.md). A laboratory test gives at most two tokens a visit: the bin of its last value and, where it differs,
the most abnormal bin (the later one where two are as abnormal).
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from fairsynth.visits.bins import GAP_BINS, LOS_BINS, binned
from fairsynth.visits.flow import Flow
from fairsynth.visits.labs import BINS, NORMAL, bin_index, conversions, converted
from fairsynth.visits.rollup import CODED_KINDS, roll_up

_SEVERITY_BIT = 60  # above time (microseconds since the first event, < 2**57) times 8


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """`visits`: subject_id, position, token, unique rows. `sources`: subject_id, token, code, unit, events: which event
    codes each patient's tokens came from, and how often.
    """

    visits: pl.DataFrame
    sources: pl.DataFrame


def record_visits(visits: pl.DataFrame, examples: pl.DataFrame, *, maximum_visits: int, flow: Flow) -> pl.DataFrame:
    """The visits of each record, the last `maximum_visits` of the history, with position 0 = oldest kept.

    Adds to the visits' columns: position, predicted_at, label, open (this visit is still going on at that time).
    """
    history = visits.join(examples, on="subject_id", how="inner", maintain_order="left").filter(
        pl.col("order") <= pl.col("last_order")
    )
    kept = history.filter(pl.col("order") > pl.col("last_order") - maximum_visits)
    flow.note("visits_in_records", len(kept))
    flow.note("visits_cut_off", len(history) - len(kept))
    return kept.with_columns(
        pl.int_range(pl.len()).over("subject_id").alias("position"),
        (pl.col("open") & (pl.col("order") == pl.col("last_order"))).alias("open"),
    )


def read_tokens(
    events: pl.LazyFrame, *, records: pl.DataFrame, parents: pl.DataFrame, exclude_codes: tuple[str, ...], flow: Flow
) -> Tokens:
    """The tokens of every visit of `records`."""
    inventory = events.group_by("code", "unit").len().collect(engine="streaming").sort("code", "unit")
    excluded = pl.any_horizontal(pl.lit(False), *(pl.col("code").str.starts_with(p) for p in exclude_codes))
    flow.note("events_excluded_by_code", _events(inventory.filter(excluded)))
    inventory = inventory.filter(~excluded)
    rollup = roll_up(inventory["code"].unique(maintain_order=True), parents)
    where = records.lazy().select("subject_id", "visit_id", "position", "predicted_at", "open")
    coded = _coded(events, rollup=rollup, where=where)
    labs = _labs(events, inventory=inventory.join(rollup.filter(kind="LAB"), on="code"), where=where, flow=flow)
    plain = coded.select("subject_id", "position", "token")
    visits = pl.concat([plain, _lab_tokens(labs), _interval_tokens(records)]).unique()
    return Tokens(visits=visits.sort("subject_id", "position", "token"), sources=_sources(coded, labs))


def _events(inventory: pl.DataFrame) -> int:
    """Number of events that the inventory counts."""
    return int(inventory["len"].sum())


def _known(coded: bool) -> pl.Expr:
    """Whether an event (columns time, predicted_at, open) is known at the prediction time."""
    by_time = (pl.col("time") <= pl.col("predicted_at")).fill_null(False)
    return by_time | pl.col("open") if coded else by_time


def _coded(events: pl.LazyFrame, *, rollup: pl.DataFrame, where: pl.LazyFrame) -> pl.DataFrame:
    """Known events that have a token of their own: subject_id, position, code, unit, token."""
    is_coded = pl.col("kind").is_in(CODED_KINDS)
    return (
        events.filter(pl.col("visit_id").is_not_null())
        .join(rollup.lazy().drop_nulls("token"), on="code", how="inner")
        .join(where, on=["subject_id", "visit_id"], how="inner")
        .filter((is_coded & _known(coded=True)) | (~is_coded & _known(coded=False)))
        .select("subject_id", "position", "code", "unit", "token")
        .collect(engine="streaming")
    )


def _labs(events: pl.LazyFrame, *, inventory: pl.DataFrame, where: pl.LazyFrame, flow: Flow) -> pl.DataFrame:
    """Known laboratory values: subject_id, position, time, code, unit, loinc, bin.

    `inventory` has the distinct laboratory codes and units, with loinc and their number of events.
    """
    table = conversions(inventory.select("code", "unit", "loinc"))
    mapped = inventory.join(table.select("code", "unit"), on=["code", "unit"], how="semi", nulls_equal=True)
    flow.note("lab_events_in_events", _events(inventory))
    flow.note("lab_events_without_known_loinc_or_unit", _events(inventory) - _events(mapped))
    plausible = pl.col("value").is_between(pl.col("least"), pl.col("greatest")).fill_null(False)
    labs = (
        events.filter(pl.col("visit_id").is_not_null(), pl.col("code").str.starts_with("LAB//"))
        .join(where, on=["subject_id", "visit_id"], how="inner")
        .filter(_known(coded=False))
        .join(table.lazy(), on=["code", "unit"], how="inner", nulls_equal=True)
        .with_columns(converted().alias("value"))
        .with_columns(pl.when(plausible).then(bin_index()).alias("bin"))
        .select("subject_id", "position", "time", "code", "unit", "loinc", "bin", "value")
        .collect(engine="streaming")
    )
    flow.note("lab_values_in_records", len(labs))
    flow.note("lab_values_missing_or_not_plausible", labs["bin"].null_count())
    return labs.drop_nulls("bin").drop("value")


def _lab_tokens(labs: pl.DataFrame) -> pl.DataFrame:
    """The last and the most abnormal bin of each (patient, visit, test).

    Both come from the maximum of one integer: severity, then time, then bin.
    """
    bins = pl.col("bin").cast(pl.Int64)
    elapsed = pl.col("time").dt.epoch("us") - labs["time"].dt.epoch("us").min() if len(labs) else pl.lit(0)
    last = elapsed * 8 + bins
    severity = (bins - NORMAL).abs() * 2**_SEVERITY_BIT
    found = labs.group_by("subject_id", "position", "loinc").agg(
        (last.max() % 8).alias("last"), ((severity + last).max() % 8).alias("worst")
    )
    both = pl.concat(
        [found.select("subject_id", "position", "loinc", pl.col(name).alias("bin")) for name in ("last", "worst")]
    )
    return both.unique().select("subject_id", "position", lab_token().alias("token"))


def lab_token() -> pl.Expr:
    """The token of columns loinc, bin."""
    names = pl.col("bin").cast(pl.Int64).replace_strict(dict(enumerate(BINS)), return_dtype=pl.String)
    return pl.format("LAB//{}//{}", "loinc", names)


def _interval_tokens(records: pl.DataFrame) -> pl.DataFrame:
    """GAP on every visit of a record but its first, LOS on every visit that is complete at the prediction time."""
    gap = records.filter(pl.col("position") > 0).with_columns(
        pl.format("GAP//{}", binned(pl.col("gap_days"), GAP_BINS)).alias("token")
    )
    stay = records.filter(~pl.col("open"), pl.col("discharged") <= pl.col("predicted_at")).with_columns(
        pl.format("LOS//{}", binned(pl.col("los_days"), LOS_BINS)).alias("token")
    )
    return pl.concat([frame.select("subject_id", "position", "token") for frame in (gap, stay)])


def _sources(coded: pl.DataFrame, labs: pl.DataFrame) -> pl.DataFrame:
    """How often each patient's tokens came from each source code."""
    keys = ["subject_id", "code", "unit"]
    plain = coded.group_by(*keys, "token").len("events")
    binned_labs = labs.group_by(*keys, "loinc", "bin").len("events").with_columns(lab_token().alias("token"))
    columns = ["subject_id", "token", "code", "unit", "events"]
    return pl.concat([frame.select(columns) for frame in (plain, binned_labs)]).sort(columns)
