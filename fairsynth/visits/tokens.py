"""Visits of a record and events -> the tokens of each visit, with nothing later than the prediction time.

In:  the shards of the events, the cohort's visits, one example a patient, the catalogue of codes.   Out: `Tokens`.
Never: labels as tokens; a missing value filled in. A test that was not done in a visit has no token in that visit, and
no value is carried forward from an earlier one.

What counts as known at the prediction time: every event up to that time in a visit of the record; of a visit that is
still open then, the diagnoses and procedures too, although they are coded after discharge (retrospective coding, see
docs/cohort.md). A laboratory test gives at most two tokens a visit: the bin of its last value and, where it differs,
the most abnormal bin (the later one where two are as abnormal).

Each shard is reduced to distinct tokens and to counts before the next one is read. Whole patients lie in one shard, so
that numbers of patients add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from fairsynth.visits.bins import GAP_BINS, LOS_BINS, binned
from fairsynth.visits.catalogue import Catalogue
from fairsynth.visits.flow import Flow
from fairsynth.visits.labs import NORMAL, bin_index, converted, plausible
from fairsynth.visits.rollup import CODED_KINDS
from fairsynth.visits.shards import Shards

_SEVERITY_BIT = 60  # above time (microseconds since the first event, < 2**57) times 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """`visits`: subject_id, position, token, unique rows, sorted. `phenotypes`: subject_id, phenotype, the same.
    `sources`: token, code, unit, events, patients: which event codes the training patients' tokens came from, and how
    often.
    """

    visits: pl.DataFrame
    phenotypes: pl.DataFrame
    sources: pl.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shard:
    """One shard, reduced. `tokens`: row (of the records), token. `phenotypes`: subject_id, phenotype. `sources`: entry,
    token, events, patients.
    """

    tokens: pl.DataFrame
    phenotypes: pl.DataFrame
    sources: pl.DataFrame
    lab_values: int
    lab_values_dropped: int


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
    shards: Shards, *, records: pl.DataFrame, catalogue: Catalogue, training: pl.Series, flow: Flow
) -> Tokens:
    """The tokens of every visit of `records`, and the source codes of the patients `training`."""
    rows = records.with_row_index("row").with_columns(train=pl.col("subject_id").is_in(training.implode()))
    parts = [_read(shard, rows=rows, catalogue=catalogue) for shard in shards]
    flow.note("lab_values_in_records", sum(part.lab_values for part in parts))
    flow.note("lab_values_missing_or_not_plausible", sum(part.lab_values_dropped for part in parts))
    tokens = pl.concat([*(part.tokens for part in parts), _interval_tokens(rows, catalogue)]).sort("row", "token")
    visits = rows.select("row", "subject_id", "position").join(tokens, on="row", maintain_order="left_right")
    return Tokens(
        visits=visits.drop("row"),
        phenotypes=pl.concat([part.phenotypes for part in parts]).sort("subject_id", "phenotype"),
        sources=_named(pl.concat([part.sources for part in parts]), catalogue),
    )


def _read(shard: pl.LazyFrame, *, rows: pl.DataFrame, catalogue: Catalogue) -> _Shard:
    """Reduce one shard to distinct tokens and to counts."""
    known = _known_events(shard, rows=rows, catalogue=catalogue)
    labs, lab_values = _binned(known, catalogue=catalogue)
    coded = known.join(catalogue.plain_tokens, on="entry").group_by("row", "entry", "token").len("events")
    counts = pl.concat([frame.select("row", "entry", "token", "events") for frame in (coded, labs)])
    tokens = pl.concat([coded.select("row", "token").unique(), _lab_tokens(labs, catalogue)])
    named = coded.join(catalogue.phenotypes, on="entry").join(rows.select("row", "subject_id"), on="row")
    return _Shard(
        tokens=tokens,
        phenotypes=named.select("subject_id", "phenotype").unique(),
        sources=_counted(counts, rows=rows),
        lab_values=lab_values,
        lab_values_dropped=lab_values - int(labs["events"].sum()),
    )


def _known_events(shard: pl.LazyFrame, *, rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """The shard's events that give a token and are known at the prediction time: row, entry, time, numeric_value."""
    coded = pl.col("kind").is_in(CODED_KINDS).alias("coded")
    entries = catalogue.entries.lazy().select("code", "unit", "entry", coded)
    where = rows.lazy().select("subject_id", "visit_id", "row", "predicted_at", "open")
    by_time = (pl.col("time") <= pl.col("predicted_at")).fill_null(value=False)
    return (
        shard.filter(pl.col("visit_id").is_not_null())
        .join(entries, on=["code", "unit"], how="inner", nulls_equal=True)
        .join(where, on=["subject_id", "visit_id"], how="inner")
        .filter(by_time | (pl.col("coded") & pl.col("open")))
        .select("row", "entry", "time", "numeric_value")
        .collect(engine="streaming")
    )


