"""What the patients and the visits table tell: birth, death, sex, the sensitive attribute, admission and discharge.

In:  the columns of a table, the keys of the source.   Out: `Guess`.
Never: a cell that is not in a list of published words, unless enough patients carry it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl

from fairsynth.onboarding import words
from fairsynth.onboarding.columns import CLEARLY_MOST, Column
from fairsynth.onboarding.drafts import Event, Guess, Question
from fairsynth.onboarding.keys import named

ENOUGH_PATIENTS = 11  # below it a cell is not written

Columns = Mapping[str, Column]


def person(columns: Columns, *, in_visits: bool) -> Guess:
    """Birth, death and sex."""
    return _birth(columns, in_visits=in_visits) + _death(columns, in_visits=in_visits) + _sex(columns)


def attribute(columns: Columns, *, in_visits: bool) -> tuple[Guess, str | None]:
    """The sensitive attribute's event, and its column."""
    found = [column for column in named(columns, words.ETHNICITY) if column.categories]
    if not found:
        return Guess(), None
    rule: dict[str, object] = {"code": f"ETHNICITY//{{{found[0].name}}}"}
    return Guess(events=(Event(rule=rule | ({"at": "start"} if in_visits else {})),)), found[0].name


def visit(columns: Columns, *, start: str, end: str, subject: str | None) -> Guess:
    """Admission, death in the hospital, discharge."""
    taken: set[str | None] = {start, end}
    kind = _category(columns, words.TYPE, taken)
    leaving = _category(columns, words.DISPOSITION, taken | {kind})
    admission = _coded("ADMISSION", kind, start)
    discharge = _coded("DISCHARGE", leaving, end)
    death = _hospital_death(columns, leaving=leaving, subject=subject)
    return Guess(events=(admission,)) + death + Guess(events=(discharge,))


def _coded(kind: str, column: str | None, time: str) -> Event:
    if column is None:
        return Event(
            rule={"code": f"{kind}//ANY", "time": time}, said="no column with few, always filled words was found"
        )
    return Event(rule={"code": f"{kind}//{{{column}}}", "time": time})


def _category(columns: Columns, pattern: re.Pattern[str], taken: set[str | None]) -> str | None:
    """A column of few words that is always filled."""
    fitting = (
        column.name
        for column in named(columns, pattern)
        if column.name not in taken and column.categories and column.filled == 1 and column.numbers < 1
        if not words.ETHNICITY.search(column.plain) and not words.SEX.search(column.plain)
    )
    return next(fitting, None)


def _birth(columns: Columns, *, in_visits: bool) -> Guess:
    born = [column for column in named(columns, words.BIRTH) if column.is_time]
    if born:
        return Guess(events=(Event(rule={"code": "MEDS_BIRTH", "time": born[0].name}),))
    years = [column for column in named(columns, words.BIRTH_YEAR) if column.whole_numbers]
    if years:
        said = "the year of birth: the date is taken as 1 July"
        return Guess(events=(Event(rule={"code": "MEDS_BIRTH", "date": {"year": years[0].name}}, said=said),))
    ages = [column for column in named(columns, words.AGE) if column.numbers > CLEARLY_MOST]
    if ages and in_visits:
        age: dict[str, object] = {"column": ages[0].name, "unit": _unit(ages[0])}
        said = f"the unit is guessed; {'some ages are no numbers: see `cells`' if ages[0].numbers < 1 else 'check it'}"
        return Guess(events=(Event(rule={"code": "MEDS_BIRTH", "age": age}, said=said),))
    worded = named(columns, words.AGE) if in_visits else []
    if worded:
        text = f"what number of years stands for each cell of {worded[0].name}?"
        age = {"column": worded[0].name, "cells": {"...": 0}}
        return Guess(
            events=(Event(rule={"code": "MEDS_BIRTH", "age": age}, open=True),), questions=(Question(text=text),)
        )
    return Guess()


def _unit(column: Column) -> str:
    return next((f"{unit}s" for unit in ("day", "month") if unit in column.plain), "years")


def _death(columns: Columns, *, in_visits: bool) -> Guess:
    dates = [column for column in named(columns, words.DEATH) if column.is_time]
    if not dates or in_visits:
        return Guess()
    return Guess(events=(Event(rule={"code": "MEDS_DEATH", "time": dates[0].name, "optional": True}),))


def _sex(columns: Columns) -> Guess:
    found = [column for column in named(columns, words.SEX) if column.categories]
    if not found:
        return Guess()
    column = found[0]
    female, male = column.known(words.FEMALE), column.known(words.MALE)
    rule: dict[str, object] = {"code": f"GENDER//{{{column.name}}}"}
    if len(female) != 1 or len(male) != 1:
        text = f"which cells of {column.name} mean female, which male? Codes must be GENDER//F and GENDER//M"
        example = Event(rule=rule | {"cells": {"...": "F", "....": "M"}}, open=True)
        return Guess(events=(example,), questions=(Question(text=text),))
    cells = {raw: sex for raw, sex in ((female[0], "F"), (male[0], "M")) if raw != sex}
    return Guess(events=(Event(rule=rule | ({"cells": cells} if cells else {})),))


def _hospital_death(columns: Columns, *, leaving: str | None, subject: str | None) -> Guess:
    """A flag, else a time, else a way of leaving that says so."""
    deaths = named(columns, words.DEATH)
    times = [column.name for column in deaths if column.is_time]
    rule: dict[str, object] = {"code": "DEATH//HOSPITAL", **({"time": times[0]} if times else {}), "at": "end"}
    flags = [column for column in deaths if not column.is_time and _is_flag(column)]
    if flags:
        rule["where"] = {flags[0].name: _one_or_all(flags[0].known(words.YES))}
        return Guess(events=(Event(rule=rule | {"optional": True}),))
    said = dead_cells(columns[leaving], subject=columns.get(subject or "")) if leaving is not None else []
    if leaving is not None and said:
        return Guess(events=(Event(rule=rule | {"where": {leaving: _one_or_all(said)}, "optional": True}),))
    if times:
        said_so = "a time of death in the visits table is taken as a death in the hospital: check it"
        only_time = {"code": "DEATH//HOSPITAL", "time": times[0], "optional": True}
        return Guess(events=(Event(rule=only_time, said=said_so),))
    text = "how does the visits table say that a patient died in the hospital? The outcome needs it"
    example = Event(rule={**rule, "where": {leaving or "...": "..."}, "optional": True}, open=True)
    return Guess(events=(example,), questions=(Question(text=text),))


def _is_flag(column: Column) -> bool:
    yes, no = column.known(words.YES), column.known(words.NO)
    return bool(yes) and len(yes) + len(no) == len(column.distinct)


def _one_or_all(cells: list[str]) -> object:
    return cells[0] if len(cells) == 1 else cells


def dead_cells(column: Column, *, subject: Column | None) -> list[str]:
    """The cells that say somebody died: published words, and others that enough patients carry."""
    spoken = [cell for cell in column.distinct if words.DEAD.search(cell.upper())]
    if subject is None or len(subject.cells) != subject.rows or len(column.cells) != column.rows:
        return [cell for cell in spoken if cell.upper() in words.PLAIN_DEAD]
    pairs = pl.DataFrame({"subject": subject.cells, "cell": column.cells}).unique()
    common = set(pairs.group_by("cell").len().filter(pl.col("len") >= ENOUGH_PATIENTS)["cell"])
    return [cell for cell in spoken if cell in common or cell.upper() in words.PLAIN_DEAD]
