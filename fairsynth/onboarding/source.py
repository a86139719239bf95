"""What holds for a whole source: identifiers, formats, dictionaries, groups, and what only a person can tell.

In:  samples, the skeleton of the source, the drafts of its tables.   Out: the other parts of a `SiteDraft`.
Never: a cell that few patients carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from fairsynth.extraction.templates import Template
from fairsynth.onboarding import people, words
from fairsynth.onboarding.columns import Column, date_formats, month_or_day
from fairsynth.onboarding.counts import common_cells, descriptions
from fairsynth.onboarding.drafts import DictionaryDraft, Event, GroupString, Key, Parent, Question, TableDraft
from fairsynth.onboarding.keys import Keys
from fairsynth.onboarding.samples import Sample
from fairsynth.onboarding.vocabulary import dictionary, laboratory_parents

ATTRIBUTE = "ETHNICITY"
UNDECIDED = "TODO"  # stands where a name is needed that could not be guessed

# Coded after the fact, these give a death away: cardiac arrest, palliative care, brain death, not resuscitated, sudden
# or unattended death.
TELLING = {
    "ICD9CM": ("427.5", "V66.7", "348.82", "V49.86", "798"),
    "ICD10": ("I46", "Z51.5", "G93.82", "R96", "R98", "R99", "Z66"),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Samples by name, and the skeleton that was found."""

    samples: Mapping[str, Sample]
    keys: Keys

    @property
    def visits(self) -> Sample | None:
        """The visits table."""
        return self.samples[self.keys.visits] if self.keys.visits is not None else None


def visits_rule(keys: Keys) -> Key:
    """The `visits` of rules.yaml."""
    return {"table": keys.visits or UNDECIDED, "start": keys.start or UNDECIDED, "end": keys.end or UNDECIDED}


def identifier_kinds(keys: Keys) -> Key:
    """Identifiers that are not whole numbers everywhere are text."""
    found: Key = {}
    for kind, places in (("subject", keys.subject), ("visit", keys.visit)):
        if any(
            not keys.tables[table][name].whole_numbers
            for table, name in places.items()
            if len(keys.tables[table][name].cells)
        ):
            found[kind] = "text"
    return found


def text_format(samples: Sequence[Sample]) -> Key:
    """Delimiter and encoding, where they are not the usual ones."""
    texts = [sample.text for sample in samples if sample.path.suffix.lower() != ".parquet"]
    if not texts:
        return {}
    found = {"delimiter": texts[0].delimiter, "encoding": texts[0].encoding}
    return {key: value for key, value in found.items() if value not in (",", "utf-8")}


def time_formats(source: Source, tables: Sequence[TableDraft]) -> tuple[tuple[str, ...], bool]:
    """The formats of the columns that rules read as times; and whether day and month could be either way round."""
    keys = source.keys
    used = [
        keys.tables[draft.sample.name][str(event.rule["time"])]
        for draft in tables
        for event in draft.events
        if not event.open and str(event.rule.get("time", "")) in keys.tables[draft.sample.name]
    ]
    if keys.visits is not None:
        used += [keys.tables[keys.visits][name] for name in (keys.start, keys.end) if name is not None]
    order = month_or_day(used)
    doubt = len(order) > 1 and any(form.startswith(("%d", "%m")) for column in used for form in column.formats)
    return date_formats(used, first=order[0]) or ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d"), doubt


def attribute_column(source: Source) -> tuple[str | None, str | None]:
    """The table and column of the sensitive attribute: of the patients, else of the visits."""
    for table in (source.keys.patients, source.keys.visits):
        if table is not None:
            _, column = people.attribute(source.keys.tables[table], in_visits=False)
            if column is not None:
                return table, column
    return None, None


def group_strings(source: Source, table: str | None, column: str | None) -> tuple[tuple[GroupString, ...], int]:
    """The strings of the attribute that may be written, and how many may not."""
    if table is None or column is None:
        return (), 0
    found = common_cells(source.samples[table], (column,), keys=source.keys, visits=source.visits)
    return tuple(GroupString(raw=raw, group=_group(raw)) for raw in found.rows[column]), found.rare


def _group(raw: str) -> str:
    if words.UNKNOWN.match(raw.upper()):
        return "unknown"
    return re.sub(r"[^0-9a-z]+", "_", raw.lower()).strip("_") or "unnamed"


