"""What the other tables hold: diagnoses, procedures, drugs, laboratory values, care units.

In:  the columns of a table, its key columns.   Out: `Guess`, and what kind of table it is.
Never: a cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fairsynth.onboarding import words
from fairsynth.onboarding.columns import (
    CLEARLY_MOST,
    CPT,
    ICD9,
    ICD9_PROCEDURE,
    ICD10,
    ICD10_PROCEDURE,
    Column,
)
from fairsynth.onboarding.drafts import Event, Guess, Question
from fairsynth.onboarding.keys import named

Columns = Mapping[str, Column]

EITHER_ICD = re.compile(f"(?:{ICD9.pattern})|(?:{ICD10.pattern})")
AT_CODING: dict[str, object] = {"at": "end"}  # codes stand at the end of the visit, when they are coded


@dataclass(frozen=True, kw_only=True)
class Place:
    """A table, without its key columns, and whether its rows name a visit."""

    table: str
    columns: Columns
    has_visit: bool
    is_visits: bool = False

    @property
    def plain(self) -> str:
        """The table's name in lower case."""
        return words.plain(self.table)


def diagnoses(place: Place) -> Guess:
    """Diagnoses: columns of ICD codes, by their name or the table's."""
    if words.PROCEDURE.search(place.plain) and not words.DIAGNOSIS.search(place.plain.replace("icd", "")):
        return Guess()
    found = list(_of_pattern(place, words.DIAGNOSIS, {"ICD10": ICD10, "ICD9CM": ICD9}))
    version = _version(place.columns)
    mixed = [column for _, column in _of_pattern(place, words.DIAGNOSIS, {"either": EITHER_ICD})]
    if mixed and version is not None:
        events = tuple(
            Event(rule=_code(f"DIAG//{system}", mixed) | AT_CODING | {"where": {version.name: cell}})
            for cell, system in (("9", "ICD9CM"), ("10", "ICD10CM"))
        )
        return Guess(events=events)
    if mixed and not found:
        text = f"{mixed[0].name} holds ICD-9 and ICD-10 codes: which column tells them apart (`where`)?"
        event = Event(rule=_code("DIAG//ICD10", mixed) | AT_CODING, open=True)
        return Guess(events=(event,), questions=(Question(text=text),))
    guess = Guess()
    for system in dict.fromkeys(system for system, _ in found):
        columns = [column for name, column in found if name == system]
        said = "ICD10CM (United States), ICD10CN (China) or ICD10 (any other)?" if system == "ICD10" else ""
        event = Event(rule=_code(f"DIAG//{system}", columns) | AT_CODING, said=said)
        guess += Guess(events=(event,))
    return guess if place.has_visit or not guess.events else _needs_visit(place, guess)


def procedures(place: Place) -> Guess:
    """Procedures: columns of procedure codes in a table or column that is named like one."""
    patterns = {"ICD10PCS": ICD10_PROCEDURE, "CPT": CPT, "ICD9PROC": ICD9_PROCEDURE}
    found = list(_of_pattern(place, words.PROCEDURE, patterns))[:1]
    events = tuple(Event(rule=_code(f"PROC//{system}", [column]) | AT_CODING) for system, column in found)
    return Guess(events=events) if place.has_visit or not events else _needs_visit(place, Guess(events=events))


def drugs(place: Place) -> Guess:
    """Drugs: a column of names and the time of the start."""
    texts = [column for column in place.columns.values() if column.numbers < 0.5 and not column.is_time]
    texts = [column for column in texts if not words.VALUE_UNIT.search(column.plain)]
    if not words.DRUG.search(place.plain):
        texts = [column for column in texts if words.DRUG.search(column.plain)]
    names = sorted(texts, key=_drug_rank)
    if not names or (not words.DRUG.search(names[0].plain) and not words.LABEL.search(names[0].plain)):
        return Guess()
    rule: dict[str, object] = {"code": f"DRUG//{{{names[0].name}}}"}
    time = _time(place.columns, words.START) or _time(place.columns, words.TIME)
    if time is None:
        text = f"when does a drug of {place.table} begin? Without a time it could tell what had not happened yet"
        return Guess(events=(Event(rule=rule | {"time": "..."}, open=True),), questions=(Question(text=text),))
    return Guess(events=(Event(rule=rule | {"time": time}),))


