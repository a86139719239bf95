"""`rules.yaml`: which cells of which table become which event, declared, never evaluated.

In:  YAML.   Out: `Rules`, frozen and checked: every column a rule reads is listed, and every event code leads back to
exactly one rule, so that tables can be written from events as well as events read from tables.
Never: expressions, file access other than the rules file, data.

A code template is a literal that ends, at most, in one column: `DIAG//ICD9CM//{ICD9_CODE}`. That makes it invertible:
whatever follows the literal is the cell. `TableRule.cells` turns one event into the cells of a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import polars as pl
from pydantic import AfterValidator, Field, model_validator

from fairsynth.config import SiteConfig, Strict, read_site, read_yaml

_TEMPLATE = re.compile(r"(?P<literal>[^{}]+)(?:\{(?P<column>[A-Z][A-Z0-9_]*)\})?")

VisitTime = Literal["start", "end"]
Column = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


@dataclass(frozen=True, kw_only=True)
class Template:
    """A code template taken apart: `literal` then the cell of `column` (None: a constant code)."""

    literal: str
    column: str | None

    @classmethod
    def parse(cls, text: str) -> Template:
        """The template that `text` writes. Raises ValueError when it is not `literal` or `literal{COLUMN}`."""
        match = _TEMPLATE.fullmatch(text)
        if match is None:
            raise ValueError("a code is a literal that ends, at most, in one {COLUMN}")
        return cls(literal=match["literal"], column=match["column"])

    def invert(self, code: str) -> dict[str, str] | None:
        """The cell that made `code`, by column; None when this template cannot have made it."""
        if self.column is None:
            return {} if code == self.literal else None
        cell = code.removeprefix(self.literal)
        return {self.column: cell} if cell and len(cell) < len(code) else None

    def filled(self) -> pl.Expr:
        """The code of a row; null where its cell is empty."""
        literal = pl.lit(self.literal)
        return literal if self.column is None else literal + pl.col(self.column)

    def overlaps(self, other: Template) -> bool:
        """Whether some code could come from both."""
        if self.column is None or other.column is None:
            return self.invert(other.literal) is not None or other.invert(self.literal) is not None
        return self.literal.startswith(other.literal) or other.literal.startswith(self.literal)


def _is_template(text: str) -> str:
    Template.parse(text)
    return text


Code = Annotated[str, AfterValidator(_is_template)]


class EventRule(Strict):
    """How a row becomes one event.

    A row gives no event when a `where` column differs, when the template's cell is empty, or when neither `time` nor
    the visit's time `at` is known. An `optional` event is one that most rows lack (a death); other losses are counted.
    """

    code: Code
    time: Column | None = None  # the row's own time
    at: VisitTime | None = None  # else the start or the end of its visit
    value: Column | None = None  # a number
    unit: Column | None = None  # of `value`, as the source writes it
    where: dict[Column, str] = {}  # the cells a row must have
    sets: dict[Column, str] = {}  # further cells of a row that is written for this event
    optional: bool = False

    @cached_property
    def template(self) -> Template:
        """The code's template."""
        return Template.parse(self.code)

    @property
    def static(self) -> bool:
        """Whether the event has no time by rule (MEDS: a null time)."""
        return self.time is None and self.at is None

    @property
    def reads(self) -> Iterator[str]:
        """The columns that must be in the file."""
        named = (self.template.column, self.time, self.value, self.unit)
        yield from (name for name in named if name is not None)
        yield from self.where


class WriteRule(Strict):
    """What a written table holds beside the cells that its events give."""

    row: Literal["patient", "visit", "event"] = "event"  # what one row stands for
    sequences: dict[Column, Literal["table", "visit"]] = {}  # running numbers from 1, within the table or the visit
    constants: dict[Column, str] = {}  # cells every row starts with
    copies: dict[Column, Column] = {}  # column -> the column it repeats
    visit_times: dict[Column, VisitTime] = {}  # cells that repeat the visit's start or end