def _code_columns(source: Source, tables: Sequence[TableDraft]) -> Iterator[tuple[str, Column]]:
    """(literal, column) of every code that comes from a column."""
    for draft in tables:
        for event in draft.events:
            template = Template.parse(str(event.rule["code"]))
            if template.column is not None and not event.open:
                yield template.literal, source.keys.tables[draft.sample.name][template.column]


def find_dictionaries(source: Source, tables: Sequence[TableDraft]) -> list[DictionaryDraft]:
    """The tables without patients that describe codes."""
    keys, read = source.keys, {draft.sample.name for draft in tables}
    used = [
        (literal, column)
        for literal, column in _code_columns(source, tables)
        if literal.startswith(("DIAG", "PROC", "DRUG", "LAB"))
    ]
    found = (
        dictionary(sample, keys.tables[name], used=used)
        for name, sample in source.samples.items()
        if name not in read and name not in keys.subject and name not in keys.visit
    )
    return [draft for draft in found if draft is not None]


def loinc_parents(
    source: Source, tables: Sequence[TableDraft], dictionaries: Sequence[DictionaryDraft]
) -> Iterator[Parent]:
    """LOINC codes of laboratory items, where no dictionary names them."""
    for draft in tables:
        for event in draft.events if draft.what == "laboratory values" else ():
            template = Template.parse(str(event.rule["code"]))
            described = [one for one in dictionaries if str(one.keys["code"]).startswith(template.literal)]
            if event.open or template.column is None or any("parents" in one.keys for one in described):
                continue
            unit = event.rule.get("unit")
            columns = (template.column, *([str(unit)] if unit is not None else []))
            found = common_cells(draft.sample, columns, keys=source.keys, visits=source.visits).rows
            items = found.select(item=template.column, unit=columns[1] if unit is not None else pl.lit(None, pl.String))
            yield from laboratory_parents(items, literal=template.literal, labels=_labels(described))


def _labels(described: Sequence[DictionaryDraft]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in described:
        column = Template.parse(str(one.keys["code"])).column
        if column is not None and "description" in one.keys:
            found |= descriptions(one.sample, code=column, description=str(one.keys["description"]))
    return found


def telling_codes(source: Source, tables: Sequence[TableDraft]) -> Iterator[str]:
    """Prefixes of the codes that give a death away, in the source's own way of writing."""
    for literal, column in _code_columns(source, tables):
        system = literal.removeprefix("DIAG//").strip("/")
        if literal.startswith("DIAG//"):
            dotted = bool(column.cells.str.contains(".", literal=True).any())
            for code in TELLING.get("ICD9CM" if system.startswith("ICD9") else "ICD10", ()):
                yield literal + (code if dotted else code.replace(".", ""))


def open_questions(
    source: Source, tables: Sequence[TableDraft], *, doubt: bool, attribute: str | None
) -> Iterator[Question]:
    """What could not be told for the source as a whole."""
    keys = source.keys
    told = {kind_of(event) for draft in tables for event in draft.events if not event.open}
    names = ", ".join(source.samples)
    if keys.visits is None:
        yield Question(text=f"which table has one row a visit, with its key, patient, start and end? Tables: {names}")
    elif keys.start is None or keys.end is None:
        times = [name for name, column in keys.tables[keys.visits].items() if column.is_time]
        listed = ", ".join(times) or "none; for offsets from admission see `clock` in docs/extraction.md"
        yield Question(text=f"when does a visit start, when does it end? Times of {keys.visits}: {listed}")
    if keys.patients is None or keys.patients not in keys.subject:
        yield Question(text=f"which table has one row a patient, and which column names the patient? Tables: {names}")
    if doubt:
        yield Question(text="is 03/04/2021 the 3rd of April (%d/%m/%Y) or the 4th of March (%m/%d/%Y)? No cell decides")
    asked = any("years stands for" in question.text for draft in tables for question in draft.questions)
    if "MEDS_BIRTH" not in told and not asked:
        yield Question(
            text="where is the date of birth, or the age at a visit? Patients without either enter no cohort"
        )
    if "GENDER" not in told:
        yield Question(text="where is the patient's sex? Patients without it enter no cohort")
    if attribute is None:
        yield Question(text=f"which column holds the sensitive attribute? Its code must be {ATTRIBUTE}//{{COLUMN}}")


def kind_of(event: Event) -> str:
    """What stands before the first `//` of the event's code."""
    return str(event.rule["code"]).partition("//")[0]
