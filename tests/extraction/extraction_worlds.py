"""Small made-up sources for property tests, and an oracle that reads them row by row in plain Python.

Three tables: PEOPLE, STAYS, NOTES. Times are hours after the turn of the year 2000; a cell is text, "" is an empty one.
"""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
from hypothesis import strategies as st

from fairsynth.config import SiteConfig
from fairsynth.extraction.checks import Survey, survey
from fairsynth.extraction.events import Names
from fairsynth.extraction.rules import Rules

ZERO = datetime(2000, 1, 1)
Event = tuple[int, datetime | None, str, float | None, int | None]  # subject, time, code, value, visit

COLUMNS = {
    "PEOPLE": ("WHO", "SEX"),
    "STAYS": ("WHO", "STAY", "IN", "OUT"),
    "NOTES": ("WHO", "STAY", "KIND", "MORE", "WHEN", "VALUE", "FLAG", "UNREAD"),
}
SITE = SiteConfig.model_validate(
    {
        "schema": "fairsynth.site/1",
        "source": "made-up",
        "maximum_dropped_share": 1.0,
        "maximum_unreadable_share": 1.0,
    }
)


def rules(attach: bool | str = True) -> Rules:
    """The rules of a world; `attach` is the `attach_by_time` of its notes."""
    notes = [
        {"code": "A//{KIND}", "time": "WHEN", "value": "VALUE", "where": {"FLAG": "y"}},
        {
            "code": "B//{KIND}",
            "also": ["MORE"],
            "time": "WHEN",
            "at": "end",
            "unless": {"FLAG": "y"},
            "cells": {"k1": "one"},
        },
    ]
    plain = {"subject": "WHO", "visit": "STAY", "may_be_empty": True}
    tables = [
        {**plain, "file": "PEOPLE", "visit": None, "events": [{"code": "GENDER//{SEX}"}]},
        {**plain, "file": "STAYS", "events": [{"code": "ADMISSION//X", "at": "start"}]},
        {**plain, "file": "NOTES", "attach_by_time": attach, "where": {"FLAG": ["", "y", "n"]}, "events": notes},
    ]
    return Rules.model_validate(
        {
            "schema": "fairsynth.rules/1",
            "patients": "PEOPLE",
            "visits": {"table": "STAYS", "start": "IN", "end": "OUT"},
            "tables": [{**table, "columns": list(COLUMNS[table["file"]])} for table in tables],
        }
    )


@dataclass(frozen=True)
class World:
    """Rows of cells, by table."""

    tables: dict[str, list[dict[str, str]]]

    def changed(self, table: str, rows: list[dict[str, str]]) -> "World":
        """This world with other rows in one table."""
        return replace(self, tables=self.tables | {table: rows})

    def write(self, folder: Path, *, ending: str = ".csv", order: dict[str, list[str]] | None = None) -> Path:
        """Write the tables, their columns in this order."""
        folder.mkdir(parents=True)
        for name, rows in self.tables.items():
            columns = (order or {}).get(name, list(COLUMNS[name]))
            frame = pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS[name], pl.String), orient="row").select(columns)
            if ending == ".parquet":
                frame.with_columns(pl.when(pl.all() != "").then(pl.all())).write_parquet(folder / f"{name}.parquet")
            else:
                compression = "gzip" if ending.endswith(".gz") else "uncompressed"
                frame.write_csv(folder / f"{name}{ending}", compression=compression)
        return folder


