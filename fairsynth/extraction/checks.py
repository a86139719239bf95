"""The door of extraction: everything that is wrong with a data folder, found before anything is written.

In:  a data folder, the site's configuration and rules.   Out: `Survey` (tables, frame, problems), `TablesReport`.
Never: a patient's value or identifier in a message; line numbers and counts only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from fairsynth.config import SiteConfig, Strict
from fairsynth.errors import ExtractionError, Problem
from fairsynth.extraction import cells
from fairsynth.extraction.events import Frame, applies, is_complete, placed, read_frame
from fairsynth.extraction.rules import Rules, TableRule, read_source
from fairsynth.extraction.tables import ROW, SHOWN_LINES, Table, collect, open_tables, shown_lines


class TableReport(Strict):
    """What was found in one table. Shares are of its rows; years are those of the source's (shifted) dates."""

    table: str
    file: str
    rows: int
    first_year: int | None = None
    last_year: int | None = None
    share_with_visit: float | None = None  # rows that name a visit; None where the table has no visit column
    rows_of_unknown_patients: int = 0
    rows_of_unknown_visits: int = 0
    events: int = 0
    events_without_visit: int = 0
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


def survey(data: Path, *, site: SiteConfig, rules: Rules) -> Survey:
    """Look at every table in `data`; problems are collected, not raised."""
    tables, problems = open_tables(data, rules)
    looked = [_check_cells(tables[rule.file], rule, rules) for rule in rules.tables if rule.file in tables]
    problems.extend(problem for _, found in looked for problem in found)
    if not {rules.patients, rules.visits.table} <= tables.keys():
        return Survey(tables=tables, problems=problems)
    problems.extend(_check_identifiers(tables, rules))
    frame = read_frame(rules, tables)
    reports = [_place(report, tables[report.table], frame) for report, _ in looked]
    if not problems:  # else: mostly their consequence
        problems.extend(_check_dropped(reports, site))
    summary = TablesReport(
        source=site.source,
        patients=frame.patients.height,
        visits=frame.visits.height,
        visits_ending_before_they_start=frame.visits.filter(pl.col("end") < pl.col("start")).height,
        tables=tuple(reports),
    )
    return Survey(tables=tables, problems=problems, frame=frame, report=summary)


# --- cells -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Check:
    """One claim about the cells of a column; `bad` is true where it does not hold."""

    column: str
    what: str
    expected: str
    bad: pl.Expr


def _cell_checks(rule: TableRule, rules: Rules) -> list[_Check]:
    """What must hold for every row of a table."""
    checks = [_identifier_check(rule.subject, required=True)]
    if rule.visit is not None:
        checks.append(_identifier_check(rule.visit, required=rule.file == rules.visits.table))
    for column in _time_columns(rule, rules):
        expected = f"a time like {' or '.join(rules.date_formats)}"
        bad = cells.unparsed(column, cells.time(column, rules))
        checks.append(_Check(column=column, what="dates that do not parse", expected=expected, bad=bad))
        if rule.file == rules.visits.table and column in (rules.visits.start, rules.visits.end):
            missing = pl.col(column).is_null()
            checks.append(_Check(column=column, what="visits without a time", expected="a time", bad=missing))
    for column in dict.fromkeys(event.value for event in rule.events if event.value is not None):
        bad = cells.unparsed(column, cells.number(column))
        checks.append(_Check(column=column, what="numbers that do not parse", expected="a finite number", bad=bad))
    return checks


def _identifier_check(column: str, *, required: bool) -> _Check:
    bad = cells.identifier(column).is_null() if required else cells.unparsed(column, cells.identifier(column))
    expected = f"a whole number{'' if required else ' or nothing'}"
    return _Check(column=column, what="identifiers missing or not numbers", expected=expected, bad=bad)


def _time_columns(rule: TableRule, rules: Rules) -> list[str]:
    """The columns of a table that are read as times."""
    columns = [event.time for event in rule.events if event.time is not None]
    if rule.file == rules.visits.table:
        columns += [rules.visits.start, rules.visits.end]
    return list(dict.fromkeys(columns))


def _check_cells(table: Table, rule: TableRule, rules: Rules) -> tuple[TableReport, list[Problem]]:
    """One pass over a table: its years, and the cells that do not parse."""
    checks = _cell_checks(rule, rules)
    times = [cells.time(column, rules).dt.year() for column in _time_columns(rule, rules)]
    years = [pl.concat_list(times).explode()] if times else [pl.lit(None, dtype=pl.Int32)]
    query = table.scan().select(
        *[check.bad.sum().alias(f"bad {index}") for index, check in enumerate(checks)],
        pl.min_horizontal([year.min() for year in times] or years).alias("first"),
        pl.max_horizontal([year.max() for year in times] or years).alias("last"),
    )
    found = collect(query, str(table.path)).row(0, named=True)
    problems = [
        _cell_problem(table, check, found[f"bad {index}"])
        for index, check in enumerate(checks)
        if found[f"bad {index}"]
    ]
    report = TableReport(
        table=rule.file, file=table.path.name, rows=table.rows, first_year=found["first"], last_year=found["last"]
    )
    return report, problems


