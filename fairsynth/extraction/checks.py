"""The door of extraction: everything that is wrong with a data folder, and what became of every row.

In:  a data folder, the site's configuration and rules.   Out: `Survey` (tables, frame, problems), `TablesReport`; and,
on the way, events for whoever asks for them.
Never: a patient's value or identifier in a message; line numbers and counts only.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fairsynth.config import SiteConfig
from fairsynth.errors import ExtractionError, Problem
from fairsynth.extraction.codes import describe
from fairsynth.extraction.events import Names, Sink
from fairsynth.extraction.fates import NO_PATIENT, NO_VISIT
from fairsynth.extraction.frame import Frame, read_frame
from fairsynth.extraction.meds_reading import survey_meds
from fairsynth.extraction.meds_rules import MedsRules
from fairsynth.extraction.reading import Reader, empty_table, read_or_report
from fairsynth.extraction.reports import Survey, TableReport, TablesReport, check_dropped
from fairsynth.extraction.rules import DictionaryRule, Rules, read_source
from fairsynth.extraction.tables import Table, open_tables

__all__ = ["Survey", "TableReport", "TablesReport", "check_tables", "survey"]


def check_tables(data: Path, *, config: Path) -> TablesReport:
    """The report on the raw tables in `data`. Raises ExtractionError with all their problems, ConfigError."""
    site, rules = read_source(config)
    return survey(data, site=site, rules=rules).checked()[1]


def survey(
    data: Path, *, site: SiteConfig, rules: Rules | MedsRules, sink: Sink | None = None, names: Names | None = None
) -> Survey:
    """Read everything in `data` once; problems are collected, not raised.

    While there are none, events go to `sink`. What it got is worth nothing when the survey ends with problems.
    """
    names = names or Names()
    if isinstance(rules, MedsRules):
        return survey_meds(data, site=site, rules=rules, sink=sink, names=names)
    return _survey_tables(data, site=site, rules=rules, sink=sink, names=names)


def _survey_tables(data: Path, *, site: SiteConfig, rules: Rules, sink: Sink | None, names: Names) -> Survey:
    tables, problems = open_tables(data, rules, site=site)
    frame = _frame(tables, rules=rules, site=site, problems=problems)
    readers = [Reader(tables[rule.file], rule, rules, frame=frame) for rule in rules.tables if rule.file in tables]
    for reader in readers:
        chosen = sink if not problems else None
        problems += read_or_report(reader, chosen, names=names, tolerated=site.maximum_unreadable_share)
    for rule in rules.dictionaries:
        problems += _check_dictionary(tables[rule.file], rule) if rule.file in tables else []
    described = partial(describe, tables=tables, rules=rules)
    if frame is None:
        return Survey(describe=described, problems=problems)
    reports = [_report(reader) for reader in readers]
    if not problems:  # else: mostly their consequence
        problems.extend(check_dropped(reports, site))
    summary = TablesReport(
        source=site.source,
        patients=frame.here,
        visits=frame.visits_here.height,
        visits_ending_before_they_start=frame.ending_before_they_start,
        tables=tuple(reports),
    )
    return Survey(describe=described, problems=problems, frame=frame, report=summary)


def _frame(tables: dict[str, Table], *, rules: Rules, site: SiteConfig, problems: list[Problem]) -> Frame | None:
    """The patients and visits, where their tables can be read; what is wrong with them joins `problems`."""
    if not {rules.patients, rules.visits.table} <= tables.keys():
        return None
    try:
        frame, found = read_frame(tables, rules=rules, site=site)
    except ExtractionError:  # told when the table's own turn comes
        return None
    problems += found
    return frame


def _check_dictionary(table: Table, rule: DictionaryRule) -> list[Problem]:
    """A dictionary must be readable, and not empty unless it may be."""
    try:
        rows = sum(batch.height for batch in table.batches())
    except ExtractionError as error:
        return list(error.problems)
    if rows or rule.may_be_empty:
        return []
    return [empty_table(table.path)]


def _report(reader: Reader) -> TableReport:
    """What a reader found, as numbers."""
    found, rule = reader.found, reader.rule
    share = round(found.with_visit / found.rows, 6) if rule.visit is not None and found.rows else None
    return TableReport(
        table=rule.file,
        file=reader.table.path.name,
        rows=found.rows,
        kept=found.kept,
        left_out={fate: number for fate, number in found.fates.items() if number},
        first_year=found.first_year,
        last_year=found.last_year,
        share_with_visit=share,
        rows_of_unknown_patients=found.fates[NO_PATIENT],
        rows_of_unknown_visits=found.fates[NO_VISIT],
        events=found.events,
        events_without_visit=found.events_without_visit,
        events_attached=found.events_attached,
        rows_without_code=found.without_code,
        rows_without_time=found.without_time,
        attaches=bool(rule.attach_by_time),
    )