class FileRule(Strict):
    """One file: its name without ending, all its columns in file order, and other names that releases use for them."""

    file: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
    columns: tuple[Column, ...] = Field(min_length=1)
    aliases: dict[Column, tuple[Column, ...]] = {}
    may_be_empty: bool = False
    write: WriteRule = WriteRule()

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that must be in the file, in file order."""
        needed = set(self._needed())
        return tuple(column for column in self.columns if column in needed)

    def names(self, column: str) -> tuple[str, ...]:
        """The names under which a file may hold `column`, the preferred one first."""
        return (column, *self.aliases.get(column, ()))

    def _needed(self) -> Iterable[str]:
        return ()

    def _written(self) -> Iterator[str]:
        write = self.write
        yield from (*write.sequences, *write.constants, *write.copies, *write.copies.values(), *write.visit_times)

    @model_validator(mode="after")
    def _columns_are_listed(self) -> Self:
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"{self.file}: a column is listed twice")
        for name in (*self._needed(), *self._written(), *self.aliases):
            if name not in self.columns:
                raise ValueError(f"{self.file}: {name} is not among `columns`")
        return self


class TableRule(FileRule):
    """A table whose rows belong to patients, and the events that a row gives."""

    subject: Column = "SUBJECT_ID"
    visit: Column | None = "HADM_ID"
    attach_by_time: bool = False  # a row without a visit belongs to the visit that its time falls in
    events: tuple[EventRule, ...] = Field(min_length=1)

    def _needed(self) -> Iterable[str]:
        yield self.subject
        if self.visit is not None:
            yield self.visit
        for event in self.events:
            yield from event.reads

    def _written(self) -> Iterator[str]:
        yield from super()._written()
        for event in self.events:
            yield from event.sets

    @model_validator(mode="after")
    def _visit_where_used(self) -> Self:
        if self.visit is None and (self.attach_by_time or any(event.at is not None for event in self.events)):
            raise ValueError(f"{self.file}: `at` and `attach_by_time` need a `visit` column")
        return self

    def rule_of(self, code: str) -> EventRule | None:
        """The rule that makes `code` from a row of this table, if one does."""
        return next((event for event in self.events if event.template.invert(code) is not None), None)

    def parse_code(self, code: str) -> dict[str, str] | None:
        """The cells that made `code` (template, `where`), by column; None when this table does not make it."""
        event = self.rule_of(code)
        if event is None:
            return None
        return {**event.where, **(event.template.invert(code) or {})}

    def cells(self, code: str, *, time: str = "", value: str = "", unit: str = "") -> dict[str, str] | None:
        """The cells that this event gives to its row, by column; `time`, `value` and `unit` are already text.

        What `write` adds (running numbers, constants, copies, visit times) and the two ids are not among them. None
        when this table does not make `code`.
        """
        event = self.rule_of(code)
        if event is None:
            return None
        measured = {event.time: time, event.value: value, event.unit: unit}
        own = {column: text for column, text in measured.items() if column is not None}
        return {**own, **event.sets, **(self.parse_code(code) or {})}


class DictionaryRule(FileRule):
    """A dictionary: a row describes the code that its cell makes, and names its parents in other vocabularies."""

    code: Code
    description: Column | None = None
    parents: tuple[Code, ...] = ()

    def _needed(self) -> Iterable[str]:
        templates = [Template.parse(text) for text in (self.code, *self.parents)]
        yield from (template.column for template in templates if template.column is not None)
        if self.description is not None:
            yield self.description

    def cells(self, code: str, *, description: str = "", parents: Iterable[str] = ()) -> dict[str, str] | None:
        """The cells of the row that describes `code`; None when this dictionary does not hold it."""
        cells = Template.parse(self.code).invert(code)
        if cells is None:
            return None
        if self.description is not None:
            cells[self.description] = description
        for parent in parents:
            for text in self.parents:
                cells.update(Template.parse(text).invert(parent) or {})
        return cells


class VisitsRule(Strict):
    """Which table has one row a visit, and where the visit's start and end are."""

    table: str
    start: Column = "ADMITTIME"
    end: Column = "DISCHTIME"


class Rules(Strict):
    """`rules.yaml`: all tables and dictionaries of one source."""

    schema_: Literal["fairsynth.rules/1"] = Field(alias="schema")
    date_formats: tuple[str, ...] = Field(default=("%Y-%m-%d %H:%M:%S", "%Y-%m-%d"), min_length=1)  # first: written
    patients: str  # the table with one row a patient
    visits: VisitsRule
    tables: tuple[TableRule, ...] = Field(min_length=1)
    dictionaries: tuple[DictionaryRule, ...] = ()

    @property
    def files(self) -> tuple[FileRule, ...]:
        """Tables, then dictionaries."""
        return (*self.tables, *self.dictionaries)

    def reads(self, rule: FileRule) -> tuple[str, ...]:
        """The columns of `rule` that must be in its file, in file order; of the visits table also start and end."""
        ends = {self.visits.start, self.visits.end} if rule.file == self.visits.table else set()
        return tuple(column for column in rule.columns if column in ends | set(rule.reads))

    def table(self, name: str) -> TableRule:
        """The table called `name`."""
        return self._by_name[name]

    def table_of(self, code: str) -> TableRule | None:
        """The one table whose rows make `code`."""
        return next((table for table in self.tables if table.rule_of(code) is not None), None)

    def write_time(self, time: datetime) -> str:
        """`time` as the source writes it."""
        return time.strftime(self.date_formats[0])

    @cached_property
    def _by_name(self) -> Mapping[str, TableRule]:
        return {table.file: table for table in self.tables}

    @model_validator(mode="after")
    def _files_fit_together(self) -> Self:
        names = [rule.file for rule in self.files]
        if len(set(names)) != len(names):
            raise ValueError("a file is named twice")
        for name in (self.patients, self.visits.table):
            if name not in self._by_name:
                raise ValueError(f"{name} is not among `tables`")
        admissions = self.table(self.visits.table)
        if admissions.visit is None:
            raise ValueError(f"{admissions.file}: the visits table needs a `visit` column")
        for column in (self.visits.start, self.visits.end):
            if column not in admissions.columns:
                raise ValueError(f"{admissions.file}: {column} is not among `columns`")
        return self

    @model_validator(mode="after")
    def _codes_lead_back(self) -> Self:
        """One rule a code, or a code could not be turned back into a row."""
        templates = [(event.code, event.template) for table in self.tables for event in table.events]
        for index, (code, template) in enumerate(templates):
            for other_code, other in templates[:index]:
                if template.overlaps(other):
                    raise ValueError(f"{code} and {other_code} could both make the same code")
        return self


def read_rules(config: Path) -> Rules:
    """The rules of the site configuration in folder `config`. Raises ConfigError."""
    return read_source(config)[1]


def read_source(config: Path) -> tuple[SiteConfig, Rules]:
    """The site configuration in folder `config`, and its rules. Raises ConfigError."""
    site = read_site(config)
    return site, read_yaml(config / site.rules, Rules)
