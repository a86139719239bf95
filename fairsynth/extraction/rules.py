"""`rules.yaml`: which cells of which table become which event, declared, never evaluated.

In:  YAML.   Out: `Rules`, frozen and checked: every column a rule reads is listed, and every event code leads back to
exactly one rule, so that tables can be written from events as well as events read from tables.
Never: expressions, file access other than the rules file, data.

Keys are explained, with an example for each kind of schema, in docs/extraction.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fairsynth.config import SiteConfig, Strict, read_site, read_yaml
from fairsynth.errors import ConfigError
from fairsynth.extraction.event_rules import Conditions, EventRule, VisitTime, first_cells
from fairsynth.extraction.meds_rules import MedsRules
from fairsynth.extraction.templates import Code, Column, Parent, ParentCode, Template

Unit = Literal["minutes", "hours", "days"]
FileName = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9_. -]*$", max_length=120)]


class WriteRule(Strict):
    """What a written table holds beside the cells that its events give."""

    row: Literal["patient", "visit", "event"] = "event"  # what one row stands for
    sequences: dict[Column, Literal["table", "visit", "patient"]] = {}  # running numbers from 1
    constants: dict[Column, str] = {}  # cells every row starts with
    copies: dict[Column, Column] = {}  # column -> the column it repeats
    visit_times: dict[Column, VisitTime] = {}  # cells that repeat the visit's start or end


class FileRule(Strict):
    """One file: its name without ending, all its columns in file order, and other names that releases use for them."""

    file: FileName
    columns: tuple[Column, ...] = Field(min_length=1)
    aliases: dict[Column, tuple[Column, ...]] = {}
    may_be_empty: bool = False
    where: Conditions = {}  # rows that count; the others are left out and counted
    write: WriteRule = WriteRule()

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that must be in the file, in file order."""
        needed = {*self._needed(), *self.where}
        return tuple(column for column in self.columns if column in needed)

    def names(self, column: str) -> tuple[str, ...]:
        """The names under which a file may hold `column`, the preferred one first."""
        return (column, *self.aliases.get(column, ()))

    def compares(self) -> dict[str, set[str]]:
        """Column -> the cells that rows are compared with."""
        found: dict[str, set[str]] = {}
        for conditions in self._conditions():
            for column, cells in conditions.items():
                found.setdefault(column, set()).update({cells} if isinstance(cells, str) else cells)
        return found

    def _needed(self) -> Iterable[str]:
        return ()

    def _conditions(self) -> Iterator[Conditions]:
        yield self.where

    def _written(self) -> Iterator[str]:
        write = self.write
        yield from (*write.sequences, *write.constants, *write.copies, *write.copies.values(), *write.visit_times)

    @model_validator(mode="after")
    def _columns_are_listed(self) -> Self:
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"{self.file}: a column is listed twice")
        for name in (*self._needed(), *self._written(), *self.aliases, *self.where):
            if name not in self.columns:
                raise ValueError(f"{self.file}: {name} is not among `columns`")
        return self


class TableRule(FileRule):
    """A table whose rows belong to patients, and the events that a row gives."""

    subject: Column | None = "SUBJECT_ID"  # null: the patient is known through the visit
    visit: Column | None = "HADM_ID"  # null: rows name no visit
    attach_by_time: bool | Literal["day"] = False  # a row without a visit: that in which its time (its day) falls
    events: tuple[EventRule, ...] = Field(min_length=1)

    def _needed(self) -> Iterable[str]:
        yield from (name for name in (self.subject, self.visit) if name is not None)
        for event in self.events:
            yield from event.reads

    def _conditions(self) -> Iterator[Conditions]:
        yield from super()._conditions()
        for event in self.events:
            yield from (event.where, event.unless)

    def _written(self) -> Iterator[str]:
        yield from super()._written()
        for event in self.events:
            yield from event.sets

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.subject is None and self.visit is None:
            raise ValueError(f"{self.file}: give `subject`, `visit` or both, or no row has a patient")
        if self.visit is None and any(event.at is not None or event.age is not None for event in self.events):
            raise ValueError(f"{self.file}: `at` and `age` need a `visit` column")
        return self

    def rule_of(self, code: str) -> EventRule | None:
        """The rule that makes `code` from a row of this table, if one does."""
        return next((event for event in self.events if event.template.invert(code) is not None), None)

    def parse_code(self, code: str) -> dict[str, str] | None:
        """The cells that made `code` (template, `where`), by column; None when this table does not make it."""
        event = self.rule_of(code)
        if event is None:
            return None
        return {**first_cells(event.where), **(event.invert(code) or {})}

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
    """A dictionary: a row describes the codes that its cells make, and names their parents in other vocabularies.

    Several may read one file, each its own rows (`where`): codes of two systems in one list.
    """

    code: Code | tuple[Code, ...]
    description: Column | None = None
    parents: tuple[ParentCode, ...] = ()

    @property
    def codes(self) -> tuple[Template, ...]:
        """The templates of the codes that a row describes."""
        texts = (self.code,) if isinstance(self.code, str) else self.code
        return tuple(Template.parse(text) for text in texts)

    def _needed(self) -> Iterable[str]:
        yield from (template.column for template in self.codes if template.column is not None)
        for text in self.parents:
            yield from Parent(text=text).columns
        if self.description is not None:
            yield self.description

    def cells(self, code: str, *, description: str = "", parents: Iterable[str] = ()) -> dict[str, str] | None:
        """The cells of the row that describes `code`; None when this dictionary does not hold it."""
        cells = next((found for template in self.codes if (found := template.invert(code)) is not None), None)
        if cells is None:
            return None
        if self.description is not None:
            cells[self.description] = description
        for parent in parents:
            for text in self.parents:
                cells.update(Parent(text=text).invert(parent) or {})
        return cells


