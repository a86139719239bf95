"""A MEDS data set is a source: one that we wrote gives the same events, another's codes become ours."""

import json
from datetime import datetime
from pathlib import Path

import meds
import polars as pl
import pyarrow.parquet as pq
import pytest

from fairsynth.errors import ExtractionError
from fairsynth.extraction import check_tables, extract
from fairsynth.extraction.meds_rules import CodeRule

CONFIG = Path(__file__).resolve().parents[2] / "site_configs" / "meds"
DAY = datetime(2150, 1, 1)


def _rows(*rows):
    schema = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _write(folder, frame, *, name="train/0.parquet"):
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return folder


def _events(folder):
    return pl.read_parquet(folder / "data" / "*.parquet")


# As MIMIC_IV_MEDS writes it, without a visit column.
OTHERS = _rows(
    (7, None, "GENDER//F", None),
    (7, None, "RACE//WHITE - RUSSIAN", None),
    (7, datetime(2090, 1, 1), "MEDS_BIRTH", None),
    (7, datetime(2150, 1, 1, 8), "HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM", None),
    (7, datetime(2150, 1, 1, 9), "LAB//50912//mg/dL", 1.5),
    (7, datetime(2150, 1, 2, 9), "MEDICATION//START//Heparin", None),
    (7, datetime(2150, 1, 2, 12), "MEDICATION//STOP//Heparin", None),
    (7, datetime(2150, 1, 3, 8), "DIAGNOSIS//ICD//10//I5020", None),
    (7, datetime(2150, 1, 3, 8), "HOSPITAL_DISCHARGE//HOME", None),
    (7, datetime(2150, 6, 1, 8), "LAB//50912//mg/dL", 1.1),
    (7, datetime(2151, 1, 1, 8), "HOSPITAL_ADMISSION//URGENT//CLINIC", None),
    (7, datetime(2151, 1, 9, 8), "HOSPITAL_DISCHARGE//DIED", None),
    (7, datetime(2151, 1, 9, 8), "MEDS_DEATH", None),
)


def test_our_own_events_come_back_as_they_were(make_data, mimic3, tmp_path):
    ours = extract(make_data(), config=mimic3, root=tmp_path / "a")
    again = extract(ours, config=CONFIG, root=tmp_path / "b")
    assert _events(again).equals(_events(ours))
    codes = pq.read_table(ours / "metadata" / "codes.parquet")
    assert pq.read_table(again / "metadata" / "codes.parquet").equals(codes)


def test_anothers_codes_become_ours_and_visits_are_told_by_them(tmp_path):
    out = extract(_write(tmp_path / "data", OTHERS), config=CONFIG, root=tmp_path / "site")
    table = pq.read_table(out / "data" / "0.parquet")
    meds.DataSchema.validate(table.select(["subject_id", "time", "code", "numeric_value"]))
    found = _events(out).select("time", "code", "visit_id", "unit", "numeric_value").rows()
    assert found == [
        (None, "ETHNICITY//WHITE - RUSSIAN", None, None, None),
        (None, "GENDER//F", None, None, None),
        (datetime(2090, 1, 1), "MEDS_BIRTH", None, None, None),
        (datetime(2150, 1, 1, 8), "ADMISSION//EW EMER.", 1, None, None),
        (datetime(2150, 1, 1, 9), "LAB//50912", 1, "mg/dL", 1.5),
        (datetime(2150, 1, 2, 9), "DRUG//Heparin", 1, None, None),
        (datetime(2150, 1, 3, 8), "DIAG//ICD10CM//I5020", 1, None, None),
        (datetime(2150, 1, 3, 8), "DISCHARGE//HOME", 1, None, None),
        (datetime(2150, 6, 1, 8), "LAB//50912", None, "mg/dL", pytest.approx(1.1)),
        (datetime(2151, 1, 1, 8), "ADMISSION//URGENT", 2, None, None),
        (datetime(2151, 1, 9, 8), "DEATH//HOSPITAL", 2, None, None),
        (datetime(2151, 1, 9, 8), "DISCHARGE//DIED", 2, None, None),
        (datetime(2151, 1, 9, 8), "MEDS_DEATH", 2, None, None),
    ]


def test_every_row_is_accounted_for(tmp_path):
    lost = OTHERS.with_columns(subject_id=pl.when(pl.col("code") == "GENDER//F").then(None).otherwise("subject_id"))
    config = tmp_path / "config"
    config.mkdir()
    for file in CONFIG.iterdir():
        text = file.read_text(encoding="utf-8")
        (config / file.name).write_text(text + ("maximum_unreadable_share: 0.1\n" if file.name == "site.yaml" else ""))
    report = check_tables(_write(tmp_path / "data", lost), config=config).tables[0]
    assert (report.rows, report.kept) == (13, 11)
    assert report.left_out == {"unreadable": 1, "left out by rule": 1}
    assert report.events == 12  # the last discharge tells a death too


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda frame: frame.drop("code"), "missing column code"),
        (lambda frame: frame.with_columns(pl.col("subject_id").cast(pl.String)), "subject_id"),
        (lambda frame: frame.with_columns(pl.col("time").dt.cast_time_unit("ns")), "timestamp[us]"),
        (lambda frame: frame.with_columns(subject_id=pl.lit(None, dtype=pl.Int64)), "subject_id  row"),
        (lambda frame: frame.filter(~pl.col("code").str.contains("HOSPITAL_ADMISSION")), "no visit found"),
        (lambda frame: frame.head(0), "empty data set"),
    ],
)
def test_what_is_not_meds_is_refused_and_nothing_is_written(tmp_path, change, told):
    data = _write(tmp_path / "data", change(OTHERS))
    with pytest.raises(ExtractionError) as refusal:
        extract(data, config=CONFIG, root=tmp_path / "site")
    assert told in str(refusal.value)
    assert not list((tmp_path / "site").iterdir())


def test_a_folder_without_data_and_a_damaged_file_are_told(tmp_path):
    with pytest.raises(ExtractionError, match="no MEDS data"):
        extract(tmp_path, config=CONFIG, root=tmp_path / "site")
    (_write(tmp_path / "data", OTHERS) / "data" / "train" / "1.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ExtractionError, match=r"damaged file.*1\.parquet"):
        extract(tmp_path / "data", config=CONFIG, root=tmp_path / "site")


def test_an_admission_without_a_discharge_before_the_next_is_no_visit(tmp_path):
    rows = _rows(
        (1, DAY, "HOSPITAL_ADMISSION//A", None),
        (1, datetime(2150, 2, 1), "HOSPITAL_ADMISSION//B", None),
        (1, datetime(2150, 2, 3), "HOSPITAL_DISCHARGE//HOME", None),
    )
    out = extract(_write(tmp_path / "data", rows), config=CONFIG, root=tmp_path / "site")
    assert _events(out).select("code", "visit_id").rows() == [
        ("ADMISSION//A", None),
        ("ADMISSION//B", 1),
        ("DISCHARGE//HOME", 1),
    ]
    flow = json.loads((out / "flow.json").read_text())
    assert flow["visits"] == 1


def test_groups_that_an_expression_does_not_have_are_refused():
    with pytest.raises(ValueError, match="groups of `match`"):
        CodeRule(match="LAB//(.*)", to="LAB//{2}")
    with pytest.raises(ValueError, match="regular expression"):
        CodeRule(match="LAB//(", to="LAB//{1}")
