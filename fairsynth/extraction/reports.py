"""What looking at a source's raw data finds: typed results of the door.

Out: `TableReport`, `TablesReport` (what may be shown: counts, years, names of files), `Survey`.
Never: reading; a patient's value or identifier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from fairsynth.config import SiteConfig, Strict
from fairsynth.errors import ExtractionError, Problem
from fairsynth.extraction.fates import ELSEWHERE
from fairsynth.extraction.frame import Frame


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
    attaches: bool = False  # whether events without a visit get the one that their time falls in


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
    """A data folder, looked at. `frame` and `report` are there when the patients and visits could be read."""

    describe: Callable[[pl.Series], pa.Table]  # codes -> MEDS `codes.parquet`
    problems: list[Problem] = field(default_factory=list)
    frame: Frame | None = None
    report: TablesReport | None = None

    def checked(self) -> tuple[Frame, TablesReport]:
        """Patients, visits and report. Raises ExtractionError with all problems, if there are any."""
        if self.problems or self.frame is None or self.report is None:
            raise ExtractionError(self.problems)
        return self.frame, self.report


def check_dropped(reports: list[TableReport], site: SiteConfig) -> list[Problem]:
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
