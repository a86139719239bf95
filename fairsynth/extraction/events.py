"""Placed rows -> events, and what became of every row.

In:  one batch of a table's rows, parsed and placed among patients and visits (reading.py).   Out: events with their
codes and units as categories, one reason for each row that gives none.
Never: a file, a judgement (reading.py and checks.py make it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from fairsynth.extraction import cells
from fairsynth.extraction.event_rules import EventRule
from fairsynth.extraction.rules import TableRule

Sink = Callable[[pl.DataFrame], None]  # takes a batch of events

# Names of parsed cells; no column of a source contains a lower-case letter.
SUBJECT, VISIT = "subject_key", "visit_key"


def time_name(column: str) -> str:
    """Where the parsed time of `column` is."""
    return f"time of {column}"


def number_name(column: str) -> str:
    """Where the parsed number of `column` is."""
    return f"number of {column}"


def age_name(event: EventRule) -> str:
    """Where the parsed age of an event's row is."""
    return f"age for {event.code}"


def date_name(event: EventRule) -> str:
    """Where the date that an event's row gives in parts is."""
    return f"date for {event.code}"


class Names:
    """The codes and units of a source, numbered as they are read."""

    def __init__(self) -> None:
        self.codes, self.units = pl.Categories.random(), pl.Categories.random()
        # Categories forget their names when no column of theirs is left: these two stay.
        self._kept = [pl.Series([], dtype=pl.Categorical(one)) for one in (self.codes, self.units)]


def made_name(index: int) -> str:
    """Where it stands whether a row gives the event of the maker at `index`."""
    return f"made {index}"


@dataclass(frozen=True, kw_only=True)
class Maker:
    """One event that a row may give: `rule` applied to the cell of `column` (None: a constant code)."""

    rule: EventRule
    column: str | None
    clock: bool

    @property
    def applies(self) -> pl.Expr:
        """Whether the row has the cells that the rule asks for. Null where they cannot be told: never."""
        return cells.holds(self.rule.where) & ~cells.holds_any(self.rule.unless)

    @property
    def code(self) -> pl.Expr:
        """The code; null where its cell is empty."""
        if self.column is None:
            return self.rule.template.filled()
        cell = pl.col(self.column)
        if self.rule.part is not None:
            parts = cell.str.split(self.rule.part.separator)
            cell = parts.list.get(self.rule.part.number - 1, null_on_oob=True).str.strip_chars()
            cell = pl.when(cell != "").then(cell)
        if "" in self.rule.cells:
            cell = cell.fill_null("")
        if self.rule.cells:
            cell = cell.replace(self.rule.cells)
        return self.rule.template.filled(cell)

    @property
    def time(self) -> pl.Expr:
        """The row's own time, else its visit's start or end; null for a static event."""
        rule = self.rule
        times = [self._moment(column) for column in rule.times]
        if rule.age is not None:
            days = pl.col(age_name(rule)) * 86_400_000_000
            times.append((pl.col("start") - days.round().cast(pl.Int64).cast(pl.Duration("us"))).dt.truncate("1d"))
        if rule.date is not None:
            times.append(pl.col(date_name(rule)))
        if rule.at is not None:
            times.append(pl.col(rule.at))
        return pl.coalesce(times) if times else pl.lit(None, dtype=pl.Datetime("us"))

    @property
    def made(self) -> pl.Expr:
        """Whether the row gives the event."""
        complete = self.applies & self.code.is_not_null()
        return complete if self.rule.static else complete & self.time.is_not_null()

    def _moment(self, column: str) -> pl.Expr:
        parsed = pl.col(time_name(column))
        return pl.col("zero") + parsed if self.clock else parsed


def makers(rule: TableRule, *, clock: bool) -> list[Maker]:
    """Every event that a row of a table may give."""
    return [
        Maker(rule=event, column=column, clock=clock) for event in rule.events for column in (event.columns or (None,))
    ]


def events_of(rows: pl.DataFrame, maker: Maker, *, names: Names) -> pl.DataFrame:
    """What `maker` makes of placed rows that give its event: bucket, subject_id, time, code, numeric_value, visit_id,
    unit."""
    event = maker.rule
    value = pl.col(number_name(event.value)) if event.value else pl.lit(None, dtype=pl.Float32)
    unit = pl.col(event.unit) if event.unit else pl.lit(None, dtype=pl.String)
    visit = pl.lit(None, dtype=pl.Int64) if event.static or event.age or event.date else pl.col("visit_id")
    return rows.select(
        "bucket",
        "subject_id",
        time=maker.time,
        code=maker.code.cast(pl.Categorical(names.codes)),
        numeric_value=value,
        visit_id=visit,
        unit=unit.cast(pl.Categorical(names.units)),
    )


def stays(visits: pl.DataFrame) -> pl.DataFrame:
    """The visits that events can be attached to: subject_id, stay, start, end, sorted by start."""
    known = visits.drop_nulls(["start", "end"]).rename({"visit_id": "stay"}).sort("start", "stay")
    return known.select("subject_id", "stay", "start", "end")


def attached(events: pl.DataFrame, visits: pl.DataFrame, *, by_day: bool) -> pl.DataFrame:
    """Events without a visit get the visit of their patient that their time falls in, the one that began last if
    several; the first and the last moment of a visit belong to it.

    `visits` are those of `stays`. By day, times of day are left aside: an event belongs to a visit that began on its
    day or before and ended on its day or later.
    """
    outside = events.filter(pl.col("visit_id").is_null())
    if outside.is_empty():
        return events
    last = visits.with_columns(until=_end_of_day("end") if by_day else pl.col("end"))
    timed = outside.with_columns(moment=_end_of_day("time") if by_day else pl.col("time"))
    found = (
        timed.sort("moment", nulls_last=False)
        .join_asof(last, left_on="moment", right_on="start", by="subject_id", check_sortedness=False)
        .with_columns(visit_id=pl.when(pl.col("moment") <= pl.col("until")).then(pl.col("stay")))
    )
    found = _in_longer_visits(found.select(*events.columns, "moment"), last)
    return pl.concat([events.filter(pl.col("visit_id").is_not_null()), found.select(events.columns)])


def _in_longer_visits(events: pl.DataFrame, visits: pl.DataFrame) -> pl.DataFrame:
    """The same for events whose last visit before them had ended, where an earlier one goes on."""
    goes_on = pl.col("until") >= pl.col("start").shift(-1).over("subject_id")
    longer = visits.filter(goes_on).select("subject_id", "stay", "start", "until")
    if longer.is_empty():
        return events
    numbered = events.with_row_index("event")
    around = (
        numbered.filter(pl.col("visit_id").is_null())
        .join(longer, on="subject_id", how="inner")
        .filter(pl.col("moment").is_between("start", "until"))
        .sort("start", "stay")
        .unique("event", keep="last", maintain_order=True)
    )
    placed = numbered.join(around.select("event", "stay"), on="event", how="left", maintain_order="left")
    return placed.with_columns(visit_id=pl.coalesce("visit_id", "stay")).select(events.columns)


def _end_of_day(column: str) -> pl.Expr:
    return pl.col(column).dt.truncate("1d").dt.offset_by("1d").dt.offset_by("-1us")
