"""The distinct codes of a site, each mapped once: what an event becomes is looked up, not worked out again.

In:  the inventory of a site's events, its `codes.parquet`, the study's levels.   Out: `Catalogue`.
Never: events, patients.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from fairsynth.config import LevelsConfig
from fairsynth.visits.bins import GAP_BINS, LOS_BINS
from fairsynth.visits.flow import Flow
from fairsynth.visits.labs import BINS, HOW_TO_BIN, conversions
from fairsynth.visits.phenotypes import phenotypes
from fairsynth.visits.rollup import roll_up
from fairsynth.visits.shards import starts_with_any


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """What events become. `entries` has one row a code and unit that gives tokens, sorted: entry (its number), code,
    unit, kind, token (null: by value), standard and ccs as `roll_up` has them, and of laboratory tests all of
    `conversions`.
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
        return self.entries.filter(pl.col("loinc").is_not_null()).select("entry", *HOW_TO_BIN)

    @cached_property
    def phenotypes(self) -> pl.DataFrame:
        """The phenotype that each diagnosis names, if any: entry, phenotype."""
        named = {item.ccs: item.name for item in phenotypes()}
        found = pl.col("ccs").replace_strict(named, default=None, return_dtype=pl.String).alias("phenotype")
        return self.entries.select("entry", found).drop_nulls()

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


def catalogue(
    inventory: pl.DataFrame, *, codes: pl.DataFrame, levels: LevelsConfig, exclude_codes: Iterable[str], flow: Flow
) -> Catalogue:
    """The codes of `inventory` that give tokens; `codes` is the events' `codes.parquet`.

    Notes in `flow` how many events are excluded, and how many laboratory values have no known test or unit.
    """
    excluded = starts_with_any(exclude_codes)
    flow.note("events_excluded_by_code", _events(inventory.filter(excluded)))
    mapped = rolled_up(inventory.filter(~excluded), codes=codes, levels=levels)
    entries = mapped.filter(pl.col("token").is_not_null() | pl.col("loinc").is_not_null())
    labs = _events(mapped.filter(kind="LAB"))
    flow.note("lab_events_in_events", labs)
    flow.note("lab_events_without_known_loinc_or_unit", labs - _events(entries.filter(kind="LAB")))
    return Catalogue(entries=entries.with_row_index("entry"))


def rolled_up(inventory: pl.DataFrame, *, codes: pl.DataFrame, levels: LevelsConfig) -> pl.DataFrame:
    """`inventory` without the kinds that give no token, with what `roll_up` and `conversions` say of each row.

    A laboratory test is standard where its LOINC code and its unit are known.
    """
    table = roll_up(inventory["code"].unique(maintain_order=True), described=codes, levels=levels)
    mapped = inventory.join(table, on="code", maintain_order="left")
    known = conversions(mapped.filter(kind="LAB").select("code", "unit", "loinc"))
    mapped = mapped.drop("loinc").join(known, on=["code", "unit"], how="left", nulls_equal=True, maintain_order="left")
    return mapped.with_columns(pl.col("standard") | pl.col("loinc").is_not_null())


def _events(inventory: pl.DataFrame) -> int:
    """Number of events that the inventory counts."""
    return int(inventory["events"].sum())
