"""The codes of an events table, described: text and parents in other vocabularies (MEDS `codes.parquet`).

In:  events, the source's dictionaries.   Out: one row a code that occurs, sorted.
Never: patients, counts.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from fairsynth.extraction.rules import DictionaryRule, Rules
from fairsynth.extraction.tables import Table, collect
from fairsynth.extraction.templates import Template

CODES_ARROW = pa.schema(
    [
        pa.field("code", pa.string(), nullable=False),
        pa.field("description", pa.string()),
        pa.field("parent_codes", pa.list_(pa.string())),
    ]
)


def describe(events: pl.LazyFrame, *, tables: dict[str, Table], rules: Rules) -> pa.Table:
    """Every code of `events` with its description (null: none known) and `parent_codes` (possibly empty)."""
    codes = events.select("code").unique()
    entries = [_entries(tables[rule.file], rule) for rule in rules.dictionaries]
    if entries:
        codes = codes.join(pl.concat(entries), on="code", how="left")
    else:
        codes = codes.with_columns(description=pl.lit(None, pl.String), parent_codes=pl.lit(None, pl.List(pl.String)))
    parents = pl.col("parent_codes").fill_null(pl.lit([], dtype=pl.List(pl.String)))
    found = collect(codes.with_columns(parent_codes=parents).sort("code"), "dictionaries")
    return found.select(CODES_ARROW.names).to_arrow().cast(CODES_ARROW)


def _entries(table: Table, rule: DictionaryRule) -> pl.LazyFrame:
    """A dictionary's codes. A code with several rows keeps its first description and all its parents."""
    description = pl.col(rule.description) if rule.description is not None else pl.lit(None, pl.String)
    parents = [Template.parse(text).filled() for text in rule.parents] or [pl.lit(None, pl.String)]
    rows = table.scan().select(
        code=Template.parse(rule.code).filled(), description=description, parents=pl.concat_list(parents)
    )
    return (
        rows.drop_nulls("code")
        .group_by("code", maintain_order=True)
        .agg(
            pl.col("description").drop_nulls().first(),
            parent_codes=pl.col("parents").explode().drop_nulls().unique().sort(),
        )
    )
