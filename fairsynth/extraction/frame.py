"""Who and when: the patients and visits of a source, in which every row of every table is placed.

In:  the patients and visits tables, whole.   Out: `Frame`, and the problems across their rows.
Never: a patient's identifier in a message.

With a clock (a source without dates) a patient's visits are laid one after the other, in the order that the rules
name, a day apart, on a calendar that begins in 2000: times inside a visit are right, gaps between visits mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from fairsynth.config import SiteConfig
from fairsynth.errors import Problem
from fairsynth.extraction import cells
from fairsynth.extraction.events import VISIT
from fairsynth.extraction.rules import Rules
from fairsynth.extraction.tables import ROW, Table
from fairsynth.extraction.textfile import SHOWN_LINES

ARTIFICIAL_START = datetime(2000, 1, 1)  # of every patient's first visit, where the source has no calendar
ARTIFICIAL_GAP = timedelta(days=1)
PATIENTS_A_BUCKET = 64
MAXIMUM_BUCKETS = 256


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Patients and visits, each once.

    `patients`: subject_key (as the tables write it), subject_id, bucket (which part of the patients, in order of
    subject_id), elsewhere (the patient belongs to another site of this source).
    `visits`: subject_id, visit_key, visit_id, start, end, and zero, which offsets count from (no clock: the start).
    `other_visits`: visit_key of the visits that the rules leave out, and with them the rows that name them.
    """

    patients: pl.DataFrame
    visits: pl.DataFrame
    other_visits: pl.DataFrame
    ending_before_they_start: int

    @property
    def here(self) -> int:
        """Number of patients of this site."""
        return int((~self.patients["elsewhere"]).sum())

    @property
    def visits_here(self) -> pl.DataFrame:
        """The visits of this site's patients."""
        return self.visits.join(self.patients.filter(~pl.col("elsewhere")), on="subject_id", how="semi")


def read_frame(tables: dict[str, Table], *, rules: Rules, site: SiteConfig) -> tuple[Frame, list[Problem]]:
    """The patients and visits of the source; rows without ids or left out by rule play no part, repeated ids count
    once. Raises ExtractionError when one of the tables is damaged."""
    stays, others = _visit_rows(tables[rules.visits.table], rules=rules, site=site)
    people = stays if rules.patients == rules.visits.table else _patient_rows(tables[rules.patients], rules)
    problems = _check(tables, people=people, stays=stays, rules=rules)
    patients = _numbered(people, rules=rules).join(_elsewhere(stays, site=site), on="subject_key", how="left")
    patients = patients.with_columns(pl.col("elsewhere").fill_null(value=site.first_visit is not None))
    visits = _visits(stays, patients=patients, rules=rules)
    return framed(patients, visits, others=others), problems


