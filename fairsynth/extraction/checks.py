"""The door of extraction: everything that is wrong with a data folder, and what became of every row.

In:  a data folder, the site's configuration and rules.   Out: `Survey` (tables, frame, problems), `TablesReport`; and,
on the way, events for whoever asks for them.
Never: a patient's value or identifier in a message; line numbers and counts only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fairsynth.config import SiteConfig, Strict
from fairsynth.errors import ExtractionError, Problem
from fairsynth.extraction.events import Names
from fairsynth.extraction.frame import Frame, read_frame
from fairsynth.extraction.reading import ELSEWHERE, NO_PATIENT, NO_VISIT, Reader, Sink, read_or_report
from fairsynth.extraction.rules import DictionaryRule, Rules, read_source
from fairsynth.extraction.tables import Table, open_tables


class TableReport(Strict):
    """What was found in one table. Shares are of its rows; years are those of the source's (shifted) dates.

    Every row has one fate: rows = kept + the sum of `left_out`.
    """

    table: str
    file: str
    rows: int
    kept: int = 0  # rows that gave an event
    left_out: dict[str, int] = {}  # why -> rows
    first_year: int | None = None
    last_year: int | None = None
    share_with_visit: float | None = None  # rows that name a visit; None where the table has no visit column
    rows_of_unknown_patients: int = 0
    rows_of_unknown_visits: int = 0
    events: int = 0
    events_without_visit: int = 0  # before events are attached by their time
    events_attached: int = 0
    rows_without_code: int = 0
    rows_without_time: int = 0


class TablesReport(Strict):
    """What was found in a data folder that extraction can read."""

    source: str
    patients: int
    visits: int
    visits_ending_before_they_start: int
    tables: tuple[TableReport, ...]

    @property
    def rows(self) -> dict[str, int]:
        """Table -> rows, in the order of the rules."""
        return {table.table: table.rows for table in self.tables}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A data folder, looked at. `frame` and `report` are there when the patients and visits tables could be read."""

    tables: dict[str, Table]
    problems: list[Problem] = field(default_factory=list)
    frame: Frame | None = None
    report: TablesReport | None = None


def check_tables(data: Path, *, config: Path) -> TablesReport:
    """The report on the raw tables in `data`. Raises ExtractionError with all their problems, ConfigError."""
    site, rules = read_source(config)
    _, _, report = checked(survey(data, site=site, rules=rules))
    return report


def checked(seen: Survey) -> tuple[dict[str, Table], Frame, TablesReport]:
    """The parts of a survey without problems. Raises ExtractionError with all problems otherwise."""
    if seen.problems or seen.frame is None or seen.report is None:
        raise ExtractionError(seen.problems)
    return seen.tables, seen.frame, seen.report


def survey(
    data: Path, *, site: SiteConfig, rules: Rules, sink: Sink | None = None, names: Names | None = None
) -> Survey:
    """Read every table in `data` once; problems are collected, not raised.

    While there are none, events go to `sink`. What it got is worth nothing when the survey ends with problems.
    """
    tables, problems = open_tables(data, rules, site=site)
    frame = _frame(tables, rules=rules, site=site, problems=problems)
    readers = [Reader(tables[rule.file], rule, rules, frame=frame) for rule in rules.tables if rule.file in tables]
    names = names or Names()
    for reader in readers:
        chosen = sink if not problems else None
        problems += read_or_report(reader, chosen, names=names, tolerated=site.maximum_unreadable_share)
    for rule in rules.dictionaries:
        problems += _check_dictionary(tables[rule.file], rule) if rule.file in tables else []
    if frame is None:
        return Survey(tables=tables, problems=problems)
    reports = [_report(reader) for reader in readers]
    if not problems:  # else: mostly their consequence
        problems.extend(_check_dropped(reports, site))
    summary = TablesReport(
        source=site.source,
        patients=frame.here,
        visits=frame.visits_here.height,
        visits_ending_before_they_start=frame.ending_before_they_start,
        tables=tuple(reports),
    )
    return Survey(tables=tables, problems=problems, frame=frame, report=summary)


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
    return [Problem(what="empty table", where=str(table.path), expected="at least one row below the header")]


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
    )


def _check_dropped(reports: list[TableReport], site: SiteConfig) -> list[Problem]:
    """No more rows than the site allows may name a patient or visit that the source does not have."""
    rows = sum(report.rows - report.left_out.get(ELSEWHERE, 0) for report in reports)
    unknown = {report.file: report.rows_of_unknown_patients + report.rows_of_unknown_visits for report in reports}
    dropped = sum(unknown.values())
    if not rows or dropped / rows <= site.maximum_dropped_share:
        return []
    where = ", ".join(f"{file}: {number:,}" for file, number in unknown.items() if number)
    return [
        Problem(
            what=f"rows that name an unknown patient or visit: {dropped:,} of {rows:,}",
            where=where,
            expected=f"at most {site.maximum_dropped_share:.2%} of all rows",
            do="export the tables from one snapshot, or raise `maximum_dropped_share` in site.yaml",
        )
    ]
