"""An event -> the cells that its rule would read it from: the rules of `rules.yaml`, backwards.

In:  an `EventRule`, and events beside the visit and patient that they belong to: columns time, code, numeric_value,
unit, start, end (of the visit), first_start, last_start (of the patient's first and last visit).   Out: expressions.
Never: data; which row an event goes to (rows.py).

What a format says less exactly than an event is rounded so that the age in whole years stays right: an age down to
whole units or to the band that holds it, a birth without month to the year that gives the age at the last visit.
"""

from __future__ import annotations

from itertools import pairwise

import polars as pl

from fairsynth.extraction.event_rules import Age, DateParts, EventRule
from fairsynth.extraction.rules import Rules

# A spreadsheet runs a cell that begins with one of these; an apostrophe before it keeps the cell text. A sign before
# letters alone ("-polys", a laboratory test) or before other signs ("+/-", its unit) computes nothing.
FORMULA = r"^[=+\-@\t\r]"
_NUMBER = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"
_WORDS = r"^-[A-Za-z][A-Za-z ]*$|^[+-][/+ -]*$"
_CONTROL = r"[\x00-\x1f\x7f]"

_DAYS_PER_YEAR = 365.25
_DAYS = {"days": 1.0, "months": _DAYS_PER_YEAR / 12, "years": _DAYS_PER_YEAR}
_MICROSECONDS = {"minutes": 60_000_000, "hours": 3_600_000_000, "days": 86_400_000_000}


def guard(column: pl.Expr) -> pl.Expr:
    """`column` without control characters, and with an apostrophe before text that a spreadsheet would run."""
    text = column.str.replace_all(_CONTROL, " ")
    runs = text.str.contains(FORMULA) & ~text.str.contains(_NUMBER) & ~text.str.contains(_WORDS)
    return pl.when(runs).then(pl.lit("'") + text).otherwise(text)


def own_cells(rule: EventRule, *, slot: int, rules: Rules) -> dict[str, pl.Expr]:
    """The cells that an event of `rule` writes, by column; null for an empty one.

    `slot` says which of the columns of one meaning (`also`) it goes to.
    """
    cells: dict[str, pl.Expr] = {}
    if rule.columns:
        cells[rule.columns[slot]] = _template(rule)
    if rule.time is not None:
        cells[rule.time] = moment(pl.col("time"), rules)
    if rule.value is not None:
        cells[rule.value] = pl.col("numeric_value").cast(pl.String)
    if rule.unit is not None:
        cells[rule.unit] = _filled(guard(pl.col("unit")))
    if rule.age is not None:
        cells[rule.age.column] = _age(rule.age)
    if rule.date is not None:
        cells |= _date(rule.date)
    return cells


def moment(time: pl.Expr, rules: Rules) -> pl.Expr:
    """A time as the source writes it: a date, or with a clock the whole units since the visit's zero, rounded down."""
    clock = rules.visits.clock
    if clock is None:
        return time.dt.strftime(rules.date_formats[0])
    since = (time - pl.col("start")).dt.total_microseconds()
    return (since // _MICROSECONDS[clock.unit]).cast(pl.String)


def _template(rule: EventRule) -> pl.Expr:
    text = pl.col("code").str.slice(len(rule.template.literal))
    if rule.cells:
        text = text.replace({said: written for written, said in rule.cells.items()})
    if rule.part is not None:
        text = pl.lit(rule.part.separator * (rule.part.number - 1)) + text
    return _filled(guard(text))


def _filled(text: pl.Expr) -> pl.Expr:
    """`text`, null where it is empty."""
    return pl.when(text != "").then(text)


def _days(later: pl.Expr, earlier: pl.Expr) -> pl.Expr:
    return (later - earlier).dt.total_seconds() / 86_400


def _age(age: Age) -> pl.Expr:
    """The age at the row's visit, in whole units.

    Several translated cells are bands: the one whose number is nearest is written. A single one is what the oldest have
    in common ("> 89"): it is written from one unit below its number on.
    """
    amount = (_days(pl.col("start"), pl.col("time")) / _DAYS[age.unit]).clip(lower_bound=0)
    whole = amount.floor().cast(pl.Int64)
    bands = sorted(age.cells.items(), key=lambda band: band[1])
    if len(bands) > 1:
        index = pl.sum_horizontal(
            (amount >= (low + high) / 2).cast(pl.Int64) for (_, low), (_, high) in pairwise(bands)
        )
        names = {number: cell for number, (cell, _) in enumerate(bands)}
        return pl.when(amount.is_not_null()).then(index.replace_strict(names, return_dtype=pl.String))
    text = whole.cast(pl.String)
    for cell, number in bands:
        text = pl.when(whole >= number - 1).then(pl.lit(cell)).otherwise(text)
    return text


def _date(date: DateParts) -> dict[str, pl.Expr]:
    """Year, month and day; the year counted back from that of the first visit where an age stands beside it."""
    birth = pl.col("time")
    year = birth.dt.year().cast(pl.Int64)
    if date.month is None:
        year = _year_of_age(birth)
    cells = {date.year: year.cast(pl.String)}
    if date.month is not None:
        cells[date.month] = birth.dt.month().cast(pl.String)
    if date.day is not None:
        cells[date.day] = birth.dt.day().cast(pl.String)
    if date.minus_years is not None:
        known = pl.max_horizontal(pl.col("first_start").dt.year().cast(pl.Int64), year)
        cells[date.year] = known.cast(pl.String)
        cells[date.minus_years] = (known - year).cast(pl.String)
    return cells


def _year_of_age(birth: pl.Expr) -> pl.Expr:
    """The year whose first of July, which is how a year is read, gives the age in years at the last visit."""
    year, last = birth.dt.year().cast(pl.Int64), pl.col("last_start")
    age = (_days(last, birth) / _DAYS_PER_YEAR).floor()

    def fits(candidate: pl.Expr) -> pl.Expr:
        return (_days(last, pl.datetime(candidate, 7, 1)) / _DAYS_PER_YEAR).floor() == age

    found = pl.when(fits(year)).then(year).when(fits(year - 1)).then(year - 1).when(fits(year + 1)).then(year + 1)
    return found.otherwise(year)
