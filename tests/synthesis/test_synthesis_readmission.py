"""A label of readmission as events: as a source without dates says it, as an admission where there are dates."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from decode_stories import MIMIC, make_plan

from fairsynth import artefacts
from fairsynth.extraction.columns import EVENT_SCHEMA
from fairsynth.schemas import SPLITS
from fairsynth.synthesis.decode import FIRST_ID, write_events
from fairsynth.visits.cohort import encode, load_cohort, prepare, shared_vocabulary
from fairsynth.visits.records import Records

PATIENTS = 40
PLAN = make_plan(MIMIC, task="readmission_30d")
GROUPS = "schema: fairsynth.groups/1\nrules:\n  - {match: WHITE, group: white}\n  - {match: BLACK, group: black}\n"


def write_site(root: Path, *, artificial: bool) -> Path:
    """Every fourth patient is readmitted: in a third visit where there are dates, else as the second visit says."""
    rows = []
    for patient in range(1, PATIENTS + 1):
        readmitted = patient % 4 == 0
        rows += [
            (patient, datetime(2050, 1, 1), "MEDS_BIRTH", None),
            (patient, None, f"GENDER//{'FM'[patient % 2]}", None),
        ]
        visits = [0, 200] + ([215] if readmitted and not artificial else [])
        for number, day in enumerate(visits):
            visit = 10 * patient + number
            start, end = (datetime(2110, 1, 1) + timedelta(days=day + length) for length in (0, 5))
            rows += [(patient, start, code, visit) for code in ("ADMISSION//EMERGENCY", "ETHNICITY//WHITE")]
            said = ["READMISSION//30D" if readmitted else "READMISSION//NONE"] if artificial and number == 1 else []
            died = number == 2
            ends = ["DISCHARGE//HOME", f"DIAG//ICD9CM//{'4280' if number else '5849'}", *said]
            rows += [(patient, end, code, visit) for code in [*ends, *(["DEATH//HOSPITAL"] if died else [])]]
    columns = [(*row[:3], None, row[3], None) for row in rows]
    frame = pl.DataFrame(columns, schema=EVENT_SCHEMA, orient="row").sort("subject_id", "time", nulls_last=False)
    codes = frame.select(pl.col("code").unique().sort()).with_columns(
        description=pl.lit(None, pl.String), parent_codes=pl.lit([], pl.List(pl.String))
    )
    facts = {"calendar": "artificial" if artificial else "real"}
    with artefacts.new(root, kind="events", inputs={}, facts=facts) as folder:
        (folder / "data").mkdir()
        (folder / "metadata").mkdir()
        frame.write_parquet(folder / "data" / "0.parquet")
        codes.write_parquet(folder / "metadata" / "codes.parquet")
    return root


def records_of(root: Path, *, vocabulary=None) -> tuple[Records, tuple[str, ...]]:
    """The records of a site in the order of its patients."""
    config = root.parent / "config"
    config.mkdir(exist_ok=True)
    (config / "site.yaml").write_text("schema: fairsynth.site/1\nsource: made-up\n", encoding="utf-8")
    (config / "groups.yaml").write_text(GROUPS, encoding="utf-8")
    proposal = prepare(root, config=config, plan=PLAN)
    encode(root, vocabulary=vocabulary or shared_vocabulary(proposal.codes, plan=PLAN), plan=PLAN)
    cohort = load_cohort(root)
    patients = pl.read_parquet(root / "visits" / "patients.parquet").sort("subject_id")
    order = np.concatenate([patients.filter(split=name)["subject_id"].to_numpy() for name in SPLITS])
    return Records.concatenate([getattr(cohort, name) for name in SPLITS]).take(np.argsort(order)), cohort.vocabulary


@pytest.fixture(params=[True, False], ids=["artificial calendar", "dates"])
def made(request, tmp_path):
    """Whether the calendar is artificial, the site's records and vocabulary, the folder of the synthetic events."""
    root = write_site(tmp_path / "site", artificial=request.param)
    records, vocabulary = records_of(root)
    assert records.label.sum() > 0
    write_events(records, root=root, out=tmp_path / "synthetic", seed=3)
    return request.param, records, vocabulary, tmp_path / "synthetic"


def test_a_synthetic_patient_who_is_readmitted_does_not_die_of_it(made):
    _, _, _, out = made
    codes = pl.read_parquet(out / "events" / "data" / "*.parquet")["code"]
    assert not codes.str.starts_with("MEDS_DEATH").any()
    assert not codes.str.starts_with("DEATH//").any()
    assert "LABEL" not in artefacts.read_manifest(out / "events", kind="events")["facts"]["undecodable"]


def test_the_label_is_said_as_the_source_says_it(made):
    artificial, records, _, out = made
    events = pl.read_parquet(out / "events" / "data" / "*.parquet")
    subject = FIRST_ID + np.arange(len(records))
    if artificial:
        said = events.filter(pl.col("code").str.starts_with("READMISSION//")).sort("subject_id")
        assert said["subject_id"].to_list() == subject.tolist()
        assert (said["code"] == "READMISSION//30D").cast(pl.Int64).to_list() == records.label.tolist()
        return
    starts = events.filter(pl.col("code").str.starts_with("ADMISSION//")).sort("subject_id", "time")
    ends = events.filter(pl.col("code").str.starts_with("DISCHARGE//")).sort("subject_id", "time")
    for row, number in enumerate(subject):
        admitted = starts.filter(subject_id=number)["time"].to_list()
        discharged = ends.filter(subject_id=number)["time"].to_list()
        visits = int(records.visit_counts[row])
        assert len(admitted) == visits + records.label[row]
        if records.label[row]:
            assert timedelta(0) < admitted[visits] - discharged[visits - 1] < timedelta(days=30)


@pytest.mark.parametrize("made", [True], indirect=True, ids=["artificial calendar"])
def test_without_dates_the_same_records_come_back(made):
    """With dates every visit is eligible, so that another one may be drawn as the index visit."""
    _, records, vocabulary, out = made
    again, _ = records_of(out, vocabulary=vocabulary)
    for name in ("codes", "visit_offsets", "patient_offsets", "label", "group", "context"):
        assert np.array_equal(getattr(again, name), getattr(records, name)), name
