"""Samples -> a whole site configuration, guessed.

In:  the samples of a data folder.   Out: `SiteDraft`.
Never: a file is written; two rules that could make the same code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from fairsynth.extraction.templates import Template
from fairsynth.onboarding import content, people, words
from fairsynth.onboarding.columns import Column, date_formats, month_or_day
from fairsynth.onboarding.counts import common_cells, descriptions
from fairsynth.onboarding.drafts import (
    DictionaryDraft,
    Event,
    GroupString,
    Guess,
    Key,
    Parent,
    Question,
    SiteDraft,
    TableDraft,
)
from fairsynth.onboarding.keys import Keys, find_keys
from fairsynth.onboarding.samples import Sample, Unused
from fairsynth.onboarding.vocabulary import dictionary, laboratory_parents

ATTRIBUTE = "ETHNICITY"
UNDECIDED = "TODO"  # stands where a name is needed that could not be guessed

# Coded after the fact, these give a death away: cardiac arrest, palliative care, brain death, not resuscitated, sudden
# or unattended death.
TELLING = {
    "ICD9CM": ("427.5", "V66.7", "348.82", "V49.86", "798"),
    "ICD10": ("I46", "Z51.5", "G93.82", "R96", "R98", "R99", "Z66"),
}
_LOOKS = (
    ("diagnoses", content.diagnoses),
    ("procedures", content.procedures),
    ("laboratory values", content.laboratory),
    ("drugs", content.drugs),
    ("care units", content.units),
)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Samples by name, and the skeleton that was found."""

    samples: Mapping[str, Sample]
    keys: Keys

    @property
    def visits(self) -> Sample | None:
        """The visits table."""
        return self.samples[self.keys.visits] if self.keys.visits is not None else None


def guess_site(samples: Sequence[Sample], unused: Sequence[Unused], *, name: str) -> SiteDraft:
    """The configuration that the samples suggest."""
    source = _Source(samples={sample.name: sample for sample in samples}, keys=find_keys(samples))
    attribute_table, attribute = _attribute(source)
    drafts = [draft for sample in samples if (draft := _table(sample, source)) is not None]
    first = {source.keys.patients: 0, source.keys.visits: 1}
    tables = sorted(_apart(drafts, visits=source.keys.visits), key=lambda draft: first.get(draft.sample.name, 2))
    dictionaries = _dictionaries(source, tables)
    strings, rare = _strings(source, attribute_table, attribute)
    read = {draft.sample.name for draft in tables} | {draft.sample.name for draft in dictionaries}
    left = [
        f"{sample.path.name}: no patient, visit or code recognised" for sample in samples if sample.name not in read
    ]
    formats, doubt = _formats(source, tables)
    return SiteDraft(
        name=name,
        date_formats=formats,
        patients=source.keys.patients or UNDECIDED,
        visits=_visits(source.keys),
        identifiers=_identifiers(source.keys),
        text=_text(samples),
        tables=tuple(tables),
        dictionaries=tuple(dictionaries),
        parents=tuple(_parents(source, tables, dictionaries)),
        questions=tuple(_questions(source, tables, doubt=doubt, attribute=attribute)),
        attribute=ATTRIBUTE,
        strings=strings,
        rare_strings=rare,
        exclude_codes=tuple(_telling(source, tables)),
        unreadable=any("no numbers" in question.text for draft in tables for question in draft.questions),
        unused=(*left, *(f"{one.file}: {one.why}" for one in unused)),
    )


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(sample: Sample, source: _Source) -> TableDraft | None:
    """How one table would be read; None where its rows belong to nobody, or nothing in it is recognised."""
    keys = source.keys
    subject, visit = keys.subject.get(sample.name), keys.visit.get(sample.name)
    if subject is None and visit is None:
        return None
    what, guess = _look(sample, source)
    if not guess.events and not guess.questions:
        return None
    written: Key = {"subject": subject, "visit": visit}
    if sample.name == keys.patients != keys.visits:
        written["visit"] = None
    elif subject is not None and _attachable(sample, visit, guess, keys):
        written["attach_by_time"] = True
    return TableDraft(sample=sample, what=what, keys=written, events=guess.events, questions=guess.questions)