def laboratory(place: Place) -> Guess:
    """Measured values: an item, a number, a unit, a time."""
    columns = place.columns
    measured = [c for c in named(columns, words.VALUE) if c.numbers > CLEARLY_MOST and not c.is_time]
    values = sorted(measured, key=lambda c: (-c.numbers, "num" not in c.plain))
    numbers = {column.name for column in values}
    items = [c for c in named(columns, words.ITEM) if c.name not in numbers and not c.is_time]
    items = [c for c in items if not words.VALUE_UNIT.search(c.plain)]
    clear = words.LABORATORY.search(place.plain) or (items and words.CLEAR_ITEM.search(items[0].plain))
    if not values or not items or not clear:
        return Guess()
    units = [c.name for c in named(columns, words.VALUE_UNIT) if c.name != items[0].name and c.numbers < 0.5]
    time = _time(columns, words.RESULT_TIME) or _time(columns, words.TIME)
    rule: dict[str, object] = {"code": f"LAB//{{{items[0].name}}}"}
    if time is None:
        text = f"when was a value of {place.table} measured?"
        return Guess(events=(Event(rule=rule | {"time": "..."}, open=True),), questions=(Question(text=text),))
    rule |= {"time": time, "value": values[0].name} | ({"unit": units[0]} if units else {})
    said = "" if values[0].numbers == 1 else f"some cells of {values[0].name} are no numbers"
    text = f"{said}: leave these rows out with `maximum_unreadable_share` in site.yaml, or name another column"
    return Guess(events=(Event(rule=rule, said=said),), questions=(Question(text=text),) if said else ())


def units(place: Place) -> Guess:
    """Care units: a column of few words that is named like one."""
    found = [c for c in named(place.columns, words.WARD) if c.categories and c.numbers < 0.5]
    time = _time(place.columns, words.START) or _time(place.columns, words.TIME)
    if not found or (time is None and not place.is_visits) or named(place.columns, words.VALUE):
        return Guess()
    when: dict[str, object] = {"at": "start"} if place.is_visits else {"time": time}
    return Guess(events=(Event(rule={"code": f"UNIT//{{{found[0].name}}}"} | when),))


def _of_pattern(
    place: Place, names: re.Pattern[str], patterns: Mapping[str, re.Pattern[str]]
) -> Iterator[tuple[str, Column]]:
    """(system, column) of every column of codes; the name of the column, or of a table of such codes, must say so."""
    by_table = bool(names.search(place.plain)) and not place.is_visits
    for column in place.columns.values():
        by_name = bool(names.search(column.plain)) and not words.VERSION.search(column.plain)
        counts = words.ROW_NUMBER.search(column.plain) or words.COUNT.search(column.plain)
        other = counts or column.is_time or column.filled < 0.05
        if other or not (by_name or (by_table and words.CODE.search(column.plain))):
            continue
        fits = {system: column.matches(pattern) for system, pattern in patterns.items()}
        best = max(fits, key=lambda system: fits[system])
        if fits[best] > CLEARLY_MOST:
            yield best, column


def _code(literal: str, columns: list[Column]) -> dict[str, object]:
    first, *others = (column.name for column in columns)
    return {"code": f"{literal}//{{{first}}}"} | ({"also": others} if others else {})


def _needs_visit(place: Place, guess: Guess) -> Guess:
    """Codes of a table without visits need a time of their own."""
    time = _time(place.columns, words.TIME)
    if time is not None:
        timed = tuple(Event(rule={k: v for k, v in e.rule.items() if k != "at"} | {"time": time}) for e in guess.events)
        return Guess(events=timed)
    text = f"to which visits do the codes of {place.table} belong? They have neither a visit nor a time"
    return Guess(events=tuple(Event(rule=e.rule, open=True) for e in guess.events), questions=(Question(text=text),))


def _version(columns: Columns) -> Column | None:
    """The column that tells ICD-9 from ICD-10 by number."""
    found = (c for c in named(columns, words.VERSION) if 0 < len(c.distinct) <= 2 and set(c.distinct) <= {"9", "10"})
    return next(found, None)


def _time(columns: Columns, pattern: re.Pattern[str]) -> str | None:
    """The fullest time that is named like that."""
    times = [column for column in named(columns, pattern) if column.is_time]
    return max(times, key=lambda column: column.filled).name if times else None


def _drug_rank(column: Column) -> tuple[bool, bool, bool, bool, int]:
    """Names before classes and codes; well filled, generic, with the most different cells."""
    plain = column.plain
    kind = bool(re.search(r"type|class|form|route|dose|unit|freq|code|strength", plain))
    return kind, not words.DRUG.search(plain), column.filled < 0.9, "generic" not in plain, -len(column.distinct)
