"""What occurs in the shards of an events artefact: a subject is in one shard only, so counts of people add up.

In:  shards (visits/shards.py).   Out: how often each (code, unit) occurs and how many people carry it.
Never: more than one shard in memory.
"""

from __future__ import annotations

import polars as pl

from fairsynth.visits.shards import Shards

INVENTORY = {
    "code": pl.String,
    "unit": pl.String,
    "events": pl.Int64,
    "numbers": pl.Int64,
    "patients": pl.Int64,
}


def inventory(shards: Shards) -> pl.DataFrame:
    """Every distinct (code, unit): events, how many of them have a number, and patients; sorted."""
    counted = [
        part.group_by("code", "unit")
        .agg(
            pl.len().cast(pl.Int64).alias("events"),
            pl.col("numeric_value").is_not_null().sum().cast(pl.Int64).alias("numbers"),
            pl.col("subject_id").n_unique().cast(pl.Int64).alias("patients"),
        )
        .collect(engine="streaming")
        for part in shards
    ]
    stacked = pl.concat(counted) if counted else pl.DataFrame(schema=INVENTORY)
    return stacked.group_by("code", "unit").sum().sort("code", "unit")


def kind() -> pl.Expr:
    """What stands before the first `//` of a code."""
    return pl.col("code").str.extract(r"^([^/]+)", 1).alias("kind")
