"""The rule of one event: which cells of a row become its code, its time and its value, declared, never evaluated.

In:  YAML, inside `rules.yaml`.   Out: `EventRule`, frozen and checked.
Never: expressions, data, files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from fairsynth.config import Strict
from fairsynth.extraction.templates import Code, Column, Template

VisitTime = Literal["start", "end"]
AgeUnit = Literal["days", "months", "years"]

Conditions = dict[Column, str | tuple[str, ...]]  # column -> the cell, or one of the cells; "" stands for an empty one


class Age(Strict):
    """An age at the start of the row's visit, from which the date of an event (birth) follows."""

    column: Column
    unit: AgeUnit = "years"
    cells: dict[str, float] = {}  # cells that are no numbers, e.g. {"> 89": 91, "[70-80)": 75}


class DateParts(Strict):
    """A date in parts: year, month, day; a month that is not given is July, a day the first.

    `minus_years` is taken off: born in `ANCHOR_YEAR` minus `ANCHOR_AGE`.
    """

    year: Column
    month: Column | None = None
    day: Column | None = None
    minus_years: Column | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(name for name in (self.year, self.month, self.day, self.minus_years) if name is not None)


class Part(Strict):
    """One part of a cell that lists several, e.g. number 1 of "428.0, I50.9"."""

    separator: str = Field(min_length=1)
    number: PositiveInt = 1


class EventRule(Strict):
    """How a row becomes one event, or one for each of several columns of the same meaning.

    A row gives no event when it is left out by `where` or `unless`, when the template's cell is empty, or when no time
    that the rule names is known. An `optional` event is one that most rows lack (a death); other losses are counted.
    """

    code: Code
    also: tuple[Column, ...] = ()  # further columns that mean the same as the template's (DIAG_1, DIAG_2, ...)
    part: Part | None = None  # of the template's cell
    cells: dict[str, str] = {}  # the template's cell -> what the code says instead; "" stands for an empty one
    time: Column | None = None  # the row's own time
    or_time: tuple[Column, ...] = ()  # else these, in order
    at: VisitTime | None = None  # else the start or the end of its visit
    age: Age | None = None  # the time is the visit's start less this age
    date: DateParts | None = None  # the time is this date
    value: Column | None = None  # a number
    unit: Column | None = None  # of `value`, as the source writes it
    where: Conditions = {}  # the cells a row must have
    unless: Conditions = {}  # the cells a row must not have
    in_visit: bool = False  # given only where the row is in a visit, named or by `attach_by_time`
    sets: dict[Column, str] = {}  # further cells of a row that is written for this event
    optional: bool = False

    @cached_property
    def template(self) -> Template:
        """The code's template."""
        return Template.parse(self.code)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose cells make codes: the template's, then `also`."""
        return () if self.template.column is None else (self.template.column, *self.also)

    @property
    def static(self) -> bool:
        """Whether the event has no time by rule (MEDS: a null time)."""
        return self.time is None and self.at is None and self.age is None and self.date is None

    @property
    def times(self) -> tuple[str, ...]:
        """The columns with the row's own time, the preferred one first."""
        return () if self.time is None else (self.time, *self.or_time)

    @property
    def reads(self) -> Iterator[str]:
        """The columns that must be in the file."""
        yield from (*self.columns, *self.times, *self.where, *self.unless)
        yield from (name for name in (self.value, self.unit) if name is not None)
        if self.age is not None:
            yield self.age.column
        if self.date is not None:
            yield from self.date.columns

    @property
    def as_text(self) -> Iterator[str]:
        """The columns whose cells are read as they are written."""
        yield from (*self.columns, *self.where, *self.unless)
        if self.unit is not None:
            yield self.unit
        if self.age is not None:
            yield self.age.column
        if self.date is not None:
            yield from self.date.columns

    def invert(self, code: str) -> dict[str, str] | None:
        """The template's cell that made `code`, translated back; None when this rule cannot have made it."""
        cell = self.template.invert(code)
        if not cell or not self.cells:
            return cell
        raw = {said: written for written, said in self.cells.items()}
        return {column: raw.get(text, text) for column, text in cell.items()}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.template.column is None and (self.also or self.part or self.cells):
            raise ValueError(f"{self.code}: `also`, `part` and `cells` need a {{COLUMN}} in the code")
        if len(set(self.cells.values())) != len(self.cells):
            raise ValueError(f"{self.code}: two `cells` become the same, so that the code could not be turned back")
        if "" in self.cells.values():
            raise ValueError(f"{self.code}: one of `cells` becomes nothing, so that the code could not be turned back")
        if sum(kind is not None for kind in (self.time, self.age, self.date)) > 1:
            raise ValueError(f"{self.code}: give one of `time`, `age` and `date`")
        if self.or_time and self.time is None:
            raise ValueError(f"{self.code}: `or_time` needs a `time`")
        return self


def first_cells(conditions: Conditions) -> dict[str, str]:
    """The cells that a written row gets so that `conditions` hold: the first of each list."""
    return {column: cell if isinstance(cell, str) else cell[0] for column, cell in conditions.items()}
