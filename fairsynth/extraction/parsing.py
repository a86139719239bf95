"""What of a table's rows is parsed, and what must hold of it.

In:  a table's rule.   Out: `Casts` and expressions that parse; `Check`s, true where a cell is bad.
Never: data.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from fairsynth.extraction import cells
from fairsynth.extraction.casts import Casts, Kind, time_lengths
from fairsynth.extraction.event_rules import EventRule
from fairsynth.extraction.events import SUBJECT, VISIT, age_name, date_name, number_name, time_name
from fairsynth.extraction.rules import Rules, TableRule


@dataclass(frozen=True, kw_only=True)
class Check:
    """One claim about the cells of a column; `bad` is true where it does not hold."""

    column: str
    what: str
    expected: str
    bad: pl.Expr


def time_columns(rule: TableRule, rules: Rules) -> list[str]:
    """The columns of a table that are read as times (or offsets)."""
    columns = [column for event in rule.events for column in event.times]
    if rule.file == rules.visits.table:
        columns += [name for name in (rules.visits.start, rules.visits.end) if name is not None]
    return list(dict.fromkeys(columns))


def casts_of(rule: TableRule, rules: Rules) -> Casts:
    """The columns of a table that are whole numbers, numbers or times wherever they are read."""
    kinds: dict[str, Kind] = {}
    if rule.subject is not None and rules.identifiers.subject == "number":
        kinds[rule.subject] = "integer"
    if rule.visit is not None and rules.identifiers.visit == "number":
        kinds[rule.visit] = "integer"
    kinds |= {event.value: "real" for event in rule.events if event.value is not None}
    kinds |= dict.fromkeys(time_columns(rule, rules), "time" if rules.visits.clock is None else "real")
    as_text = {*rule.where, *(column for event in rule.events for column in event.as_text)}
    mixed = {column for column in kinds if column in as_text}
    lengths = time_lengths(rules.date_formats)
    return Casts(kinds={column: kind for column, kind in kinds.items() if column not in mixed}, time_lengths=lengths)


def parsed(rule: TableRule, rules: Rules, *, titles: dict[str, str], typed: frozenset[str]) -> dict[str, pl.Expr]:
    """Identifiers, times, numbers, ages and dates of a row, each parsed once; `typed` columns are times already."""
    kinds, clock = rules.identifiers, rules.visits.clock
    found: dict[str, pl.Expr] = {VISIT: _nothing(kinds.visit)}
    if rule.visit is not None:
        found[VISIT] = cells.identifier(rule.visit, kinds.visit, title=titles[rule.visit])
    if rule.subject is not None:
        found[SUBJECT] = cells.identifier(rule.subject, kinds.subject, title=titles[rule.subject])
    for column in time_columns(rule, rules):
        if clock is not None:
            found[time_name(column)] = cells.offset(column, clock)
        else:
            found[time_name(column)] = cells.known_time(column) if column in typed else cells.time(column, rules)
    for event in rule.events:
        if event.value is not None:
            found[number_name(event.value)] = cells.number(event.value)
        if event.age is not None:
            found[age_name(event)] = cells.age(event.age)
        if event.date is not None:
            found[date_name(event)] = cells.date(event.date)
    return found


def _nothing(kind: str) -> pl.Expr:
    return pl.lit(None, dtype=pl.String if kind == "text" else pl.Int64)


def cell_checks(rule: TableRule, rules: Rules) -> list[Check]:
    """What must hold for every row of a table, once its cells are parsed."""
    kinds, visits = rules.identifiers, rules.visits
    checks = []
    if rule.subject is not None:
        checks.append(_identifier(rule.subject, SUBJECT, kind=kinds.subject, required=True))
    if rule.visit is not None:
        required = rule.file == visits.table or rule.subject is None
        checks.append(_identifier(rule.visit, VISIT, kind=kinds.visit, required=required))
    for column in time_columns(rule, rules):
        checks.append(_time(column, rules))
        if rule.file == visits.table and column in (visits.start, visits.end):
            missing = pl.col(column).is_null()
            checks.append(Check(column=column, what="visits without a time", expected="a time", bad=missing))
    if rule.file == visits.table and visits.clock is not None:
        checks += [
            _number(column, pl.col(column).is_not_null() & cells.real(column).is_null())
            for column in visits.clock.order
        ]
    for event in rule.events:
        checks += _measures(event)
        checks += [_length(column, "code") for column in event.columns]
        checks += [_length(event.unit, "unit")] if event.unit is not None else []
    return list({(check.column, check.what): check for check in checks}.values())


def _identifier(column: str, name: str, *, kind: str, required: bool) -> Check:
    bad = pl.col(name).is_null() if required else pl.col(column).is_not_null() & pl.col(name).is_null()
    if kind == "text":
        what, expected = "identifiers missing", "an identifier"
    else:
        what, expected = "identifiers missing or not numbers", f"a whole number{'' if required else ' or nothing'}"
    return Check(column=column, what=what, expected=expected, bad=bad)


def _time(column: str, rules: Rules) -> Check:
    bad = pl.col(column).is_not_null() & pl.col(time_name(column)).is_null()
    if rules.visits.clock is not None:
        expected = f"a number of {rules.visits.clock.unit}"
        return Check(column=column, what="offsets that do not parse", expected=expected, bad=bad)
    years = f"in the years {cells.EARLIEST} to {cells.LATEST}"
    expected = f"a time like {' or '.join(rules.date_formats)}, {years}"
    return Check(column=column, what="dates that do not parse", expected=expected, bad=bad)


def _measures(event: EventRule) -> list[Check]:
    """Values, ages and dates in parts."""
    checks = []
    if event.value is not None:
        bad = pl.col(event.value).is_not_null() & pl.col(number_name(event.value)).is_null()
        checks.append(_number(event.value, bad))
    if event.age is not None:
        column = event.age.column
        bad = pl.col(column).is_not_null() & pl.col(age_name(event)).is_null()
        expected = f"a number of {event.age.unit}, from 0 to 150 years, or one of the `cells` of the rule"
        checks.append(Check(column=column, what="ages that do not parse", expected=expected, bad=bad))
    if event.date is not None:
        column = event.date.year
        bad = pl.col(column).is_not_null() & pl.col(date_name(event)).is_null()
        expected = f"whole numbers in {', '.join(event.date.columns)} that make a date"
        checks.append(Check(column=column, what="dates that do not parse", expected=expected, bad=bad))
    return checks


def _number(column: str, bad: pl.Expr) -> Check:
    return Check(column=column, what="numbers that do not parse", expected="a finite number", bad=bad)


def _length(column: str, word: str) -> Check:
    """A cell that becomes a code, part of one, or a unit must be a code or a name, not a text."""
    bad = (pl.col(column).str.len_chars() > cells.LONGEST_CODE).fill_null(value=False)
    expected = f"a {word} or a name of at most {cells.LONGEST_CODE} characters"
    return Check(column=column, what=f"cells too long for a {word}", expected=expected, bad=bad)