def hour(text: str) -> datetime:
    """The time that a cell tells."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")


def at(number: int) -> str:
    """The cell of an hour."""
    return str(ZERO + timedelta(hours=number))


@st.composite
def worlds(draw) -> World:
    """Up to three people; stays, some of which overlap or end before they start; notes with every kind of fault."""
    people = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True))
    count = draw(st.integers(0, 6))
    stays = []
    for number in range(count):
        start = 4 * draw(st.integers(0, 10))
        end = start + 4 * draw(st.integers(-1, 8))
        stays.append(
            {"WHO": str(draw(st.sampled_from(people))), "STAY": str(10 + number), "IN": at(start), "OUT": at(end)}
        )
    note = st.fixed_dictionaries(
        {
            "WHO": st.sampled_from([*map(str, people * 3), "7", "x"]),
            "STAY": st.sampled_from(["", "", "", *(stay["STAY"] for stay in stays), "99"]),
            "KIND": st.sampled_from(["", "k1", "k2", "one"]),
            "MORE": st.sampled_from(["", "", "k1", "k3"]),
            "WHEN": st.one_of(*[st.integers(0, 16).map(lambda step: at(4 * step))] * 4, st.sampled_from(["", "soon"])),
            "VALUE": st.sampled_from(["", "1", "2.5", "-3e2", "high"]),
            "FLAG": st.sampled_from(["", "y", "n", "skip"]),
            "UNREAD": st.sampled_from(["", 'a "quoted" word', "two\nlines", "x,y"]),
        }
    )
    persons = [{"WHO": str(who), "SEX": draw(st.sampled_from(["F", "M", ""]))} for who in people]
    return World({"PEOPLE": persons, "STAYS": stays, "NOTES": draw(st.lists(note, max_size=12))})


def look(data: Path, rules: Rules, *, site: SiteConfig = SITE) -> tuple[Survey, list[Event]]:
    """What the engine finds, and its events in order."""
    found: list[pl.DataFrame] = []
    names = Names()
    seen = survey(data, site=site, rules=rules, sink=found.append, names=names)
    text = [frame.with_columns(pl.col("code").cast(pl.String)) for frame in found]
    rows = [
        row for frame in text for row in frame.select("subject_id", "time", "code", "numeric_value", "visit_id").rows()
    ]
    return seen, in_order(rows)


def in_order(events: list[Event]) -> list[Event]:
    """Events, sorted."""
    return sorted(events, key=repr)


# --- the oracle ------------------------------------------------------------------------------------------------------


def oracle(world: World, *, attach: bool | str) -> tuple[Counter[str], list[Event]]:
    """The fates of the notes (`kept` among them), and the events of all tables."""
    stays = [
        (int(stay["WHO"]), int(stay["STAY"]), hour(stay["IN"]), hour(stay["OUT"])) for stay in world.tables["STAYS"]
    ]
    people = {int(person["WHO"]) for person in world.tables["PEOPLE"]}
    events: list[Event] = [
        (int(person["WHO"]), None, f"GENDER//{person['SEX']}", None, None)
        for person in world.tables["PEOPLE"]
        if person["SEX"]
    ]
    events += [(who, start, "ADMISSION//X", None, stay) for who, stay, start, _ in stays]
    fates: Counter[str] = Counter()
    for note in world.tables["NOTES"]:
        fate, made = _note(note, people=people, stays=stays, attach=attach)
        fates[fate] += 1
        events += made
    return fates, in_order(events)


def _note(note: dict[str, str], *, people: set[int], stays: list, attach: bool | str) -> tuple[str, list[Event]]:
    if note["FLAG"] == "skip":
        return "left out by rule", []
    if note["WHO"] == "x" or note["WHEN"] == "soon" or note["VALUE"] == "high":
        return "unreadable", []
    who = int(note["WHO"])
    if who not in people:
        return "unknown patient", []
    own = next((stay for stay in stays if stay[0] == who and str(stay[1]) == note["STAY"]), None)
    if note["STAY"] and own is None:
        return "unknown visit", []
    when = hour(note["WHEN"]) if note["WHEN"] else None
    events = []
    for code, time, value in _facts(note, when, own):
        visit = own[1] if own is not None else place(who, time, stays, by_day=attach == "day") if attach else None
        events.append((who, time, code, value, visit))
    return ("kept", events) if events else ("gives no event", [])


def _facts(note: dict[str, str], when: datetime | None, own: tuple | None) -> list[tuple[str, datetime, float | None]]:
    if note["FLAG"] == "y":
        value = float(note["VALUE"]) if note["VALUE"] else None
        return [(f"A//{note['KIND']}", when, value)] if note["KIND"] and when is not None else []
    time = when if when is not None else own[3] if own is not None else None
    said = [{"k1": "one"}.get(cell, cell) for cell in (note["KIND"], note["MORE"]) if cell]
    return [(f"B//{cell}", time, None) for cell in said] if time is not None else []


def place(who: int, time: datetime, stays: list, *, by_day: bool) -> int | None:
    """The stay that a time falls in, the one that began last if several."""
    inside = [
        (start, stay)
        for owner, stay, start, end in stays
        if owner == who and (start.date() <= time.date() <= end.date() if by_day else start <= time <= end)
    ]
    return max(inside)[1] if inside else None
