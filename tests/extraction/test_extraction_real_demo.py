"""The real MIMIC-III demo, counted against an independent reading of its files."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from meds import DataSchema

from fairsynth.extraction import check_tables, extract

DEMO = Path(__file__).resolve().parents[3] / "shared" / "data" / "mimic-iii-demo"
pytestmark = pytest.mark.skipif(not DEMO.is_dir(), reason="needs shared/data/mimic-iii-demo")
CONFIG = Path(__file__).resolve().parents[2] / "site_configs" / "mimic3"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return extract(DEMO, config=CONFIG, root=tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def events(out):
    return pl.read_parquet(out / "data" / "0.parquet")


def rows(table):
    with gzip.open(DEMO / f"{table}.csv.gz", "rt", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def starts(events, kind):
    return events.filter(pl.col("code").str.starts_with(kind))


def test_the_demo_has_its_known_size(events):
    assert events["subject_id"].n_unique() == 100
    assert starts(events, "ADMISSION//").height == events["visit_id"].drop_nulls().n_unique() == 129
    assert starts(events, "DIAG//ICD9CM//").height == 1761
    assert starts(events, "PROC//ICD9PROC//").height == 506
    assert starts(events, "DEATH//HOSPITAL").height == 40
    assert starts(events, "UNIT//").height == 136
    assert starts(events, "DRUG//").height == 10398
    assert starts(events, "LAB//").height == 76074
    assert starts(events, "DIAG//")["code"].n_unique() == 581
    assert starts(events, "GENDER//")["code"].value_counts().sort("code").rows() == [
        ("GENDER//F", 55),
        ("GENDER//M", 45),
    ]


def test_18_7_percent_of_lab_rows_name_no_visit_and_none_of_them_lies_in_one(out):
    flow = json.loads((out / "flow.json").read_text())
    without = flow["LABEVENTS: events that name no visit"]
    assert without == 14262
    assert without / flow["LABEVENTS: rows"] == pytest.approx(0.187, abs=5e-4)
    stays = [(row["subject_id"], row["admittime"], row["dischtime"]) for row in rows("ADMISSIONS")]
    inside = sum(
        any(who == row["subject_id"] and start <= row["charttime"] <= end for who, start, end in stays)
        for row in rows("LABEVENTS")
        if not row["hadm_id"]
    )
    assert flow["LABEVENTS: of these, in a visit by their time"] == inside


def test_lab_events_are_the_rows_of_the_file(events):
    expected = Counter(
        (
            row["subject_id"],
            row["charttime"],
            row["itemid"],
            float(np.float32(float(row["valuenum"]))) if row["valuenum"] else None,
            row["valueuom"] or None,
        )
        for row in rows("LABEVENTS")
    )
    labs = starts(events, "LAB//").select(
        pl.col("subject_id").cast(pl.String),
        pl.col("time").dt.to_string("%Y-%m-%d %H:%M:%S"),
        pl.col("code").str.strip_prefix("LAB//"),
        "numeric_value",
        "unit",
    )
    assert Counter(labs.rows()) == expected


def test_diagnoses_stand_at_the_end_of_their_visit(events):
    end = {row["hadm_id"]: row["dischtime"] for row in rows("ADMISSIONS")}
    expected = Counter((row["hadm_id"], row["icd9_code"], end[row["hadm_id"]]) for row in rows("DIAGNOSES_ICD"))
    found = starts(events, "DIAG//").select(
        pl.col("visit_id").cast(pl.String),
        pl.col("code").str.strip_prefix("DIAG//ICD9CM//"),
        pl.col("time").dt.to_string("%Y-%m-%d %H:%M:%S"),
    )
    assert Counter(found.rows()) == expected


def test_the_demo_gives_valid_meds(out):
    DataSchema.validate(pq.read_table(out / "data" / "0.parquet"))


def test_the_report_on_the_demo_has_no_losses():
    report = check_tables(DEMO, config=CONFIG)
    assert (report.patients, report.visits, report.visits_ending_before_they_start) == (100, 129, 0)
    assert sum(table.rows_of_unknown_visits + table.rows_of_unknown_patients for table in report.tables) == 0
    shares = {table.table: table.share_with_visit for table in report.tables}
    assert shares["LABEVENTS"] == pytest.approx(1 - 0.187, abs=5e-4)
    assert shares["DIAGNOSES_ICD"] == 1