def _cell_problem(table: Table, check: _Check, number: int) -> Problem:
    """The problem of `number` bad cells, with the lines of the first."""
    query = table.scan().filter(check.bad).select(ROW).head(SHOWN_LINES + 1)
    rows = collect(query, str(table.path))[ROW].to_list()
    where = f"{table.path}  {table.columns[check.column]}  {shown_lines(table.lines(rows))}  ({number:,} in all)"
    return Problem(what=check.what, where=where, expected=check.expected, do="correct these lines, then check again")


# --- across rows and tables ------------------------------------------------------------------------------------------


def _check_identifiers(tables: dict[str, Table], rules: Rules) -> list[Problem]:
    """Patients and visits are named once; every visit has a known patient."""
    people, stays = tables[rules.patients], tables[rules.visits.table]
    subject, admissions = rules.table(rules.patients).subject, rules.table(rules.visits.table)
    known = people.scan().select(key=cells.identifier(subject)).unique()
    owners = stays.scan().select(ROW, key=cells.identifier(admissions.subject)).drop_nulls()
    problems = [
        *_duplicates(people, subject),
        *_duplicates(stays, admissions.visit or ""),
    ]
    orphans = collect(owners.join(known, on="key", how="anti"), str(stays.path))
    if orphans.height:
        where = _where(stays, admissions.subject, orphans)
        expected = f"a patient of {people.path.name}"
        problems.append(
            Problem(what="visits of unknown patients", where=where, expected=expected, do="add the patients")
        )
    return problems


def _duplicates(table: Table, column: str) -> list[Problem]:
    """The problem that an identifier occurs in more than one row, if it does."""
    keyed = table.scan().select(ROW, key=cells.identifier(column)).drop_nulls()
    rows = collect(keyed.filter(pl.col("key").is_duplicated()), str(table.path))
    if not rows.height:
        return []
    where = _where(table, column, rows)
    return [Problem(what="duplicate identifiers", where=where, expected="each once", do="remove the repeated rows")]


def _where(table: Table, column: str, rows: pl.DataFrame) -> str:
    lines = table.lines(sorted(rows[ROW].to_list())[: SHOWN_LINES + 1])
    return f"{table.path}  {table.columns[column]}  {shown_lines(lines)}  ({rows.height:,} rows in all)"


def _place(report: TableReport, table: Table, frame: Frame) -> TableReport:
    """`report` with what placing the rows among patients and visits shows."""
    rule = frame.rules.table(report.table)
    counts = {
        "with_visit": pl.col("visit_id").is_not_null().sum(),
        "rows_of_unknown_patients": (~pl.col("known_patient")).sum(),
        "rows_of_unknown_visits": (pl.col("known_patient") & ~pl.col("known_visit")).sum(),
        **_event_counts(rule, frame.rules),
    }
    found = collect(placed(table, rule, frame).select(**counts), str(table.path)).row(0, named=True)
    with_visit = found.pop("with_visit")
    share = round(with_visit / table.rows, 6) if rule.visit is not None and table.rows else None
    return report.model_copy(update={**found, "share_with_visit": share})


def _event_counts(rule: TableRule, rules: Rules) -> dict[str, pl.Expr]:
    """Events of a table's placed rows, and rows that give none for want of a code or a time."""
    counts: dict[str, list[pl.Expr]] = {
        name: [] for name in ("events", "events_without_visit", "rows_without_code", "rows_without_time")
    }
    for event in rule.events:
        wanted, made = applies(event), applies(event) & is_complete(event, rules)
        code = event.template.filled()
        counts["events"].append(made.sum())
        counts["events_without_visit"].append((made & pl.col("visit_id").is_null()).sum())
        counts["rows_without_code"].append((wanted & code.is_null()).sum())
        if not event.optional:
            counts["rows_without_time"].append((wanted & code.is_not_null() & ~made).sum())
    return {name: pl.sum_horizontal(pl.lit(0), *parts) for name, parts in counts.items()}


def _check_dropped(reports: list[TableReport], site: SiteConfig) -> list[Problem]:
    """No more rows than the site allows may name a patient or visit that the source does not have."""
    rows = sum(report.rows for report in reports)
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
