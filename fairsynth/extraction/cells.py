"""Text cells -> identifiers, times and numbers, as Polars expressions.

In:  a column name.   Out: an expression that gives null where the text does not parse; reading.py counts those cells.
Never: data.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from fairsynth.extraction.event_rules import Age, Conditions, DateParts
from fairsynth.extraction.rules import Clock, Rules

_FLOAT32_MAXIMUM = 3.4e38
_LONGEST_DAYS = 150 * 365.25  # an age, or an offset from a visit's zero
LONGEST_CODE = 500  # characters of a cell that becomes part of a code
_MICROSECONDS = {"minutes": 60_000_000, "hours": 3_600_000_000, "days": 86_400_000_000}
_DAYS = {"days": 1.0, "months": 365.25 / 12, "years": 365.25}

# Dates outside these years are mistakes: MIMIC moves births to the 1800s and visits to the 2200s, nothing goes further.
EARLIEST, LATEST = 1700, 2500


def identifier(column: str, kind: str, *, title: str) -> pl.Expr:
    """A whole number as int64, or text as it is; null for the column's own title, where files were joined."""
    cell = pl.col(column)
    return pl.when(cell != title.strip()).then(cell) if kind == "text" else cell.cast(pl.Int64, strict=False)


def time(column: str, rules: Rules) -> pl.Expr:
    """A time in microseconds, by the first of the rules' formats that fits; null outside the years that can be."""
    text = pl.col(column)
    formats = dict.fromkeys(
        variant for form in rules.date_formats for variant in (form, form.replace("%d %H", "%dT%H"))
    )
    parsed = [text.str.to_datetime(form, time_unit="us", strict=False) for form in formats]
    return _possible(pl.coalesce(one.dt.replace_time_zone(None) for one in parsed))  # with `%z`: in UTC


def known_time(column: str) -> pl.Expr:
    """A time that has been parsed; null outside the years that can be."""
    return _possible(pl.col(column))


def _possible(moment: pl.Expr) -> pl.Expr:
    return pl.when(moment.is_between(datetime(EARLIEST, 1, 1), datetime(LATEST + 1, 1, 1), closed="left")).then(moment)


def offset(column: str, clock: Clock) -> pl.Expr:
    """An offset from a visit's zero, as a duration of at most 150 years."""
    micros = real(column) * _MICROSECONDS[clock.unit]
    limit = _LONGEST_DAYS * _MICROSECONDS["days"]
    return pl.when(micros.abs() <= limit).then(micros.round().cast(pl.Int64, strict=False)).cast(pl.Duration("us"))


def number(column: str) -> pl.Expr:
    """A finite number that float32 can hold."""
    value = real(column)
    return pl.when(value.abs() < _FLOAT32_MAXIMUM).then(value).cast(pl.Float32)


def real(column: str) -> pl.Expr:
    """A finite number, as exact as float64."""
    value = pl.col(column).cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def age(rule: Age) -> pl.Expr:
    """An age in days, at most 150 years; null where the cell is no number and none of `cells`, or negative."""
    plain = real(rule.column)
    known = {cell: float(value) for cell, value in rule.cells.items()}
    years = pl.col(rule.column).replace_strict(known, default=plain, return_dtype=pl.Float64) if known else plain
    days = years * _DAYS[rule.unit]
    return pl.when(days.is_between(0, _LONGEST_DAYS)).then(days)


def date(rule: DateParts) -> pl.Expr:
    """The date that the parts name, at midnight; null where they name none. A month or day without a cell is given."""
    year = _whole(rule.year)
    if rule.minus_years is not None:
        year = year - _whole(rule.minus_years)
    text = pl.format("{}-{}-{}", year, _part(rule.month, default=7), _part(rule.day, default=1))
    found = text.str.to_datetime("%Y-%m-%d", time_unit="us", strict=False)
    return _possible(found)


def _whole(column: str) -> pl.Expr:
    """A whole number of at most four digits, written as one (1950) or as a float (1950.0)."""
    value = real(column)
    return pl.when((value == value.round()) & (value.abs() < 10_000)).then(value).cast(pl.Int64, strict=False)


def _part(column: str | None, *, default: int) -> pl.Expr:
    given = pl.lit(default, dtype=pl.Int64)
    return given if column is None else pl.when(pl.col(column).is_null()).then(given).otherwise(_whole(column))


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
