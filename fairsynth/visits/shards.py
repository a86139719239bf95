"""The events of a site, one shard after the other, so that memory holds a shard and not the hospital.

In:  `events/data/*.parquet`: whole patients in each file.   Out: lazy frames, and the few events that all steps share.
Never: all events of a site in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

Shards = Sequence[pl.LazyFrame]

PATIENT_CODES = ("MEDS_BIRTH", "GENDER//")
VISIT_CODES = ("ADMISSION//", "DISCHARGE//", "DEATH//HOSPITAL", "UNIT//", "READMISSION//", "HOSPICE")


def open_shards(events: Path) -> Shards:
    """The shards of the artefact at `events`, in the order of their names."""
    return tuple(pl.scan_parquet(path) for path in sorted((events / "data").glob("*.parquet")))


def few_events(shards: Shards, *, attribute: str) -> pl.DataFrame:
    """What says who the patients are and when their visits begin and end; `attribute` is the sensitive one."""
    wanted = starts_with_any((*PATIENT_CODES, *VISIT_CODES, f"{attribute}//"))
    columns = ("subject_id", "time", "code", "visit_id")
    return pl.concat([shard.filter(wanted).select(columns).collect() for shard in shards])


def inventory(shards: Shards) -> pl.DataFrame:
    """Every distinct code and unit, sorted, and how many events have them: code, unit, events."""
    parts = [shard.group_by("code", "unit").len("events").collect(engine="streaming") for shard in shards]
    total = pl.col("events").cast(pl.Int64).sum()
    return pl.concat(parts).group_by("code", "unit").agg(total).sort("code", "unit")


def starts_with_any(prefixes: Iterable[str]) -> pl.Expr:
    """Whether an event's code starts with one of `prefixes`."""
    code = pl.col("code")
    return pl.any_horizontal(pl.lit(value=False), *(code.str.starts_with(prefix) for prefix in prefixes))