def _look(sample: Sample, source: _Source) -> tuple[str, Guess]:
    """What a table's rows are, and what they give."""
    keys = source.keys
    columns = {
        name: column for name, column in keys.tables[sample.name].items() if name not in keys.key_columns(sample.name)
    }
    has_visit = keys.visit.get(sample.name) is not None
    if sample.name == keys.visits:
        place = content.Place(table=sample.name, columns=columns, has_visit=True, is_visits=True)
        return "one row a visit", _visit_facts(place, source)
    if sample.name == keys.patients:
        return "one row a patient", people.person(columns, in_visits=False) + people.attribute(
            columns, in_visits=False
        )[0]
    place = content.Place(table=sample.name, columns=columns, has_visit=has_visit)
    for what, look in _LOOKS:
        guess = look(place)
        if guess.events or guess.questions:
            return what, guess
    return "", Guess()


def _visit_facts(place: content.Place, source: _Source) -> Guess:
    """What the visits table gives: the visit itself, what the patients table does not tell, and codes."""
    keys = source.keys
    all_columns = keys.tables[place.table]
    subject = keys.subject.get(place.table)
    guess = people.visit(all_columns, start=keys.start or UNDECIDED, end=keys.end or UNDECIDED, subject=subject)
    alone = keys.patients == keys.visits
    told = people.person(keys.tables[keys.patients or place.table], in_visits=alone)
    here = people.person(place.columns, in_visits=True)
    known = {_kind(event) for event in told.events} if not alone else set()
    guess += Guess(
        events=tuple(event for event in here.events if _kind(event) not in known),
        questions=here.questions if alone else (),
    )
    table, _ = _attribute(source)
    if table == place.table:
        guess += people.attribute(place.columns, in_visits=True)[0]
    return guess + content.diagnoses(place) + content.procedures(place) + content.units(_without(place, guess))


def _without(place: content.Place, guess: Guess) -> content.Place:
    """The place without the columns that became codes."""
    taken = {Template.parse(str(event.rule["code"])).column for event in guess.events}
    return replace(place, columns={name: column for name, column in place.columns.items() if name not in taken})


def _attachable(sample: Sample, visit: str | None, guess: Guess, keys: Keys) -> bool:
    """Whether rows that name no visit have a time by which one can be found."""
    timed = any("time" in event.rule for event in guess.events)
    missing = visit is None or keys.tables[sample.name][visit].filled < 1
    return timed and missing and sample.name != keys.visits


def _apart(drafts: list[TableDraft], *, visits: str | None) -> list[TableDraft]:
    """The drafts, so that no code comes from two rules.

    Laboratory items of several tables get their table's name. Of others the first table counts, and the visits table
    only where no table is theirs.
    """
    laboratories = [draft for draft in drafts if draft.what == "laboratory values"]
    seen: list[Template] = []
    apart = []
    for draft in sorted(drafts, key=lambda draft: (draft.sample.name == visits, not _says_so(draft))):
        events, questions = [], list(draft.questions)
        for event in draft.events:
            told = _with_table(event, draft.sample.name) if draft in laboratories and len(laboratories) > 1 else event
            template = Template.parse(str(told.rule["code"]))
            twice = any(template.overlaps(other) for other in seen)
            if twice and draft.sample.name == visits:
                continue
            if twice and not told.open:
                told = replace(told, open=True)
                text = (
                    f"{draft.sample.name} would make codes like another table's ({template.literal}...): which counts?"
                )
                questions.append(Question(text=text))
            if not told.open:
                seen.append(template)
            events.append(told)
        if any(not event.open for event in events):
            apart.append(replace(draft, events=tuple(events), questions=tuple(questions)))
    return apart