def framed(patients: pl.DataFrame, visits: pl.DataFrame, *, others: pl.DataFrame) -> Frame:
    """The frame of patients (subject_key, subject_id, elsewhere), visits and the `others` (visit_key) that rules leave
    out; patients are sorted and put in buckets."""
    buckets = min(MAXIMUM_BUCKETS, max(1, -(-patients.height // PATIENTS_A_BUCKET)))
    bucket = (pl.int_range(pl.len()) * buckets // max(patients.height, 1)).cast(pl.UInt16)
    return Frame(
        patients=patients.sort("subject_id").with_columns(bucket=bucket),
        visits=visits,
        other_visits=others.drop_nulls().unique(),
        ending_before_they_start=visits.filter(pl.col("end") < pl.col("start")).height,
    )


def _patient_rows(table: Table, rules: Rules) -> pl.DataFrame:
    """ROW, subject_key of the rows of the patients table."""
    rule = rules.table(rules.patients)
    rows = table.whole().filter(cells.holds(rule.where))
    return rows.select(ROW, subject_key=_key(table, rule.subject, rules.identifiers.subject))


def _visit_rows(table: Table, *, rules: Rules, site: SiteConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """ROW, subject_key, visit_key, start, end (a time, or an offset with a clock), order 0.. and share (the cell that
    divides a source among sites) of the rows of the visits table that count; visit_key of those that do not."""
    rule, clock = rules.table(rules.visits.table), rules.visits.clock

    def moment(name: str) -> pl.Expr:
        return cells.time(name, rules) if clock is None else cells.offset(name, clock)

    zero = pl.lit(timedelta(0)).cast(pl.Duration("us"))
    rows, counts = table.whole(), cells.holds(rule.where)
    visit_key = _key(table, rule.visit, rules.identifiers.visit).alias(VISIT)
    order = [cells.real(name) for name in (clock.order if clock is not None else ())]
    share = pl.col(site.first_visit.column) if site.first_visit is not None else pl.lit(None, dtype=pl.String)
    kept = rows.filter(counts).select(
        ROW,
        visit_key,
        subject_key=_key(table, rule.subject, rules.identifiers.subject),
        start=zero if rules.visits.start is None else moment(rules.visits.start),
        end=moment(rules.visits.end),
        share=share,
        **{f"order {index}": column for index, column in enumerate(order)},
    )
    return kept, rows.filter(~counts).select(visit_key)


def _key(table: Table, column: str | None, kind: str) -> pl.Expr:
    return cells.identifier(column or "", kind, title=table.columns[column or ""])


def _numbered(people: pl.DataFrame, *, rules: Rules) -> pl.DataFrame:
    """subject_key, subject_id of every patient once."""
    keys = people.select("subject_key").drop_nulls().unique().sort("subject_key")
    return keys.with_columns(subject_id=_number("subject_key", rules.identifiers.subject))


def _number(column: str, kind: str) -> pl.Expr:
    """The number of an identifier: itself, or its place among the sorted texts."""
    return pl.col(column).rank("dense").cast(pl.Int64) if kind == "text" else pl.col(column)


def _elsewhere(stays: pl.DataFrame, *, site: SiteConfig) -> pl.DataFrame:
    """subject_key, elsewhere: whether a patient's first visit makes the patient another site's."""
    if site.first_visit is None:
        return stays.select("subject_key").drop_nulls().unique().with_columns(elsewhere=pl.lit(value=False))
    order = [name for name in stays.columns if name.startswith("order ")] or ["start"]
    first = stays.drop_nulls("subject_key").sort(*order, "visit_key", nulls_last=True).group_by("subject_key").first()
    mine = cells.holds({"share": site.first_visit.cells})
    return first.select("subject_key", elsewhere=~mine)


def _visits(stays: pl.DataFrame, *, patients: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """The visits of known patients, each once, on the source's calendar or an artificial one."""
    visits = (
        stays.drop_nulls(["subject_key", "visit_key", "start", "end"])
        .unique(["subject_key", "visit_key"], keep="first", maintain_order=True)
        .join(patients.select("subject_key", "subject_id"), on="subject_key", how="inner", maintain_order="left")
        .with_columns(visit_id=_number("visit_key", rules.identifiers.visit))
    )
    visits = visits.with_columns(zero=pl.col("start")) if rules.visits.clock is None else _laid_out(visits)
    return visits.select("subject_id", "visit_key", "visit_id", "start", "end", "zero")


def _laid_out(visits: pl.DataFrame) -> pl.DataFrame:
    """Offsets as times: a patient's visits one after the other."""
    order = [name for name in visits.columns if name.startswith("order ")]
    nothing = pl.lit(timedelta(0)).cast(pl.Duration("us"))
    length = pl.max_horizontal(pl.col("end") - pl.col("start"), nothing).fill_null(nothing) + ARTIFICIAL_GAP
    before = length.cast(pl.Int64).cum_sum().over("subject_id") - length.cast(pl.Int64)
    visits = visits.sort("subject_id", *order, "visit_key", nulls_last=True)
    start = pl.lit(ARTIFICIAL_START).cast(pl.Datetime("us")) + before.cast(pl.Duration("us"))
    placed = visits.with_columns(zero=start - pl.col("start"))
    return placed.with_columns(start=pl.col("zero") + pl.col("start"), end=pl.col("zero") + pl.col("end"))


# --- what is wrong across rows ---------------------------------------------------------------------------------------


def _check(tables: dict[str, Table], *, people: pl.DataFrame, stays: pl.DataFrame, rules: Rules) -> list[Problem]:
    """Patients and visits are named once; every visit has a known patient."""
    problems = []
    person, stay = rules.table(rules.patients), rules.table(rules.visits.table)
    if rules.patients != rules.visits.table:
        problems += _duplicates(tables[rules.patients], person.subject or "", people, key="subject_key")
    problems += _duplicates(tables[rules.visits.table], stay.visit or "", stays, key="visit_key")
    orphans = stays.drop_nulls("subject_key").join(people.select("subject_key"), on="subject_key", how="anti")
    if orphans.height:
        table = tables[rules.visits.table]
        expected = f"a patient of {tables[rules.patients].path.name}"
        where = _where(table, stay.subject or "", orphans)
        problems.append(
            Problem(what="visits of unknown patients", where=where, expected=expected, do="add the patients")
        )
    return problems


def _duplicates(table: Table, column: str, rows: pl.DataFrame, *, key: str) -> list[Problem]:
    """The problem that an identifier occurs in more than one row, if it does."""
    repeated = rows.drop_nulls(key).filter(pl.col(key).is_duplicated())
    if not repeated.height:
        return []
    where = _where(table, column, repeated)
    return [Problem(what="duplicate identifiers", where=where, expected="each once", do="remove the repeated rows")]


def _where(table: Table, column: str, rows: pl.DataFrame) -> str:
    lines = table.places(sorted(rows[ROW].to_list())[: SHOWN_LINES + 1])
    return f"{table.path}  {table.columns[column]}  {lines}  ({rows.height:,} in all)"
