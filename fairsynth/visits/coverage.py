"""How much of a site's events the shared vocabulary can say: counts of its codes and of the tokens they become.

In:  `events/`, the site's configuration, the plan.   Out: `Coverage`.
Never: one patient's events; anything written. Counts of few patients are for the caller to suppress.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fairsynth.config import StudyPlan, read_site
from fairsynth.visits.catalogue import rolled_up
from fairsynth.visits.labs import BINS, HOW_TO_BIN, bin_index, converted, plausible
from fairsynth.visits.shards import inventory, open_shards, starts_with_any

KINDS = {  # the kind of an event code -> what it is called
    "DIAG": "diagnoses",
    "PROC": "procedures",
    "DRUG": "drugs",
    "LAB": "labs",
    "UNIT": "units",
    "OBS": "observations",
}
IN_OWN_WORDS = ("units", "observations")  # tokens as the source names them: nothing to map
TOKEN_KINDS = {
    **{"DX": "diagnoses", "PX": "procedures", "RX": "drugs", "LAB": "labs", "UNIT": "units", "OBS": "observations"},
    **{"GAP": "intervals", "LOS": "intervals"},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """`codes`: kind, code, unit, description, standard, events, patients: one row a code and unit, the commonest first.
    `tokens`: kind, token, events: what the events become (null: nothing). `patients`: who has an event of each kind.
    """

    codes: pl.DataFrame
    tokens: pl.DataFrame
    patients: dict[str, int]


def coverage(root: Path, *, config: Path, plan: StudyPlan) -> Coverage:
    """Count the codes and tokens of all events at `root/events`, whether in the cohort or not."""
    shards = open_shards(root / "events")
    described = pl.read_parquet(root / "events" / "metadata" / "codes.parquet")
    table = rolled_up(inventory(shards), codes=described, levels=plan.vocabulary.levels).drop_nulls("kind")
    excluded = starts_with_any(read_site(config).cohort.exclude_codes)
    table = table.with_row_index("entry").with_columns(
        pl.col("kind").replace_strict(KINDS),
        pl.when(~excluded).then("token").alias("token"),
        excluded.alias("excluded"),
    )
    parts = [_counts(shard, table) for shard in shards]
    codes, tokens, kinds = (pl.concat(frames) for frames in zip(*parts, strict=True))
    named = table.join(described.select("code", "description"), on="code", how="left")
    patients = kinds.group_by("kind").agg(pl.col("patients").sum()).sort("kind")
    return Coverage(codes=_codes(codes, named), tokens=_tokens(tokens, table), patients=dict(patients.iter_rows()))


def token_kind(token: str) -> str:
    """What a token of the shared vocabulary is called: `token_kind("DX//CCS//108") == "diagnoses"`."""
    return TOKEN_KINDS[token.partition("//")[0]]


def _counts(shard: pl.LazyFrame, table: pl.DataFrame) -> Sequence[pl.DataFrame]:
    """Of one shard: events and patients by entry, events by entry and bin, patients by kind."""
    how = table.lazy().select("entry", "kind", "code", "unit", *HOW_TO_BIN)
    found = (
        shard.select("subject_id", "code", "unit", "numeric_value")
        .join(how, on=["code", "unit"], how="inner", nulls_equal=True)
        .with_columns(converted().alias("value"))
        .select("subject_id", "entry", "kind", pl.when(plausible()).then(bin_index()).alias("bin"))
        .collect(engine="streaming")
    )
    patients = pl.col("subject_id").n_unique().cast(pl.Int64).alias("patients")
    events = pl.len().cast(pl.Int64).alias("events")
    return (
        found.group_by("entry").agg(events, patients),
        found.group_by("entry", "bin").agg(events),
        found.group_by("kind").agg(patients),
    )


def _codes(counts: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
    """All shards' counts with the codes' names, the commonest first."""
    total = counts.group_by("entry").agg(pl.col("events").sum(), pl.col("patients").sum())
    columns = ("kind", "code", "unit", "description", "standard", "events", "patients")
    joined = named.drop("events").join(total, on="entry").select(columns)
    return joined.sort("events", "code", "unit", descending=[True, False, False])


def _tokens(counts: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """Events by the token that they become."""
    name = pl.col("bin").replace_strict(dict(enumerate(BINS)), return_dtype=pl.String)
    by_value = pl.when(~pl.col("excluded")).then(pl.format("LAB//{}//{}", "loinc", name))
    return (
        counts.join(table.select("entry", "kind", "token", "loinc", "excluded"), on="entry")
        .with_columns(pl.coalesce("token", by_value).alias("token"))
        .group_by("kind", "token")
        .agg(pl.col("events").sum())
        .sort("kind", "token")
    )
