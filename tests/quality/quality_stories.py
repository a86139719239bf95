"""A handful of people, told in events."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from fairsynth.extraction.columns import EVENT_SCHEMA

START = datetime(2150, 1, 1, 8)

Row = tuple[int, datetime | None, str, float | None, int | None, str | None]


def at(days: float) -> datetime:
    return START + timedelta(days=days)


def person(subject: int, *, sex: str = "F", race: str = "WHITE", born: datetime = datetime(2100, 1, 1)) -> list[Row]:
    """Birth, sex, and one visit of five days."""
    visit = subject * 10
    return [
        (subject, born, "MEDS_BIRTH", None, None, None),
        (subject, None, f"GENDER//{sex}", None, None, None),
        (subject, at(0), "ADMISSION//EMERGENCY", None, visit, None),
        (subject, at(0), f"ETHNICITY//{race}", None, visit, None),
        (subject, at(5), "DISCHARGE//HOME", None, visit, None),
    ]


def frame(rows: list[Row]) -> pl.LazyFrame:
    events = pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row", strict=False)
    return events.sort("subject_id", "time", nulls_last=False).lazy()
