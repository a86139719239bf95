"""One pass over a MEDS data set: every row is accounted for, events come out under our codes.

In:  a folder in MEDS layout, `MedsRules`.   Out: `Survey`; on the way, events for whoever asks for them.
Never: a value in a message; more than a batch of events in memory; a row without a fate.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from fairsynth.config import SiteConfig
from fairsynth.errors import ConfigError, ExtractionError, Problem
from fairsynth.extraction.events import Names, Sink, attached, stays
from fairsynth.extraction.fates import BY_RULE, NO_VISIT, UNREADABLE
from fairsynth.extraction.frame import Frame, framed
from fairsynth.extraction.meds import FLAWS, MedsFile, MedsSource, open_meds, read_visits
from fairsynth.extraction.meds_rules import MedsRules
from fairsynth.extraction.reports import Survey, TableReport, TablesReport, check_dropped
from fairsynth.extraction.tables import ROW
from fairsynth.extraction.textfile import SHOWN_LINES, shown_lines

TABLE = "MEDS"


@dataclass(kw_only=True)
class _Found:
    """Counts of rows of the source, unless they say otherwise."""

    rows: int = 0
    kept: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    with_visit: int = 0
    events: int = 0
    outside: int = 0  # events that name no visit
    attached: int = 0  # of these, events in a visit by their time
    years: list[int] = field(default_factory=list)
    flaws: Counter[tuple[Path, str]] = field(default_factory=Counter)  # file and column -> rows
    first_rows: dict[tuple[Path, str], list[int]] = field(default_factory=dict)


def survey_meds(data: Path, *, site: SiteConfig, rules: MedsRules, sink: Sink | None, names: Names) -> Survey:
    """Read the data set at `data`; problems are collected, not raised. Raises ConfigError for what MEDS cannot have."""
    if site.first_visit is not None:
        raise ConfigError.of(
            "`first_visit` of a MEDS data set", where="site.yaml", do="export the site's patients only"
        )
    source, problems = open_meds(data, rules)
    if problems:
        return Survey(describe=source.describe, problems=problems)
    try:
        frame = _frame(source)
        found = _read(source, frame, sink=sink, names=names)
    except ExtractionError as error:
        return Survey(describe=source.describe, problems=list(error.problems))
    report = _report(found, source, frame=frame, site=site)
    return Survey(
        describe=source.describe,
        problems=_problems(found, report, source=source, site=site),
        frame=frame,
        report=report,
    )


def _frame(source: MedsSource) -> Frame:
    ids = [batch.select("subject_id").drop_nulls().unique() for _, batch in source.batches()]
    patients = pl.concat([pl.DataFrame(schema={"subject_id": pl.Int64}), *ids]).unique()
    patients = patients.with_columns(subject_key="subject_id", elsewhere=pl.lit(value=False))
    return framed(patients, read_visits(source), others=pl.DataFrame(schema={"visit_key": pl.Int64}))


def _read(source: MedsSource, frame: Frame, *, sink: Sink | None, names: Names) -> _Found:
    found = _Found()
    places = frame.patients.select("subject_id", "bucket")
    known = frame.visits.select("subject_id", "visit_key", "visit_id")
    open_to = None if source.has_visits else stays(frame.visits)
    for file, batch in source.batches():
        found.rows += batch.height
        _note_flaws(batch, file, found)
        rows = _kept(batch.filter(pl.col("flaw").is_null()), known, found)
        renamed = source.renamed(rows["code"].unique().to_list())
        named = rows.join(renamed, on="code", how="inner", maintain_order="left")
        found.kept += rows.join(renamed, on="code", how="semi").height
        events = named.join(places, on="subject_id", how="left").select(
            "bucket",
            "subject_id",
            "time",
            code=pl.col("name").cast(pl.Categorical(names.codes)),
            numeric_value="numeric_value",
            visit_id="visit_id",
            unit=pl.coalesce("named_unit", "unit").cast(pl.Categorical(names.units)),
        )
        _emit(events, open_to, found=found, sink=sink)
    found.fates[BY_RULE] = found.rows - found.kept - found.fates.total()
    return found


def _note_flaws(batch: pl.DataFrame, file: MedsFile, found: _Found) -> None:
    """Count the rows that cannot be read, and remember the first of each kind."""
    flawed = batch.filter(pl.col("flaw").is_not_null())
    found.fates[UNREADABLE] += flawed.height
    for (flaw,), rows in flawed.partition_by("flaw", as_dict=True).items():
        found.flaws[file.path, flaw] += rows.height
        first = found.first_rows.setdefault((file.path, flaw), [])
        first += (rows[ROW].head(SHOWN_LINES + 1 - len(first)) + 1).to_list()


def _kept(rows: pl.DataFrame, known: pl.DataFrame, found: _Found) -> pl.DataFrame:
    """The rows that name no visit, or a known one; with visit_id."""
    rows = rows.join(known, on=["subject_id", "visit_key"], how="left", maintain_order="left")
    found.with_visit += rows.height - rows["visit_key"].null_count()
    lost = pl.col("visit_key").is_not_null() & pl.col("visit_id").is_null()
    kept = rows.filter(~lost)
    found.fates[NO_VISIT] += rows.height - kept.height
    years = kept.select(first=pl.col("time").min().dt.year(), last=pl.col("time").max().dt.year()).row(0)
    found.years = [year for year in (*found.years, *years) if year is not None]
    found.years = [min(found.years), max(found.years)] if found.years else []
    return kept


def _emit(events: pl.DataFrame, open_to: pl.DataFrame | None, *, found: _Found, sink: Sink | None) -> None:
    timed = pl.col("time").is_not_null()
    before = events.filter(timed)["visit_id"].null_count()
    placed = events
    if open_to is not None:
        placed = pl.concat([events.filter(~timed), attached(events.filter(timed), open_to, by_day=False)])
    found.events += events.height
    found.outside += before
    found.attached += before - placed.filter(timed)["visit_id"].null_count()
    if sink is not None and placed.height:
        sink(placed)


def _report(found: _Found, source: MedsSource, *, frame: Frame, site: SiteConfig) -> TablesReport:
    table = TableReport(
        table=TABLE,
        file=f"{len(source.files)} files in data/",
        rows=found.rows,
        kept=found.kept,
        left_out={fate: number for fate, number in found.fates.items() if number},
        first_year=found.years[0] if found.years else None,
        last_year=found.years[-1] if found.years else None,
        share_with_visit=round(found.with_visit / found.rows, 6) if source.has_visits and found.rows else None,
        rows_of_unknown_visits=found.fates[NO_VISIT],
        events=found.events,
        events_without_visit=found.outside,
        events_attached=found.attached,
        attaches=not source.has_visits,
    )
    return TablesReport(
        source=site.source,
        patients=frame.here,
        visits=frame.visits.height,
        visits_ending_before_they_start=frame.ending_before_they_start,
        tables=(table,),
    )


def _problems(found: _Found, report: TablesReport, *, source: MedsSource, site: SiteConfig) -> list[Problem]:
    where = str(source.root / "data")
    if not found.rows:
        return [Problem(what="empty data set", where=where, expected="at least one event", do="export it again")]
    problems = check_dropped(list(report.tables), site)
    if found.fates[UNREADABLE] > site.maximum_unreadable_share * found.rows:
        problems += [_flaw_problem(found, path, column) for path, column in found.flaws]
    if not report.visits:
        expected = "events whose codes become ADMISSION//... and DISCHARGE//..."
        do = "name them under `codes` in rules.yaml"
        problems.append(Problem(what="no visit found", where=where, expected=expected, do=do))
    return problems


def _flaw_problem(found: _Found, path: Path, column: str) -> Problem:
    lines = shown_lines(found.first_rows[path, column], word="row")
    where = f"{path}  {column}  {lines}  ({found.flaws[path, column]:,} in all)"
    do = "correct them; or let such rows be left out and counted: `maximum_unreadable_share` in site.yaml"
    return Problem(what="rows that cannot be read", where=where, expected=FLAWS[column], do=do)