def _binned(known: pl.DataFrame, *, catalogue: Catalogue) -> tuple[pl.DataFrame, int]:
    """Laboratory values counted by test and bin (row, entry, loinc, bin, token, events, time of the last one); and how
    many values there were, those that are missing or not plausible included.
    """
    values = known.lazy().join(catalogue.labs.lazy(), on="entry").with_columns(converted().alias("value"))
    found = (
        values.select("row", "entry", "time", pl.when(plausible()).then(bin_index()).alias("bin"))
        .group_by("row", "entry", "bin")
        .agg(pl.len().alias("events"), pl.col("time").max())
        .collect()
    )
    number = int(found["events"].sum())
    return found.drop_nulls("bin").join(catalogue.lab_tokens, on=["entry", "bin"]), number


def _lab_tokens(labs: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """The last and the most abnormal bin of each (visit, test): row, token.

    Both come from the maximum of one integer: severity, then time, then bin.
    """
    bins = pl.col("bin").cast(pl.Int64)
    elapsed = pl.col("time").dt.epoch("us") - labs["time"].dt.epoch("us").min() if len(labs) else pl.lit(0)
    last = elapsed * 8 + bins
    severity = (bins - NORMAL).abs() * 2**_SEVERITY_BIT
    found = labs.group_by("row", "loinc").agg(
        (last.max() % 8).alias("last"), ((severity + last).max() % 8).alias("worst")
    )
    both = pl.concat([found.select("row", "loinc", bin=pl.col(name).cast(pl.Int8)) for name in ("last", "worst")])
    tokens = catalogue.lab_tokens.select("loinc", "bin", "token").unique()
    return both.unique().join(tokens, on=["loinc", "bin"]).select("row", "token")


def _interval_tokens(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """GAP on every visit of a record but its first (none where the source has no calendar), LOS on every visit that is
    complete at the prediction time.
    """
    later = (pl.col("position") > 0) & pl.col("gap_days").is_not_null()
    complete = ~pl.col("open") & (pl.col("discharged") <= pl.col("predicted_at"))
    gap = rows.filter(later).select("row", token=pl.format("GAP//{}", binned(pl.col("gap_days"), GAP_BINS)))
    stay = rows.filter(complete).select("row", token=pl.format("LOS//{}", binned(pl.col("los_days"), LOS_BINS)))
    return pl.concat([gap, stay]).cast({"token": catalogue.token_type})


def _counted(counts: pl.DataFrame, *, rows: pl.DataFrame) -> pl.DataFrame:
    """Of training patients: how many events made a token from an entry, and how many patients have one."""
    training = rows.filter("train").select("row", "subject_id")
    return (
        counts.join(training, on="row")
        .group_by("entry", "token")
        .agg(pl.col("events").cast(pl.Int64).sum(), pl.col("subject_id").n_unique().cast(pl.Int64).alias("patients"))
    )


def _named(sources: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """The shards' counts together, by the source's code and unit: token, code, unit, events, patients."""
    total = sources.group_by("entry", "token").agg(pl.col("events").sum(), pl.col("patients").sum())
    named = total.join(catalogue.entries.select("entry", "code", "unit"), on="entry")
    columns = ("token", "code", "unit", "events", "patients")
    return named.select(columns).cast({"token": pl.String}).sort("token", "code", "unit")
