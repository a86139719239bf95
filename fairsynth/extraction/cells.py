"""Text cells -> identifiers, times and numbers, as Polars expressions.

In:  a column name.   Out: an expression that gives null where the text does not parse; reading.py counts those cells.
Never: data.
"""

from __future__ import annotations

import polars as pl

from fairsynth.extraction.event_rules import Age, Conditions, DateParts
from fairsynth.extraction.rules import Clock, Rules

_FLOAT32_MAXIMUM = 3.4e38
LONGEST_CODE = 500  # characters of a cell that becomes part of a code
_MICROSECONDS = {"minutes": 60_000_000, "hours": 3_600_000_000, "days": 86_400_000_000}
_DAYS = {"days": 1.0, "months": 365.25 / 12, "years": 365.25}

# Dates outside these years are mistakes: MIMIC moves births to the 1800s and visits to the 2200s, nothing goes further.
EARLIEST, LATEST = 1700, 2500


def identifier(column: str, kind: str = "number") -> pl.Expr:
    """A whole number as int64, or text as it is."""
    return pl.col(column) if kind == "text" else pl.col(column).cast(pl.Int64, strict=False)


def time(column: str, rules: Rules) -> pl.Expr:
    """A time in microseconds, by the first of the rules' formats that fits; null outside the years that can be."""
    text = pl.col(column)
    parsed = [text.str.to_datetime(form, time_unit="us", strict=False) for form in rules.date_formats]
    found = pl.coalesce(parsed)
    return pl.when(found.dt.year().is_between(EARLIEST, LATEST)).then(found)


def offset(column: str, clock: Clock) -> pl.Expr:
    """An offset from a visit's zero, as a duration of at most 120 years."""
    micros = number(column).cast(pl.Float64) * _MICROSECONDS[clock.unit]
    limit = 120 * 365.25 * _MICROSECONDS["days"]
    return pl.when(micros.abs() < limit).then(micros.round().cast(pl.Int64)).cast(pl.Duration("us"))


def number(column: str) -> pl.Expr:
    """A finite number that float32 can hold."""
    value = pl.col(column).cast(pl.Float64, strict=False)
    return pl.when(value.is_finite() & (value.abs() < _FLOAT32_MAXIMUM)).then(value).cast(pl.Float32)


def age(rule: Age) -> pl.Expr:
    """An age in days; null where the cell is no number, none of `cells`, or negative."""
    plain = number(rule.column).cast(pl.Float64)
    known = {cell: float(value) for cell, value in rule.cells.items()}
    years = pl.col(rule.column).replace_strict(known, default=plain, return_dtype=pl.Float64) if known else plain
    return pl.when(years >= 0).then(years * _DAYS[rule.unit])


def date(rule: DateParts) -> pl.Expr:
    """The date that the parts name, at midnight; null where they name none."""
    year = number(rule.year).cast(pl.Int64)
    if rule.minus_years is not None:
        year = year - number(rule.minus_years).cast(pl.Int64)
    month = number(rule.month).cast(pl.Int64) if rule.month is not None else pl.lit(7)
    day = number(rule.day).cast(pl.Int64) if rule.day is not None else pl.lit(1)
    text = pl.format("{}-{}-{}", year, month.fill_null(7), day.fill_null(1))
    found = text.str.to_datetime("%Y-%m-%d", time_unit="us", strict=False)
    return pl.when(found.dt.year().is_between(EARLIEST, LATEST)).then(found)


def holds(conditions: Conditions) -> pl.Expr:
    """Whether a row has, in every column, one of the cells that are listed ("" for an empty one)."""
    return pl.all_horizontal(pl.lit(value=True), *(_is_one_of(*condition) for condition in conditions.items()))


def holds_any(conditions: Conditions) -> pl.Expr:
    """Whether a row has, in some column, one of the cells that are listed ("" for an empty one)."""
    return pl.any_horizontal(pl.lit(value=False), *(_is_one_of(*condition) for condition in conditions.items()))


def _is_one_of(column: str, cells: str | tuple[str, ...]) -> pl.Expr:
    listed = (cells,) if isinstance(cells, str) else cells
    filled = pl.col(column).is_in([cell for cell in listed if cell]).fill_null(value=False)
    return filled | pl.col(column).is_null() if "" in listed else filled


def unparsed(column: str, parsed: pl.Expr) -> pl.Expr:
    """Whether a cell holds text that `parsed` cannot read."""
    return pl.col(column).is_not_null() & parsed.is_null()
