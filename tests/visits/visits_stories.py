"""A tiny events folder written by hand, and a plan to read it with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from fairsynth import artefacts
from fairsynth.config import StudyConfig, StudyPlan
from fairsynth.extraction.columns import EVENT_SCHEMA

Row = tuple[int, datetime | None, str, float | None, int | None, str | None]

START = datetime(2150, 1, 1, 8)
PARENTS = {
    "LAB//50912": ["LOINC/2160-0"],
    "LAB//50931": ["LOINC/2345-7"],
    "LAB//50800": [],
    "LAB//5032": ["LOINC/2160-0"],
    "DIAG//ICD10CN//I50.000": ["ICD10/I50.0"],
}
GROUPS = """schema: fairsynth.groups/1
attribute: ETHNICITY
rules:
  - {match: "^WHITE", group: white}
  - {match: "BLACK", group: black}
"""


@dataclass
class Story:
    """One patient, told in events."""

    subject: int
    sex: str = "F"
    ethnicity: str = "WHITE"
    born: datetime = datetime(2100, 1, 1)
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows += [self._row(self.born, "MEDS_BIRTH"), self._row(None, f"GENDER//{self.sex}")]

    def _row(self, time: datetime | None, code: str, visit: int | None = None) -> Row:
        return (self.subject, time, code, None, visit, None)

    def visit(
        self, number: int, *, day: float, days: float = 5, died: bool = False, codes: Iterable[str] = ()
    ) -> Story:
        """A visit that starts `day` days after START; `codes` are dated at its discharge."""
        visit = self.subject * 100 + number
        begin, end = START + timedelta(days=day), START + timedelta(days=day + days)
        self.rows += [
            self._row(begin, "ADMISSION//EMERGENCY", visit),
            self._row(begin, f"ETHNICITY//{self.ethnicity}", visit),
            self._row(end, "DISCHARGE//DEAD/EXPIRED" if died else "DISCHARGE//HOME", visit),
            *([self._row(end, "DEATH//HOSPITAL", visit)] if died else []),
            *(self._row(end, code, visit) for code in codes),
        ]
        return self

    def event(
        self, number: int, code: str, *, day: float, value: float | None = None, unit: str | None = None
    ) -> Story:
        """An event of visit `number`, `day` days after START."""
        row = (self.subject, START + timedelta(days=day), code, value, self.subject * 100 + number, unit)
        self.rows.append(row)
        return self


def write_events(
    root: Path,
    rows: Iterable[Row],
    *,
    parents: Mapping[str, list[str]] = PARENTS,
    shards: int = 1,
    calendar: str = "real",
) -> Path:
    """`root/events` as extraction writes it: whole patients in each of `shards` files."""
    frame = pl.DataFrame(list(rows), schema=EVENT_SCHEMA, orient="row", strict=False)
    frame = frame.sort("subject_id", "time", nulls_last=False, maintain_order=True)
    codes = sorted(set(frame["code"]))
    metadata = pl.DataFrame(
        {"code": codes, "description": [""] * len(codes), "parent_codes": [parents.get(code, []) for code in codes]},
        schema={"code": pl.String, "description": pl.String, "parent_codes": pl.List(pl.String)},
    )
    with artefacts.new(root, kind="events", inputs={}, facts={"calendar": calendar}) as folder:
        for name in ("data", "metadata"):
            (folder / name).mkdir()
        shard = (pl.col("subject_id").rank("dense") - 1) * shards // frame["subject_id"].n_unique()
        for number in range(shards):
            frame.filter(shard == number).write_parquet(folder / "data" / f"{number}.parquet")
        metadata.write_parquet(folder / "metadata" / "codes.parquet")
        artefacts.write_json(folder / "metadata" / "dataset.json", {"dataset_name": "story"})
        artefacts.write_json(folder / "flow.json", {})
    return root


def study_plan(**changes: Any) -> StudyPlan:
    """A plan of one site; `changes` replace top-level keys of the study file."""
    study: dict[str, Any] = {
        "schema": "fairsynth.study/1",
        "name": "story",
        "seed": 5,
        "sites": [{"site": "a", "config": "a", "data": "a"}],
        "groups": {"names": ["white", "black", "asian"], "reference": ["white"]},
        "vocabulary": {"minimum_patients": 1},
    }
    return StudyConfig.model_validate(study | changes).plan()
