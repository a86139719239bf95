"""The distinct codes of a site, each mapped once: what an event becomes is looked up, not worked out again.

In:  the inventory of a site's events, its `codes.parquet`, the study's levels.   Out: `Catalogue`.
Never: events, patients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from fairsynth.visits.bins import GAP_BINS, LOS_BINS
from fairsynth.visits.flow import Flow
from fairsynth.visits.labs import BINS, conversions
from fairsynth.visits.rollup import CODED_KINDS, roll_up
from fairsynth.visits.shards import starts_with_any


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """What events become. `entries` has one row a code and unit that gives tokens, sorted: entry (its number), code,
    unit, coded (for the whole stay, after it), token (null: by value), and of laboratory tests all of `conversions`.
    """

    entries: pl.DataFrame

    @cached_property
    def token_type(self) -> pl.Enum:
        """Every token that this site can make. Tokens of this type are held as numbers, and sort as their names do."""
        days = [f"{kind}//{name}" for kind, bins in (("GAP", GAP_BINS), ("LOS", LOS_BINS)) for name in bins]
        return pl.Enum(sorted({*days, *self.entries["token"].drop_nulls(), *self._lab_names["token"]}))

    @cached_property
    def plain_tokens(self) -> pl.DataFrame:
        """The token of each entry that has one whatever its value: entry, token."""
        return self.entries.select("entry", pl.col("token").cast(self.token_type)).drop_nulls("token")

    @cached_property
    def labs(self) -> pl.DataFrame:
        """How a value of each laboratory entry is binned: entry, factor, cut0..cut3, least, greatest."""
        return self.entries.filter(pl.col("loinc").is_not_null()).drop("code", "unit", "coded", "token", "loinc")

    @cached_property
    def lab_tokens(self) -> pl.DataFrame:
        """The token of each laboratory entry and bin: entry, loinc, bin, token."""
        return self._lab_names.with_columns(pl.col("token").cast(self.token_type))

    @cached_property
    def _lab_names(self) -> pl.DataFrame:
        bins = pl.DataFrame({"bin": range(len(BINS)), "name": BINS}, schema={"bin": pl.Int8, "name": pl.String})
        labs = self.entries.filter(pl.col("loinc").is_not_null()).select("entry", "loinc")
        return labs.join(bins, how="cross").select(
            "entry", "loinc", "bin", token=pl.format("LAB//{}//{}", "loinc", "name")
        )


def catalogue(inventory: pl.DataFrame, *, codes: pl.DataFrame, exclude_codes: Iterable[str], flow: Flow) -> Catalogue:
    """The codes of `inventory` that give tokens; `codes` is the events' `codes.parquet`.

    Notes in `flow` how many events are excluded, and how many laboratory values have no known test or unit.
    """
    excluded = starts_with_any(exclude_codes)
    flow.note("events_excluded_by_code", _events(inventory.filter(excluded)))
    kept = inventory.filter(~excluded)
    mapped = kept.join(roll_up(kept["code"].unique(maintain_order=True), codes), on="code", maintain_order="left")
    labs = mapped.filter(kind="LAB")
    table = conversions(labs.select("code", "unit", "loinc"))
    entries = mapped.drop("loinc").join(table, on=["code", "unit"], how="left", nulls_equal=True, maintain_order="left")
    entries = entries.filter(pl.col("token").is_not_null() | pl.col("loinc").is_not_null())
    flow.note("lab_events_in_events", _events(labs))
    flow.note("lab_events_without_known_loinc_or_unit", _events(labs) - _events(entries.filter(kind="LAB")))
    coded = pl.col("kind").is_in(CODED_KINDS).alias("coded")
    return Catalogue(entries=entries.with_columns(coded).drop("kind", "events").with_row_index("entry"))


def _events(inventory: pl.DataFrame) -> int:
    """Number of events that the inventory counts."""
    return int(inventory["events"].sum())
