"""The same for a source unlike MIMIC-III: stays tell patients, offsets instead of dates, ages, text identifiers, other
text; and for a MEDS data set."""

import json
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from extraction_offsets import LABS, OFFSET_RULES, OFFSET_TABLES, SITE, STAYS

from fairsynth.errors import ExtractionError
from fairsynth.extraction import check_tables, extract


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    (folder / "site.yaml").write_text(SITE, encoding="utf-8")
    (folder / "rules.yaml").write_text(OFFSET_RULES, encoding="utf-8")
    return folder


def place(data: Path, **tables: str | bytes) -> Path:
    data.mkdir()
    for name, content in (OFFSET_TABLES | tables).items():
        (data / f"{name}.csv").write_bytes(content.encode("gb18030") if isinstance(content, str) else content)
    return data


def test_the_untouched_tables_give_offsets_ages_and_chinese_codes(config, tmp_path):
    out = extract(place(tmp_path / "data"), config=config, root=tmp_path / "site")
    flow = json.loads((out / "flow.json").read_text())
    events = pl.read_parquet(out / "data")
    assert (flow["patients"], flow["visits"], flow["STAY: rows left out, left out by rule"]) == (2, 3, 1)
    glucose = events.filter(pl.col("code") == "LAB//血糖")["time"].to_list()
    assert glucose == [datetime(1999, 12, 31, 23, 45), datetime(2000, 1, 2, 10, 30)]  # 1 day after 10 hours
    assert events.filter(pl.col("code") == "REGISTERED")["time"].to_list() == [datetime(1950, 3, 1)]
    assert events.filter(pl.col("code") == "GENDER//女").height == 1  # told by two stays


