"""The raw tables: rows, years, rows left out and why.

In:  the report of extraction's checks.   Out: `TableQuality`, one a table, and findings.
Never: file access; a day or month (years only).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fairsynth.config import Strict
from fairsynth.extraction.fates import BY_RULE, ELSEWHERE
from fairsynth.extraction.reports import TableReport, TablesReport
from fairsynth.quality.findings import Finding, note, warning

LARGE_LOSS = 0.05  # of a table's rows: above it, what is left out is more than scattered faults
MEANT = (BY_RULE, ELSEWHERE)  # reasons that are no loss
YEARS_BEFORE = 20  # before the first visit: results of earlier care may reach back so far


class TableQuality(Strict):
    """One table. Every row is kept or left out for one of the reasons; shares are of its rows."""

    table: str
    file: str
    rows: int
    first_year: int | None
    last_year: int | None
    kept: int
    left_out: dict[str, int]
    share_with_visit: float | None  # None: the table has no visit column
    events: int


def describe_tables(report: TablesReport, *, calendar: bool) -> tuple[TableQuality, ...]:
    """Every table of a report. Without a real `calendar` its years mean nothing and are left out."""
    return tuple(_describe(table, calendar=calendar) for table in report.tables)


def table_findings(tables: Sequence[TableQuality], *, visits: tuple[int, int] | None) -> Iterator[Finding]:
    """What a person should know of the tables; `visits`: the first and last year of the visits, if there are years."""
    for table in tables:
        if table.rows == 0:
            yield note("empty table", where=table.file, do="leave it, if the source has no such data")
        lost = {reason: rows for reason, rows in table.left_out.items() if reason not in MEANT}
        if sum(lost.values()) > LARGE_LOSS * table.rows:
            reasons = ", ".join(f"{reason}: {rows:,}" for reason, rows in lost.items())
            what = f"{sum(lost.values()) / table.rows:.1%} of the rows are left out"
            yield warning(what, where=f"{table.file}  ({reasons})", do="check the table's keys against the others")
        if visits is not None and _outside(table, *visits):
            yield warning(
                f"years {table.first_year} to {table.last_year}, while visits are of {visits[0]} to {visits[1]}",
                where=table.file,
                do="check its dates, and `date_formats` in the rules",
            )


def _describe(table: TableReport, *, calendar: bool) -> TableQuality:
    left_out = {reason: rows for reason, rows in table.left_out.items() if rows}
    return TableQuality(
        table=table.table,
        file=table.file,
        rows=table.rows,
        first_year=table.first_year if calendar else None,
        last_year=table.last_year if calendar else None,
        kept=table.kept,
        left_out=left_out,
        share_with_visit=table.share_with_visit,
        events=table.events,
    )


def _outside(table: TableQuality, first_visit: int, last_visit: int) -> bool:
    """Whether a table of visits' rows has years that no visit explains; results may come a while before the visits."""
    if table.share_with_visit is None or table.first_year is None or table.last_year is None:
        return False
    return table.first_year < first_visit - YEARS_BEFORE or table.last_year > last_visit + 1
