"""Patients of every shipped source whose codes are thrown together at random from those of the made-up patients."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from fairsynth import artefacts
from fairsynth.extraction.codes import CODES_ARROW
from fairsynth.extraction.columns import EVENT_SCHEMA
from fairsynth.extraction.event_rules import EventRule
from fairsynth.extraction.rules import Rules
from fairsynth.seeds import numpy_stream

MADE_UP = Path(__file__).resolve().parents[1] / "extraction" / "data"
DIABETES = ("medicare", "private", "public", "unrecorded")
SOURCES = {"mimic4": "mimic4", "eicu": "eicu", "omop": "omop"} | {
    f"diabetes130/{site}": "diabetes130" for site in DIABETES
}
BIRTH = "MEDS_BIRTH"  # where a source has ages or years, only as exact as they are
EDGES = {"ADMISSION": "start", "DISCHARGE": "end"}


@dataclass(frozen=True, kw_only=True)
class Visit:
    subject: int
    number: int
    start: datetime
    end: datetime


def write_events(root: Path, frame: pl.DataFrame) -> Path:
    """An events artefact of `frame`, whose codes nobody describes."""
    with artefacts.new(root, kind="events", inputs={}) as folder:
        for name in ("data", "metadata"):
            (folder / name).mkdir()
        frame.select(pl.col(name).cast(dtype) for name, dtype in EVENT_SCHEMA.items()).write_parquet(
            folder / "data" / "0.parquet"
        )
        codes = frame["code"].unique().sort()
        described = pl.DataFrame({"code": codes, "description": [None] * len(codes), "parent_codes": [[]] * len(codes)})
        pq.write_table(described.to_arrow().cast(CODES_ARROW), folder / "metadata" / "codes.parquet")
    return root / "events"


def thrown_together(source: str, rules: Rules, *, seed: int) -> pl.DataFrame:
    """Patients with visits whose codes are drawn from all that the made-up patients have, fitting together or not."""
    rng = numpy_stream(seed, source)
    events = codes_of(source)
    rows: list[dict] = []
    for subject in range(1, 9):
        visits = drawn_visits(subject, rng=rng)
        age = timedelta(days=int(rng.integers(20, 90)) * 365.25 + 0.5)
        birth = (visits[-1].start - age).replace(hour=0, minute=0)
        rows.append({"subject_id": subject, "time": birth, "code": BIRTH})
        for event in events:
            rule = rule_of(event["code"], rules)
            if rule.static and rng.random() < 0.4:
                rows.append({"subject_id": subject, "code": event["code"]})
        for visit in visits:
            rows += happenings(visit, events, rules=rules, rng=rng)
    return pl.DataFrame(rows, schema=EVENT_SCHEMA).sort(list(EVENT_SCHEMA), nulls_last=False)


def codes_of(source: str) -> list[dict]:
    """Every code that the made-up patients have, with a value and its unit."""
    known = pl.read_csv(MADE_UP / SOURCES[source] / "expected.csv", schema=EVENT_SCHEMA)
    return known.select("code", "numeric_value", "unit").unique("code").sort("code").rows(named=True)


def drawn_visits(subject: int, *, rng: np.random.Generator) -> list[Visit]:
    """One to three visits of some days, a day apart, as extraction lays them where there is no calendar."""
    begin, visits = datetime(2000, 1, 1), []
    for number in range(int(rng.integers(1, 4))):
        end = begin + timedelta(days=int(rng.integers(1, 9)))
        visits.append(Visit(subject=subject, number=10 * subject + number, start=begin, end=end))
        begin = end + timedelta(days=1)
    return visits


def happenings(visit: Visit, events: list[dict], *, rules: Rules, rng: np.random.Generator) -> list[dict]:
    """One admission, one discharge, and some of the other codes, when their rules can tell them."""
    kinds = {kind: [event for event in events if event["code"].startswith(f"{kind}//")] for kind in EDGES}
    chosen = [options[int(rng.integers(len(options)))] for options in kinds.values()]
    chosen += [event for event in events if event["code"].split("//")[0] not in EDGES and rng.random() < 0.4]
    rows = []
    for event in chosen:
        rule, kind = rule_of(event["code"], rules), event["code"].split("//")[0]
        if not rule.static and kind not in {BIRTH, "MEDS_DEATH", "DEATH"}:
            edge = EDGES.get(kind, rule.at)
            time = getattr(visit, edge) if edge else visit.start + timedelta(minutes=int(rng.integers(1, 600)))
            rows.append({"subject_id": visit.subject, "visit_id": visit.number, "time": time, **event})
    return rows


def rule_of(code: str, rules: Rules) -> EventRule:
    return next(rule for table in rules.tables if (rule := table.rule_of(code)) is not None)


def possible_patients(source: str, rules: Rules, *, attribute: str, number: int, seed: int) -> pl.DataFrame:
    """Patients for a cohort: of one sex and one group each, some of whom die in the hospital or are readmitted."""
    rng = numpy_stream(seed, source)
    events = codes_of(source)
    told_otherwise = (f"{attribute}//", "GENDER//", "READMISSION//", "HOSPICE", "MEDS_", "DEATH//")
    free = [event for event in events if not event["code"].startswith(told_otherwise)]
    groups, readmissions = (
        [event["code"] for event in events if event["code"].startswith(f"{kind}//")]
        for kind in (attribute, "READMISSION")
    )
    rows: list[dict] = []
    for subject in range(1, number + 1):
        visits = drawn_visits(subject, rng=rng)
        age = timedelta(days=int(rng.integers(30, 90)) * 365.25 + 0.5)
        group = groups[int(rng.integers(len(groups)))]
        once = rule_of(group, rules).static
        rows.append({"subject_id": subject, "time": (visits[-1].start - age).replace(hour=0, minute=0), "code": BIRTH})
        rows += [{"subject_id": subject, "code": code} for code in ("GENDER//" + "FM"[subject % 2], *([group] * once))]
        for visit in visits:
            rows += happenings(visit, free, rules=rules, rng=rng)
            place = {"subject_id": subject, "visit_id": visit.number}
            rows += [{**place, "time": visit.start, "code": group}] * (not once)
            if readmissions:
                code = readmissions[int(rng.integers(len(readmissions)))]
                rows.append({**place, "time": visit.end, "code": code})
        if not readmissions and rng.random() < 0.3:
            rows += [{**place, "time": visit.end, "code": code} for code in ("DEATH//HOSPITAL", "MEDS_DEATH")]
    return pl.DataFrame(rows, schema=EVENT_SCHEMA).sort(list(EVENT_SCHEMA), nulls_last=False)
