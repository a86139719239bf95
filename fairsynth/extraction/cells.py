"""Text cells -> identifiers, times and numbers, as Polars expressions.

In:  a column name.   Out: an expression that gives null where the text does not parse; checks.py counts those cells.
Never: data.
"""

from __future__ import annotations

import polars as pl

from fairsynth.extraction.rules import Rules

_FLOAT32_MAXIMUM = 3.4e38


def identifier(column: str) -> pl.Expr:
    """A whole number as int64."""
    return pl.col(column).cast(pl.Int64, strict=False)


def time(column: str, rules: Rules) -> pl.Expr:
    """A time in microseconds, by the first of the rules' formats that fits."""
    text = pl.col(column)
    return pl.coalesce([text.str.to_datetime(form, time_unit="us", strict=False) for form in rules.date_formats])


def number(column: str) -> pl.Expr:
    """A finite number that float32 can hold."""
    value = pl.col(column).cast(pl.Float64, strict=False)
    return pl.when(value.is_finite() & (value.abs() < _FLOAT32_MAXIMUM)).then(value).cast(pl.Float32)


def unparsed(column: str, parsed: pl.Expr) -> pl.Expr:
    """Whether a cell holds text that `parsed` cannot read."""
    return pl.col(column).is_not_null() & parsed.is_null()