class Clock(Strict):
    """A source without calendar dates: every time column holds an offset from its visit's zero.

    `order` names the columns of the visits table (numbers) that put a patient's visits in their order, the most
    important first. Visits are laid one after the other on an artificial calendar: gaps between them mean nothing.
    """

    unit: Unit = "minutes"
    order: tuple[Column, ...] = Field(min_length=1)


class VisitsRule(Strict):
    """Which table has one row a visit, and where the visit's start and end are."""

    table: FileName
    start: Column | None = "ADMITTIME"  # null (with a clock): the visit starts at its zero
    end: Column = "DISCHTIME"
    clock: Clock | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that must be in the table."""
        order = () if self.clock is None else self.clock.order
        return tuple(name for name in (self.start, self.end, *order) if name is not None)

    @model_validator(mode="after")
    def _starts(self) -> Self:
        if self.start is None and self.clock is None:
            raise ValueError("`start` may be null only with a `clock`")
        return self


class Identifiers(Strict):
    """What identifiers are: whole numbers, kept as they are, or text, numbered in sorted order."""

    subject: Literal["number", "text"] = "number"
    visit: Literal["number", "text"] = "number"


class TextFormat(Strict):
    """How the source writes text files."""

    delimiter: Literal[",", ";", "\t", "|"] = ","
    encoding: Literal["utf-8", "latin-1", "cp1252", "gb18030"] = "utf-8"
    missing: tuple[str, ...] = ()  # cells that mean "nothing", beside empty ones, e.g. ["?", "NULL"]


class Rules(Strict):
    """`rules.yaml`: all tables and dictionaries of one source."""

    schema_: Literal["fairsynth.rules/1"] = Field(alias="schema")
    date_formats: tuple[str, ...] = Field(default=("%Y-%m-%d %H:%M:%S", "%Y-%m-%d"), min_length=1)  # first: written
    text: TextFormat = TextFormat()
    identifiers: Identifiers = Identifiers()
    patients: FileName  # the table with one row a patient, or the visits table: then patients are those of its visits
    visits: VisitsRule
    tables: tuple[TableRule, ...] = Field(min_length=1)
    dictionaries: tuple[DictionaryRule, ...] = ()
    parents: dict[str, str | tuple[str, ...]] = {}  # code -> its name in a standard vocabulary, beside the dictionaries

    @property
    def files(self) -> tuple[FileRule, ...]:
        """Tables, then dictionaries."""
        return (*self.tables, *self.dictionaries)

    @property
    def artificial(self) -> bool:
        """Whether the source has no calendar, so that gaps between visits mean nothing."""
        return self.visits.clock is not None

    def reads(self, rule: FileRule) -> tuple[str, ...]:
        """The columns of `rule` that must be in its file, in file order; of the visits table also start and end."""
        ends = set(self.visits.reads) if rule.file == self.visits.table else set()
        read = {column for other in self.files if other.file == rule.file for column in other.reads}
        return tuple(column for column in rule.columns if column in ends | read)

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
        names = [table.file for table in self.tables]
        names += {(rule.file, rule.columns): rule.file for rule in self.dictionaries}.values()
        if len(set(names)) != len(names):
            raise ValueError("a file is named twice")
        for name in (self.patients, self.visits.table):
            if name not in self._by_name:
                raise ValueError(f"{name} is not among `tables`")
        if self.table(self.patients).subject is None or self.table(self.visits.table).subject is None:
            raise ValueError("the patients and the visits table need a `subject` column")
        admissions = self.table(self.visits.table)
        if admissions.visit is None:
            raise ValueError(f"{admissions.file}: the visits table needs a `visit` column")
        for column in self.visits.reads:
            if column not in admissions.columns:
                raise ValueError(f"{admissions.file}: {column} is not among `columns`")
        return self

    @model_validator(mode="after")
    def _clock_fits(self) -> Self:
        for table in self.tables if self.artificial else ():
            if table.visit is None and any(event.time is not None for event in table.events):
                raise ValueError(f"{table.file}: with a `clock`, a time needs the `visit` that it counts from")
            if table.attach_by_time:
                raise ValueError(f"{table.file}: `attach_by_time` needs a calendar, and a `clock` has none")
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


def read_source(config: Path) -> tuple[SiteConfig, Rules | MedsRules]:
    """The site configuration in folder `config`, and its rules for tables or a MEDS data set. Raises ConfigError."""
    site = read_site(config)
    if site.layout == "meds":
        return site, read_yaml(config / site.rules, MedsRules)
    return site, read_rules(config)


def read_rules(config: Path) -> Rules:
    """The rules for tables of the site configuration in folder `config`. Raises ConfigError."""
    site = read_site(config)
    rules = read_yaml(config / site.rules, Rules)
    columns = rules.table(rules.visits.table).columns
    if site.first_visit is not None and site.first_visit.column not in columns:
        raise ConfigError.of(
            "unknown column",
            where=f"{config / 'site.yaml'}  first_visit.column -> {site.first_visit.column}",
            expected=f"a column of {rules.visits.table}: {', '.join(columns)}",
        )
    return rules
