"""Order in time: nothing after the prediction time, before birth, after death; nobody in two splits.

In:  shards of an events artefact; the source's visits and people; the prepared cohort.   Out: `OrderQuality`, findings.
Never: a count of people or visits between 1 and the minimum cell; more than one shard in memory.

That no token needs the future is not read off the code that makes tokens: all tokens are made a second time from events
of which everything after the prediction time was deleted (diagnoses and procedures excepted), and must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from fairsynth.config import Strict
from fairsynth.quality.events import kind
from fairsynth.quality.findings import Finding, error, note, warning
from fairsynth.quality.parts import Part, part
from fairsynth.visits.catalogue import Catalogue
from fairsynth.visits.flow import Flow
from fairsynth.visits.rollup import CODED_KINDS, KINDS
from fairsynth.visits.shards import Shards
from fairsynth.visits.tokens import read_tokens

CARE = ("ADMISSION", *(name for name in KINDS if name not in CODED_KINDS))  # kinds of things done to a patient
MANY_EVENTS = 0.01  # of all events with a time


class OrderQuality(Strict):
    """What lies at the wrong time. Few events are few people: they are hidden alike."""

    before_birth: Part  # events more than a day before the day of birth
    after_death: Part  # events of care after the day of death
    visits_ending_before_start: Part
    visits_overlapping: Part  # begin before the patient's previous visit has ended
    events_after_prediction: int | None  # in visits of records, left out of the tokens; None: no cohort
    coded_after_prediction: int | None  # diagnoses and procedures of open visits, kept: retrospective coding
    tokens_that_need_the_future: int | None  # must be 0
    patients_in_two_splits: int | None  # must be 0
    repeated_people: Part | None  # patients who share birth, sex and first admission with another; None: no calendar


def describe_order(
    shards: Shards, *, visits: pl.DataFrame, people: pl.DataFrame, calendar: bool, minimum: int
) -> OrderQuality:
    """What the events and visits of the source show, before there is a cohort.

    Without a real `calendar` all first visits begin alike, so that copies cannot be told.
    """
    counted = [_lifetimes(shard, people.lazy()) for shard in shards]
    found = pl.concat(counted).sum().row(0, named=True)
    previous = pl.col("discharged").shift(1).over("subject_id")
    flags = visits.select(
        (pl.col("discharged") < pl.col("admitted")).sum().alias("backward"),
        (pl.col("admitted") < previous).fill_null(value=False).sum().alias("overlapping"),
    ).row(0, named=True)
    first = visits.group_by("subject_id").agg(pl.col("admitted").min())
    keyed = people.join(first, on="subject_id", how="inner")
    repeated = len(keyed) - keyed.select("birth", "sex", "admitted").n_unique()
    return OrderQuality(
        before_birth=part(found["before"], found["events"], minimum=minimum),
        after_death=part(found["after"], found["events"], minimum=minimum),
        visits_ending_before_start=part(int(flags["backward"]), len(visits), minimum=minimum),
        visits_overlapping=part(int(flags["overlapping"]), len(visits), minimum=minimum),
        events_after_prediction=None,
        coded_after_prediction=None,
        tokens_that_need_the_future=None,
        patients_in_two_splits=None,
        repeated_people=part(repeated, len(keyed), minimum=minimum) if calendar else None,
    )


def with_cohort(
    order: OrderQuality,
    shards: Shards,
    *,
    records: pl.DataFrame,
    tokens: pl.DataFrame,
    patients: pl.DataFrame,
    catalogue: Catalogue,
) -> OrderQuality:
    """`order` with what the prepared cohort shows."""
    seen = [_future(shard, records=records, tokens=tokens, catalogue=catalogue) for shard in shards]
    found = pl.concat(seen).sum().row(0, named=True)
    splits = patients.group_by("subject_id").agg(pl.len().alias("rows"))
    return order.model_copy(
        update={
            "events_after_prediction": found["timed"],
            "coded_after_prediction": found["coded"],
            "tokens_that_need_the_future": found["tokens"],
            "patients_in_two_splits": len(splits.filter(pl.col("rows") > 1)),
        }
    )


def order_findings(order: OrderQuality) -> Iterator[Finding]:
    """What must not be, and what is worth knowing."""
    if order.tokens_that_need_the_future:
        what = f"{order.tokens_that_need_the_future:,} tokens change when events after the prediction time are deleted"
        yield error(what, where="records", do="this is a fault of the program: report it")
    if order.patients_in_two_splits:
        yield error("a patient is in two splits", where="cohort", do="this is a fault of the program: report it")
    misplaced = {
        "more than a day before birth": order.before_birth,
        "of care after the day of death": order.after_death,
    }
    for what, found in misplaced.items():
        if found.some:
            level = warning if (found.share or 0) > MANY_EVENTS else note
            yield level(f"events {what}: {found}", where="events", do="check the source's dates")
    if order.visits_ending_before_start.some:
        what = f"visits that end before they start: {order.visits_ending_before_start}"
        yield warning(what, where="visits", do="their length counts as 0 days; check the two columns")
    if order.visits_overlapping.some:
        what = f"visits that begin before the patient's previous one ended: {order.visits_overlapping}"
        yield note(what, where="visits", do="check that transfers are not told as visits")
    if order.coded_after_prediction:
        what = (
            f"{order.coded_after_prediction:,} diagnoses and procedures of open visits are coded after the prediction"
        )
        do = "kept by rule (retrospective coding, docs/cohort.md); `exclude_codes: [DIAG, PROC]` leaves them out"
        yield note(what, where="records", do=do)
    what = "the same person under two identifiers cannot be recognised"
    if order.repeated_people is not None and order.repeated_people.some:
        what += f"; patients who share birth, sex and first admission with another: {order.repeated_people}"
    yield note(what, where="patients", do="remove copies at the source: the split is by identifier")


def _lifetimes(shard: pl.LazyFrame, people: pl.LazyFrame) -> pl.DataFrame:
    """One row: events with a time, events before birth, events of care after death."""
    code, day = pl.col("code"), pl.duration(days=1)
    deaths = (
        shard.filter((code == "MEDS_DEATH") | code.str.starts_with("DEATH//"))
        .group_by("subject_id")
        .agg(pl.col("time").max().dt.truncate("1d").alias("death"))
    )
    early = (pl.col("time") < pl.col("birth").dt.truncate("1d") - day) & (code != "MEDS_BIRTH")
    late = kind().is_in(CARE) & (pl.col("time") >= pl.col("death") + day)
    counts = {"events": pl.len(), "before": early.sum(), "after": late.sum()}
    return (
        shard.filter(pl.col("time").is_not_null())
        .join(people.select("subject_id", "birth"), on="subject_id", how="left")
        .join(deaths, on="subject_id", how="left")
        .select(expression.cast(pl.Int64).alias(name) for name, expression in counts.items())
        .collect(engine="streaming")
    )


def _future(shard: pl.LazyFrame, *, records: pl.DataFrame, tokens: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """One row: timed and coded events after the prediction time, and tokens that differ without the former."""
    subjects = shard.select("subject_id").unique().collect(engine="streaming")
    here, stored = (frame.join(subjects, on="subject_id", how="semi") for frame in (records, tokens))
    times = here.lazy().select("subject_id", "visit_id", "predicted_at", "open")
    events = shard.join(times, on=["subject_id", "visit_id"], how="left")
    later, coded = (pl.col("time") > pl.col("predicted_at")).fill_null(value=False), kind().is_in(CODED_KINDS)
    counted = events.select(
        (later & ~coded & kind().is_in(KINDS)).sum().cast(pl.Int64).alias("timed"),
        (later & coded & pl.col("open")).sum().cast(pl.Int64).alias("coded"),
    ).collect(engine="streaming")
    past = events.filter(coded | ~later).drop("predicted_at", "open")
    nobody = pl.Series("subject_id", [], dtype=pl.Int64)
    read = read_tokens([past], records=here, catalogue=catalogue, training=nobody, flow=Flow())
    made = read.visits.cast({"token": pl.String})
    key = ["subject_id", "position", "token"]
    differing = len(made.join(stored, on=key, how="anti")) + len(stored.join(made, on=key, how="anti"))
    return counted.with_columns(tokens=pl.lit(differing, dtype=pl.Int64))