def _says_so(draft: TableDraft) -> bool:
    """Whether a table of care units is named like one: of several, it counts."""
    return draft.what != "care units" or bool(words.UNITS_TABLE.search(words.plain(draft.sample.name)))


def _with_table(event: Event, table: str) -> Event:
    code = str(event.rule["code"]).replace("LAB//", f"LAB//{table}:", 1)
    return replace(event, rule=event.rule | {"code": code})


def _kind(event: Event) -> str:
    return str(event.rule["code"]).partition("//")[0]


# --- what holds for the whole source ---------------------------------------------------------------------------------


def _visits(keys: Keys) -> Key:
    return {"table": keys.visits or UNDECIDED, "start": keys.start or UNDECIDED, "end": keys.end or UNDECIDED}


def _identifiers(keys: Keys) -> Key:
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


def _text(samples: Sequence[Sample]) -> Key:
    """Delimiter and encoding, where they are not the usual ones."""
    texts = [sample.text for sample in samples if sample.path.suffix.lower() != ".parquet"]
    if not texts:
        return {}
    found = {"delimiter": texts[0].delimiter, "encoding": texts[0].encoding}
    return {key: value for key, value in found.items() if value not in (",", "utf-8")}


def _formats(source: _Source, tables: Sequence[TableDraft]) -> tuple[tuple[str, ...], bool]:
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


def _attribute(source: _Source) -> tuple[str | None, str | None]:
    """The table and column of the sensitive attribute: of the patients, else of the visits."""
    for table in (source.keys.patients, source.keys.visits):
        if table is not None:
            _, column = people.attribute(source.keys.tables[table], in_visits=False)
            if column is not None:
                return table, column
    return None, None


def _strings(source: _Source, table: str | None, column: str | None) -> tuple[tuple[GroupString, ...], int]:
    """The strings of the attribute that may be written, and how many may not."""
    if table is None or column is None:
        return (), 0
    found = common_cells(source.samples[table], (column,), keys=source.keys, visits=source.visits)
    return tuple(GroupString(raw=raw, group=_group(raw)) for raw in found.rows[column]), found.rare


def _group(raw: str) -> str:
    if words.UNKNOWN.match(raw.upper()):
        return "unknown"
    return re.sub(r"[^0-9a-z]+", "_", raw.lower()).strip("_") or "unnamed"


def _code_columns(source: _Source, tables: Sequence[TableDraft]) -> Iterator[tuple[str, Column]]:
    """(literal, column) of every code that comes from a column."""
    for draft in tables:
        for event in draft.events:
            template = Template.parse(str(event.rule["code"]))
            if template.column is not None and not event.open:
                yield template.literal, source.keys.tables[draft.sample.name][template.column]


def _dictionaries(source: _Source, tables: Sequence[TableDraft]) -> list[DictionaryDraft]:
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


def _parents(
    source: _Source, tables: Sequence[TableDraft], dictionaries: Sequence[DictionaryDraft]
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


def _telling(source: _Source, tables: Sequence[TableDraft]) -> Iterator[str]:
    """Prefixes of the codes that give a death away, in the source's own way of writing."""
    for literal, column in _code_columns(source, tables):
        system = literal.removeprefix("DIAG//").strip("/")
        if literal.startswith("DIAG//"):
            dotted = bool(column.cells.str.contains(".", literal=True).any())
            for code in TELLING.get("ICD9CM" if system.startswith("ICD9") else "ICD10", ()):
                yield literal + (code if dotted else code.replace(".", ""))


def _questions(
    source: _Source, tables: Sequence[TableDraft], *, doubt: bool, attribute: str | None
) -> Iterator[Question]:
    """What could not be told for the source as a whole."""
    keys = source.keys
    told = {_kind(event) for draft in tables for event in draft.events if not event.open}
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
