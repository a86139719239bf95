"""A guessed configuration, before it is written down: rules that are sure enough, and questions that are not.

In:  nothing.   Out: value classes.
Never: data.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fairsynth.onboarding.samples import Sample

Key = dict[str, object]  # of YAML, in order


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event rule. `said` is a remark beside it; an open one is written as a comment, for a person to decide."""

    rule: Key
    said: str = ""
    open: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """Something that only a person can tell, and the choices."""

    text: str


@dataclass(frozen=True, kw_only=True)
class TableDraft:
    """How one table would be read."""

    sample: Sample
    what: str  # what its rows are
    keys: Key  # subject, visit, attach_by_time, ...
    events: tuple[Event, ...]
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DictionaryDraft:
    """How one dictionary would be read."""

    sample: Sample
    keys: Key  # code, description, parents


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Events and questions that one look at a table gives."""

    events: tuple[Event, ...] = ()
    questions: tuple[Question, ...] = ()

    def __add__(self, other: Guess) -> Guess:
        return Guess(events=self.events + other.events, questions=self.questions + other.questions)


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A guessed name of a local code in LOINC. An open one is written as a comment."""

    code: str
    loinc: str
    said: str
    open: bool


@dataclass(frozen=True, kw_only=True)
class GroupString:
    """A string of the sensitive attribute that enough patients carry, and the group that it would be."""

    raw: str
    group: str


@dataclass(frozen=True, kw_only=True)
class SiteDraft:
    """Everything that will be written."""

    name: str
    date_formats: tuple[str, ...]
    patients: str
    visits: Key
    identifiers: Key
    text: Key
    tables: tuple[TableDraft, ...]
    dictionaries: tuple[DictionaryDraft, ...]
    parents: tuple[Parent, ...]
    questions: tuple[Question, ...]
    attribute: str
    strings: tuple[GroupString, ...]
    rare_strings: int
    exclude_codes: tuple[str, ...]
    unreadable: bool  # some values are no numbers
    unused: tuple[str, ...] = field(default=())  # `file: why`
