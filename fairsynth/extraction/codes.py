"""The codes of an events table, described: text and parents in other vocabularies (MEDS `codes.parquet`).

In:  the codes that occur, the source's dictionaries, the rules' own parents.   Out: one row a code, sorted.
Never: patients, counts; a whole dictionary in memory (OMOP's has millions of rows).
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
import pyarrow as pa

from fairsynth.extraction import cells
from fairsynth.extraction.rules import DictionaryRule, Rules
from fairsynth.extraction.tables import Table
from fairsynth.extraction.templates import Parent

CODES_ARROW = pa.schema(
    [
        pa.field("code", pa.string(), nullable=False),
        pa.field("description", pa.string()),
        pa.field("parent_codes", pa.list_(pa.string())),
    ]
)
_ENTRY = pl.Schema({"code": pl.String(), "description": pl.String(), "parents": pl.List(pl.String)})


def describe(codes: pl.Series, *, tables: dict[str, Table], rules: Rules) -> pa.Table:
    """Each of `codes` with its description (null: none known) and `parent_codes` (possibly empty).

    A code with several rows keeps its first description and all its parents.
    """
    found = [pl.DataFrame(schema=_ENTRY), _inline(rules)]
    for rule in rules.dictionaries:
        found += _entries(tables[rule.file], rule, codes=codes)
    entries = (
        pl.concat(found)
        .group_by("code", maintain_order=True)
        .agg(
            pl.col("description").drop_nulls().first(),
            parent_codes=pl.col("parents").explode(empty_as_null=True).drop_nulls().unique().sort(),
        )
    )
    described = pl.DataFrame({"code": codes}).join(entries, on="code", how="left").sort("code")
    empty = pl.lit([], dtype=pl.List(pl.String))
    filled = described.with_columns(pl.col("parent_codes").fill_null(empty))
    return filled.select(CODES_ARROW.names).to_arrow().cast(CODES_ARROW)


def _inline(rules: Rules) -> pl.DataFrame:
    """The parents that the rules name themselves."""
    rows = [
        {"code": code, "description": None, "parents": [parents] if isinstance(parents, str) else list(parents)}
        for code, parents in rules.parents.items()
    ]
    return pl.DataFrame(rows, schema=_ENTRY)


def _entries(table: Table, rule: DictionaryRule, *, codes: pl.Series) -> Iterable[pl.DataFrame]:
    """The rows of a dictionary that describe one of `codes`."""
    wanted = pl.DataFrame({"code": codes})
    description = pl.col(rule.description) if rule.description is not None else pl.lit(None, pl.String)
    parents = [Parent(text=text).filled() for text in rule.parents] or [pl.lit(None, pl.String)]
    for batch in table.batches():
        rows = batch.filter(cells.holds(rule.where))
        for template in rule.codes:
            entries = rows.select(code=template.filled(), description=description, parents=pl.concat_list(parents))
            yield entries.join(wanted, on="code", how="semi", maintain_order="left")