REFUSED = {
    "an offset in words": ("LAB", "-15", "before", ("LAB.csv  MINUTE  line 2", "a number of minutes")),
    "an offset beyond a life": ("LAB", "-15", "-1e30", ("LAB.csv  MINUTE  line 2",)),
    "an offset that is no number": ("LAB", "-15", "nan", ("LAB.csv  MINUTE  line 2",)),
    "a stay without its end": ("STAY", ";90.5;", ";?;", ("STAY.csv  LEFT  line 3", "visits without a time")),
    "an order in words": ("STAY", "s-2;2;", "s-2;second;", ("STAY.csv  NUMBER  line 3", "a finite number")),
    "an age in words": ("STAY", ";64;", ";sixty;", ("STAY.csv  AGE  line 2", "`cells` of the rule")),
    "a negative age": ("STAY", ";64;", ";-1;", ("STAY.csv  AGE  line 2", "from 0 to 150 years")),
    "an age beyond a life": ("STAY", ";64;", ";1e300;", ("STAY.csv  AGE  line 2",)),
    "a month in words": (
        "STAY",
        ";1950;3;",
        ";1950;March;",
        ("STAY.csv  BORN  line 2", "BORN, MONTH that make a date"),
    ),
    "a thirteenth month": ("STAY", ";1950;3;", ";1950;13;", ("STAY.csv  BORN  line 2",)),
    "a year beyond any": ("STAY", ";1950;3;", ";1e30;3;", ("STAY.csv  BORN  line 2",)),
    "a patient without a name": ("STAY", "p2;", "?;", ("STAY.csv  WHO  line 4", "identifiers missing")),
    "a header again": ("LAB", "s-2;", LABS.split("\n")[0] + "\ns-2;", ("LAB.csv  STAY  line 3", "identifiers")),
    "a stay twice": ("STAY", "p2;s-3", "p2;s-2", ("STAY.csv  STAY  lines 3, 4", "remove the repeated rows")),
    "a result of no stay": ("LAB", "s-3", "s-9", ("LAB.csv: 1", "maximum_dropped_share")),
    "commas": ("LAB", ";", ",", ("separated by commas", "LAB.csv:1")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_is_told_with_file_line_and_column(name, config, tmp_path):
    table, old, new, told = REFUSED[name]
    assert old in OFFSET_TABLES[table]
    data = place(tmp_path / "data", **{table: OFFSET_TABLES[table].replace(old, new)})
    with pytest.raises(ExtractionError) as caught:
        extract(data, config=config, root=tmp_path / "site")
    text = str(caught.value).replace(str(tmp_path), "")
    assert [fragment for fragment in told if fragment not in text] == [], text
    assert [cell for cell in ("p1", "s-1", "s-3", "血糖", "1440", "1e30", "sixty", "before") if cell in text] == []
    assert list((tmp_path / "site").iterdir()) == []


def test_bytes_that_are_not_of_the_named_encoding_are_told(config, tmp_path):
    data = place(tmp_path / "data", LAB=LABS.replace("钾", "K?").encode("gb18030").replace(b"K?", b"K\xff"))
    with pytest.raises(ExtractionError, match=r"not GB18030: .*LAB\.csv  NAME  line 4"):
        extract(data, config=config, root=tmp_path / "site")


def test_a_repeated_header_is_no_patient_where_such_rows_are_tolerated(config, tmp_path):
    lenient = tmp_path / "config"
    lenient.mkdir()
    (lenient / "site.yaml").write_text(f"{SITE}maximum_unreadable_share: 0.5\n", encoding="utf-8")
    (lenient / "rules.yaml").write_text(OFFSET_RULES, encoding="utf-8")
    header = STAYS.split("\n")[0].replace("KIND", "ward")
    report = check_tables(place(tmp_path / "data", STAY=f"{STAYS}{header}\n"), config=lenient)
    assert report.patients == 2
    assert report.tables[0].left_out == {"left out by rule": 1, "unreadable": 1}


def test_rows_of_stays_that_the_rules_leave_out_are_left_out_by_rule_too(config, tmp_path):
    report = check_tables(place(tmp_path / "data", LAB=LABS.replace("s-3", "s-4")), config=config)
    assert report.tables[1].left_out == {"left out by rule": 1}


# --- MEDS ------------------------------------------------------------------------------------------------------------

MEDS = {
    "subject_id": [1, 1, 1, 2],
    "time": [None, datetime(2020, 1, 1), datetime(2020, 1, 3), datetime(2021, 1, 1)],
    "code": ["GENDER//F", "ADMISSION//X", "DISCHARGE//HOME", "ADMISSION//X"],
    "numeric_value": [None, None, None, None],
}


@pytest.fixture
def meds(tmp_path):
    """A function that writes a MEDS data set with columns replaced, and gives its folder and configuration."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "site.yaml").write_text(f"{SITE}layout: meds\n", encoding="utf-8")
    (config / "rules.yaml").write_text("schema: fairsynth.meds/1\nvisit: visit_id\n", encoding="utf-8")

    def make(**columns) -> tuple[Path, Path]:
        shard = tmp_path / "data" / "data" / "0.parquet"
        shard.parent.mkdir(parents=True)
        frame = pl.DataFrame(MEDS | columns, schema_overrides={"time": pl.Datetime("us"), "numeric_value": pl.Float32})
        frame.write_parquet(shard)
        return tmp_path / "data", config

    return make


CHANGES = {
    "numbers as text": ({"numeric_value": pl.lit("1")}, "0.parquet  numeric_value\n  expected a number"),
    "visits as text": ({"visit_id": pl.lit("v")}, "0.parquet  visit_id\n  expected int64"),
    "visits beyond int64": ({"visit_id": pl.lit(2**64 - 1, dtype=pl.UInt64)}, "column of type uint64"),
    "lists of codes": ({"code": pl.concat_list("code")}, "0.parquet  code\n  expected string"),
    "days for times": ({"time": pl.col("time").cast(pl.Date)}, "0.parquet  time\n  expected timestamp[us]"),
    "a patient missing": ({"subject_id": pl.lit(None, pl.Int64)}, "0.parquet  subject_id  rows 1, 2, 3, 4"),
    "a code of nothing": ({"code": pl.lit("")}, "0.parquet  code  rows 1, 2, 3, 4"),
    "a code too long": ({"code": pl.lit("x" * 501)}, "0.parquet  code  rows 1, 2, 3, 4"),
    "the year 9999": ({"time": pl.lit(datetime(9999, 12, 31))}, "0.parquet  time  rows 1, 2, 3, 4"),
    "a number beyond float32": ({"numeric_value": pl.lit(1e300)}, "0.parquet  numeric_value  rows 1, 2, 3, 4"),
    "an infinite number": ({"numeric_value": pl.lit(float("inf"))}, "0.parquet  numeric_value  rows 1, 2, 3, 4"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_fault_of_a_meds_data_set_is_told_by_file_and_column(meds, tmp_path, name):
    data, config = meds()
    columns, told = CHANGES[name]
    shard = data / "data" / "0.parquet"
    pl.read_parquet(shard).with_columns(**columns).write_parquet(shard)
    with pytest.raises(ExtractionError) as caught:
        extract(data, config=config, root=tmp_path / "site")
    assert told in str(caught.value)
    assert list((tmp_path / "site").iterdir()) == []


@pytest.mark.parametrize("change", ["truncated", "text"])
def test_a_damaged_meds_file_is_told(meds, tmp_path, change):
    data, config = meds()
    shard = data / "data" / "0.parquet"
    shard.write_bytes(shard.read_bytes()[:-20] if change == "truncated" else b"subject_id,time,code\n")
    with pytest.raises(ExtractionError, match=r"damaged file: .*0\.parquet"):
        extract(data, config=config, root=tmp_path / "site")


def test_a_dictionary_that_is_not_medss_is_told(meds, tmp_path):
    data, config = meds()
    (data / "metadata").mkdir()
    pl.DataFrame({"code": ["A"], "parent_codes": ["B"]}).write_parquet(data / "metadata" / "codes.parquet")
    with pytest.raises(ExtractionError, match=r"codes\.parquet  parent_codes\n  expected list<string>"):
        extract(data, config=config, root=tmp_path / "site")


def test_meds_numbers_that_are_nan_are_missing_and_every_row_and_patient_is_accounted_for(meds, tmp_path):
    data, config = meds(numeric_value=[float("nan"), 1.5, None, None])
    out = extract(data, config=config, root=tmp_path / "site")
    flow = json.loads((out / "flow.json").read_text())
    events = pl.read_parquet(out / "data")
    assert flow["MEDS: rows"] == flow["MEDS: rows kept"] == flow["events"] == 4
    assert events["subject_id"].n_unique() == flow["patients"] == 2
    assert events["numeric_value"].drop_nulls().to_list() == [1.5]
