"""Tables + rules -> events, lazily.

In:  open tables, `Rules`, and the patients and visits of the source.   Out: frames with the columns of EVENT_SCHEMA.
Never: a write, a judgement (checks.py has made it: here a cell that does not parse is simply null).

A row is *kept* when its patient is known and the visit it names, if any, is a visit of that patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from fairsynth.extraction import cells
from fairsynth.extraction.event_rules import EventRule
from fairsynth.extraction.rules import Rules, TableRule
from fairsynth.extraction.tables import Table, collect
from fairsynth.schemas import EVENT_SCHEMA

KEPT = "known_patient", "known_visit"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What every row is placed in: `patients` (subject_id) and `visits` (subject_id, visit_id, start, end), unique."""

    rules: Rules
    patients: pl.DataFrame
    visits: pl.DataFrame


def read_frame(rules: Rules, tables: dict[str, Table]) -> Frame:
    """The patients and visits of the source; rows without ids are left out, repeated ids appear once."""
    admissions = rules.table(rules.visits.table)
    people, stays = tables[rules.patients], tables[rules.visits.table]
    patients = people.scan().select(subject_id=cells.identifier(rules.table(rules.patients).subject))
    visits = stays.scan().select(
        subject_id=cells.identifier(admissions.subject),
        visit_id=cells.identifier(admissions.visit or ""),  # never empty: the rules refuse it
        start=cells.time(rules.visits.start, rules),
        end=cells.time(rules.visits.end, rules),
    )
    key = ["subject_id", "visit_id"]
    return Frame(
        rules=rules,
        patients=collect(patients.drop_nulls().unique(), str(people.path)),
        visits=collect(visits.drop_nulls(key).unique(key, keep="first", maintain_order=True), str(stays.path)),
    )


def placed(table: Table, rule: TableRule, frame: Frame) -> pl.LazyFrame:
    """The table's rows with `subject_id`, `visit_id` (as named in the row), the visit's `start` and `end`,
    `known_patient` and `known_visit` (true also where the row names no visit)."""
    visit = cells.identifier(rule.visit) if rule.visit is not None else pl.lit(None, dtype=pl.Int64)
    patients = frame.patients.lazy().with_columns(known_patient=pl.lit(value=True))
    visits = frame.visits.lazy().with_columns(known_visit=pl.lit(value=True))
    rows = table.scan().with_columns(subject_id=cells.identifier(rule.subject), visit_id=visit)
    rows = rows.join(patients, on="subject_id", how="left").join(visits, on=["subject_id", "visit_id"], how="left")
    known_visit = pl.col("known_visit").fill_null(value=False) | pl.col("visit_id").is_null()
    return rows.with_columns(known_visit=known_visit, known_patient=pl.col("known_patient").fill_null(value=False))


def events_of(rows: pl.LazyFrame, event: EventRule, rules: Rules) -> pl.LazyFrame:
    """The events that `event` makes of placed rows."""
    rows = rows.filter(applies(event)).filter(is_complete(event, rules))
    columns = {
        "subject_id": pl.col("subject_id"),
        "time": time_of(event, rules),
        "code": event.template.filled(),
        "numeric_value": cells.number(event.value) if event.value else pl.lit(None),
        "visit_id": pl.col("visit_id"),
        "unit": pl.col(event.unit) if event.unit else pl.lit(None),
    }
    return rows.select(columns[name].cast(dtype).alias(name) for name, dtype in EVENT_SCHEMA.items())


def applies(event: EventRule) -> pl.Expr:
    """Whether a placed row is kept and has the cells that `event` asks for."""
    conditions = [pl.col(column).eq_missing(pl.lit(text)) for column, text in event.where.items()]
    return pl.all_horizontal(*KEPT, *conditions)


def is_complete(event: EventRule, rules: Rules) -> pl.Expr:
    """Whether a row has the event's code, and its time unless the event is static by rule."""
    code = event.template.filled().is_not_null()
    return code if event.static else code & time_of(event, rules).is_not_null()


def time_of(event: EventRule, rules: Rules) -> pl.Expr:
    """The row's own time, else its visit's start or end; null for a static event."""
    times = [cells.time(event.time, rules)] if event.time is not None else []
    if event.at is not None:
        times.append(pl.col(event.at))
    return pl.coalesce(times) if times else pl.lit(None)


def attached(events: pl.LazyFrame, visits: pl.DataFrame) -> pl.LazyFrame:
    """Events without a visit get the visit of their patient that began last before them, if it had not ended."""
    outside = events.filter(pl.col("visit_id").is_null())
    stays = visits.lazy().drop_nulls(["start", "end"]).rename({"visit_id": "stay"}).sort("start", "stay")
    found = outside.sort("time").join_asof(
        stays, left_on="time", right_on="start", by="subject_id", strategy="backward", check_sortedness=False
    )
    stay = pl.when(pl.col("time") <= pl.col("end")).then(pl.col("stay"))
    return pl.concat(
        [events.filter(pl.col("visit_id").is_not_null()), found.with_columns(visit_id=stay).select(list(EVENT_SCHEMA))]
    )


def all_events(tables: dict[str, Table], frame: Frame) -> pl.LazyFrame:
    """Every event of the source in MEDS order, ties broken by the other columns: the order is the data's own."""
    parts = []
    for rule in frame.rules.tables:
        rows = placed(tables[rule.file], rule, frame)
        for event in rule.events:
            events = events_of(rows, event, frame.rules)
            parts.append(attached(events, frame.visits) if rule.attach_by_time else events)
    order = ["subject_id", "time", "visit_id", "code", "numeric_value", "unit"]
    return pl.concat(parts).sort(order, nulls_last=False)
