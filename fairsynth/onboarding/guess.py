"""Samples -> a whole site configuration, guessed.

In:  the samples of a data folder.   Out: `SiteDraft`.
Never: a file is written; two rules that could make the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fairsynth.extraction.templates import Template
from fairsynth.onboarding import content, people, words
from fairsynth.onboarding.drafts import Event, Guess, Key, Question, SiteDraft, TableDraft
from fairsynth.onboarding.keys import Keys, find_keys
from fairsynth.onboarding.samples import Sample, Unused
from fairsynth.onboarding.source import (
    ATTRIBUTE,
    UNDECIDED,
    Source,
    attribute_column,
    find_dictionaries,
    group_strings,
    identifier_kinds,
    kind_of,
    loinc_parents,
    open_questions,
    telling_codes,
    text_format,
    time_formats,
    visits_rule,
)

_LOOKS = (
    ("diagnoses", content.diagnoses),
    ("procedures", content.procedures),
    ("laboratory values", content.laboratory),
    ("drugs", content.drugs),
    ("care units", content.units),
)


def guess_site(samples: Sequence[Sample], unused: Sequence[Unused], *, name: str) -> SiteDraft:
    """The configuration that the samples suggest."""
    source = Source(samples={sample.name: sample for sample in samples}, keys=find_keys(samples))
    attribute_table, attribute = attribute_column(source)
    drafts = [draft for sample in samples if (draft := _table(sample, source)) is not None]
    first = {source.keys.patients: 0, source.keys.visits: 1}
    tables = sorted(_apart(drafts, visits=source.keys.visits), key=lambda draft: first.get(draft.sample.name, 2))
    dictionaries = find_dictionaries(source, tables)
    strings, rare = group_strings(source, attribute_table, attribute)
    read = {draft.sample.name for draft in tables} | {draft.sample.name for draft in dictionaries}
    left = [
        f"{sample.path.name}: no patient, visit or code recognised" for sample in samples if sample.name not in read
    ]
    formats, doubt = time_formats(source, tables)
    return SiteDraft(
        name=name,
        date_formats=formats,
        patients=source.keys.patients or UNDECIDED,
        visits=visits_rule(source.keys),
        identifiers=identifier_kinds(source.keys),
        text=text_format(samples),
        tables=tuple(tables),
        dictionaries=tuple(dictionaries),
        parents=tuple(loinc_parents(source, tables, dictionaries)),
        questions=tuple(open_questions(source, tables, doubt=doubt, attribute=attribute)),
        attribute=ATTRIBUTE,
        strings=strings,
        rare_strings=rare,
        exclude_codes=tuple(telling_codes(source, tables)),
        unreadable=any("no numbers" in question.text for draft in tables for question in draft.questions),
        unused=(*left, *(f"{one.file}: {one.why}" for one in unused)),
    )


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(sample: Sample, source: Source) -> TableDraft | None:
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


def _look(sample: Sample, source: Source) -> tuple[str, Guess]:
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


def _visit_facts(place: content.Place, source: Source) -> Guess:
    """What the visits table gives: the visit itself, what the patients table does not tell, and codes."""
    keys = source.keys
    all_columns = keys.tables[place.table]
    subject = keys.subject.get(place.table)
    guess = people.visit(all_columns, start=keys.start or UNDECIDED, end=keys.end or UNDECIDED, subject=subject)
    alone = keys.patients == keys.visits
    told = people.person(keys.tables[keys.patients or place.table], in_visits=alone)
    here = people.person(place.columns, in_visits=True)
    known = {kind_of(event) for event in told.events} if not alone else set()
    guess += Guess(
        events=tuple(event for event in here.events if kind_of(event) not in known),
        questions=here.questions if alone else (),
    )
    table, _ = attribute_column(source)
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
