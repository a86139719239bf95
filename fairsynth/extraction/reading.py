"""One pass over one table: every cell that is read is checked, every row is accounted for, events come out in batches.

In:  a `Table`, its rule, the `Frame` of the source (None: only cells are checked).   Out: `Reading`.
Never: a cell in a message; more than a batch in memory; a row without a fate.

A row has one fate, the first of these that holds: left out by rule (`where`), unreadable (a cell that does not parse),
of another site, of an unknown patient, of a visit that is left out by rule, of an unknown visit, without an event; else
it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from fairsynth.errors import ExtractionError, Problem
from fairsynth.extraction import cells
from fairsynth.extraction.events import (
    SUBJECT,
    VISIT,
    Maker,
    Names,
    Sink,
    attached,
    events_of,
    made_name,
    makers,
    stays,
)
from fairsynth.extraction.fates import BY_RULE, ELSEWHERE, FATES, NO_EVENT, NO_PATIENT, NO_VISIT, UNREADABLE
from fairsynth.extraction.frame import Frame
from fairsynth.extraction.parsing import casts_of, cell_checks, parsed
from fairsynth.extraction.rules import Rules, TableRule
from fairsynth.extraction.tables import ROW, Table
from fairsynth.extraction.textfile import SHOWN_LINES


@dataclass(kw_only=True)
class Reading:
    """What one pass found. Counts of rows, unless they say otherwise."""

    rows: int = 0
    fates: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FATES, 0))
    bad: dict[int, int] = field(default_factory=dict)  # check -> cells
    bad_rows: dict[int, list[int]] = field(default_factory=dict)  # check -> the first rows
    first_year: int | None = None
    last_year: int | None = None
    with_visit: int = 0
    events: int = 0
    events_without_visit: int = 0
    events_attached: int = 0
    without_code: int = 0  # row and event rule
    without_time: int = 0

    @property
    def kept(self) -> int:
        """Rows that gave an event."""
        return self.rows - sum(self.fates.values())


class Reader:
    """Reads one table."""

    def __init__(self, table: Table, rule: TableRule, rules: Rules, *, frame: Frame | None) -> None:
        self.table, self.rule, self.rules, self.frame = table, rule, rules, frame
        self.checks = cell_checks(rule, rules)
        self.found = Reading()
        self._makers = makers(rule, clock=rules.artificial)
        self._names = Names()
        self._parsers: dict[frozenset[str], dict[str, pl.Expr]] = {}  # by the columns that come as times
        self._stays = stays(frame.visits) if frame is not None and rule.attach_by_time else None
        self._in_visit = any(event.in_visit for event in rule.events)

    def read(self, sink: Sink | None, *, names: Names) -> Reading:
        """Read the whole table; events go to `sink`, their codes and units numbered by `names`.

        Raises ExtractionError when the file is damaged.
        """
        self._names = names
        for batch in self.table.batches(casts_of(self.rule, self.rules)):
            self._batch(batch, sink)
        return self.found

    def problems(self, *, tolerated_share: float) -> list[Problem]:
        """The cells that do not parse, unless no more than the tolerated share of the rows has one."""
        found, path = self.found, self.table.path
        if found.rows == 0 and not self.rule.may_be_empty:
            return [empty_table(path)]
        if self._tolerable(tolerated_share):
            return []
        return [self._problem(index) for index in sorted(found.bad)]

    def _tolerable(self, share: float) -> bool:
        return self.found.fates[UNREADABLE] <= share * self.found.rows

    def _problem(self, index: int) -> Problem:
        check, table = self.checks[index], self.table
        lines = table.places(self.found.bad_rows[index])
        where = f"{table.path}  {table.columns[check.column]}  {lines}  ({self.found.bad[index]:,} in all)"
        do = "correct them; or let such rows be left out and counted: `maximum_unreadable_share` in site.yaml"
        return Problem(what=check.what, where=where, expected=check.expected, do=do)

    def _batch(self, batch: pl.DataFrame, sink: Sink | None) -> None:
        found = self.found
        found.rows += batch.height
        rows = batch.filter(cells.holds(self.rule.where)) if self.rule.where else batch
        found.fates[BY_RULE] += batch.height - rows.height
        rows = rows.with_columns(**self._parsed(rows.schema))
        self._years(rows)
        rows = self._readable(rows)
        if self.frame is None:
            return
        rows = self._placed(rows, self.frame)
        rows = rows.with_columns(maker.made.alias(made_name(index)) for index, maker in enumerate(self._makers))
        self._count_misses(rows)
        events = [self._made(rows.filter(made_name(index)), maker) for index, maker in enumerate(self._makers)]
        self._emit(pl.concat(events), sink)

    def _made(self, rows: pl.DataFrame, maker: Maker) -> pl.DataFrame:
        """The events that `maker` makes; where some are given in a visit only, with their row and whether they are."""
        events = events_of(rows, maker, names=self._names)
        return events.with_columns(rows[ROW], in_visit=maker.rule.in_visit) if self._in_visit else events

    def _parsed(self, schema: pl.Schema) -> dict[str, pl.Expr]:
        typed = frozenset(column for column in self.table.columns if schema[column] == pl.Datetime("us"))
        if typed not in self._parsers:
            self._parsers[typed] = parsed(self.rule, self.rules, titles=self.table.columns, typed=typed)
        return self._parsers[typed]

    def _years(self, rows: pl.DataFrame) -> None:
        """Widen the range of years; with a clock there is none."""
        own = set(self.table.columns)
        names = [name for name, dtype in rows.schema.items() if dtype == pl.Datetime("us") and name not in own]
        if not names or rows.is_empty():
            return
        first, last = rows.select(
            pl.min_horizontal(pl.col(names).min()).dt.year().alias("first"),
            pl.max_horizontal(pl.col(names).max()).dt.year().alias("last"),
        ).row(0)
        known = [year for year in (first, last, self.found.first_year, self.found.last_year) if year is not None]
        self.found.first_year, self.found.last_year = (min(known), max(known)) if known else (None, None)

    def _readable(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of which every cell parses; the others are counted, and the first remembered."""
        masks = rows.select(check.bad.alias(str(index)) for index, check in enumerate(self.checks))
        totals = masks.sum().row(0) if masks.height else ()
        if not any(totals):
            return rows
        for index, total in enumerate(totals):
            if total:
                self.found.bad[index] = self.found.bad.get(index, 0) + total
                seen = self.found.bad_rows.setdefault(index, [])
                seen += rows[ROW].filter(masks[str(index)]).head(SHOWN_LINES + 1 - len(seen)).to_list()
        unreadable = masks.select(pl.any_horizontal(pl.all())).to_series()
        self.found.fates[UNREADABLE] += int(unreadable.sum())
        return rows.filter(~unreadable)

    def _placed(self, rows: pl.DataFrame, frame: Frame) -> pl.DataFrame:
        """The rows of this site's patients in visits that are known, or in none, with subject_id, bucket, visit_id and
        the visit's start, end, zero. The others are counted."""
        people = frame.patients
        if self.rule.subject is None:
            rows = rows.join(frame.visits, on=VISIT, how="left")
            people = people.drop("subject_key")
            rows = rows.join(people, on="subject_id", how="left")
        else:
            rows = rows.join(people, on=SUBJECT, how="left").join(frame.visits, on=["subject_id", VISIT], how="left")
        lost_visit = pl.col("visit_id").is_null() & (pl.col(VISIT).is_not_null() | (self.rule.subject is None))
        nobody = pl.col("subject_id").is_null() if self.rule.subject is not None else pl.lit(value=False)
        away = pl.col("elsewhere").fill_null(value=False)
        by_rule = lost_visit & pl.col(VISIT).is_in(frame.other_visits[VISIT].implode())
        self.found.with_visit += int(rows[VISIT].is_not_null().sum()) if self.rule.visit is not None else 0
        fate = pl.when(away).then(pl.lit(ELSEWHERE)).when(nobody).then(pl.lit(NO_PATIENT))
        fate = fate.when(by_rule).then(pl.lit(BY_RULE))
        rows = rows.with_columns(fate=fate.when(lost_visit).then(pl.lit(NO_VISIT)))
        for name, number in rows["fate"].drop_nulls().value_counts().iter_rows():
            self.found.fates[name] += number
        return rows.filter(pl.col("fate").is_null())

    def _count_misses(self, rows: pl.DataFrame) -> None:
        """Rows that give no event, and events that were missed for want of a code or a time."""
        counts = {"none": (~pl.any_horizontal(made_name(index) for index, _ in enumerate(self._makers))).sum()}
        for index, maker in enumerate(self._makers):
            lacking = maker.applies & ~pl.col(made_name(index))
            if maker.column == maker.rule.template.column and maker.column is not None:  # not for each of `also`
                counts[f"code {index}"] = (lacking & maker.code.is_null()).sum()
            if not maker.rule.optional and not maker.rule.static:
                counts[f"time {index}"] = (lacking & maker.code.is_not_null()).sum()
        found = rows.select(**counts).row(0, named=True) if rows.height else dict.fromkeys(counts, 0)
        self.found.fates[NO_EVENT] += found["none"]
        self.found.without_code += sum(number for name, number in found.items() if name.startswith("code"))
        self.found.without_time += sum(number for name, number in found.items() if name.startswith("time"))

    def _emit(self, events: pl.DataFrame, sink: Sink | None) -> None:
        found = self.found
        outside = events["visit_id"].null_count()
        if self._stays is not None:
            events = attached(events, self._stays, by_day=self.rule.attach_by_time == "day")
            found.events_attached += outside - events["visit_id"].null_count()
        if self._in_visit:
            events, left = self._without_outsiders(events)
            outside -= left
        found.events += events.height
        found.events_without_visit += outside if self.rule.visit is not None or self._stays is not None else 0
        if sink is not None and events.height:
            sink(events)

    def _without_outsiders(self, events: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """The events but those outside any visit that their rule gives in a visit only; how many those are. Rows that
        give no other event are counted."""
        inside = events.filter(pl.col("visit_id").is_not_null() | ~pl.col("in_visit"))
        self.found.fates[NO_EVENT] += events[ROW].n_unique() - inside[ROW].n_unique()
        return inside.drop(ROW, "in_visit"), events.height - inside.height


def empty_table(path: Path) -> Problem:
    """A table that has a header alone and may not."""
    expected, do = "at least one row below the header", "export the table again, or say `may_be_empty` in the rules"
    return Problem(what="empty table", where=str(path), expected=expected, do=do)


def read_or_report(reader: Reader, sink: Sink | None, *, names: Names, tolerated: float) -> list[Problem]:
    """Read a table to its end; what is wrong with it."""
    try:
        reader.read(sink, names=names)
    except ExtractionError as error:
        return list(error.problems)
    return reader.problems(tolerated_share=tolerated)
