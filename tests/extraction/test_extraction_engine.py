"""Tables become MEDS events, by content and nothing else."""

import csv
import gzip
import json
from datetime import datetime

import polars as pl
import pyarrow.parquet as pq
import pytest
from meds import CodeMetadataSchema, DataSchema, DatasetMetadataSchema

from fairsynth.artefacts import MANIFEST
from fairsynth.extraction import check_tables, extract
from fairsynth.extraction.columns import EVENT_SCHEMA
from fairsynth.extraction.rules import read_rules


@pytest.fixture
def events(make_data, mimic3, tmp_path):
    """The events of (changed) tiny tables, and the folder they are in."""

    def run(folder="data", **changed):
        out = extract(make_data(folder, **changed), config=mimic3, root=tmp_path / f"{folder}-site")
        return pl.read_parquet(out / "data" / "0.parquet"), out

    return run


def test_events_are_valid_meds_with_two_columns_more(events):
    frame, out = events()
    table = pq.read_table(out / "data" / "0.parquet")
    DataSchema.validate(table)
    CodeMetadataSchema.validate(pq.read_table(out / "metadata" / "codes.parquet"))
    DatasetMetadataSchema.validate(json.loads((out / "metadata" / "dataset.json").read_text()))
    assert dict(frame.schema) == EVENT_SCHEMA
    assert frame["code"].null_count() == frame["subject_id"].null_count() == 0


def test_each_patient_is_told_in_order_of_time_with_static_events_first(events):
    frame, _ = events()
    assert frame["subject_id"].is_sorted()
    for (_,), own in frame.group_by("subject_id"):
        assert own["time"].is_sorted(nulls_last=False)
        assert own["code"][0].startswith("GENDER//")


def test_every_code_that_occurs_is_described_once(events):
    frame, out = events()
    codes = pl.read_parquet(out / "metadata" / "codes.parquet")
    assert codes["code"].to_list() == sorted(set(frame["code"]))
    described = {code: (text, parents) for code, text, parents in codes.rows()}
    assert described["LAB//50912"] == ("Creatinine", ["LOINC/2160-0"])
    assert described["DIAG//ICD9CM//0389"] == ("Septicemia, unspecified", [])
    assert described["DIAG//ICD9CM//V4581"] == (None, [])  # not in the dictionary


def test_a_lab_result_without_a_visit_is_attached_by_its_time_and_both_are_counted(events):
    frame, out = events()
    labs = frame.filter(pl.col("code") == "LAB//50912").sort("time")
    assert labs["visit_id"].to_list() == [7001, 7001, None]
    flow = json.loads((out / "flow.json").read_text())
    assert flow["LABEVENTS: events that name no visit"] == 2
    assert flow["LABEVENTS: of these, in a visit by their time"] == 1
    assert flow["events outside any visit"] == 1


@pytest.mark.parametrize(
    ("time", "visit"),
    [
        ("2150-01-01 08:00:00", 7001),  # at admission
        ("2150-01-04 12:00:00", 7001),  # at discharge
        ("2150-01-01 07:59:59", None),
        ("2150-01-04 12:00:01", None),
        ("2151-06-11 00:00:00", 7002),
        ("2160-02-02 00:00:00", None),  # inside another patient's visit
    ],
)
def test_a_time_belongs_to_a_visit_from_admission_to_discharge(events, tiny_tables, time, visit):
    text = tiny_tables["LABEVENTS"].replace("2150-12-31 09:00:00", time).replace("50912,2150-01-02", "1,2150-01-02")
    frame, _ = events(LABEVENTS=text)
    own = frame.filter((pl.col("code") == "LAB//50912") & (pl.col("time") == datetime.fromisoformat(time)))
    assert own["visit_id"].to_list() == [visit]


def test_the_birth_of_a_patient_over_89_stays_as_the_source_has_it(events):
    frame, _ = events()
    birth = frame.filter((pl.col("subject_id") == 103) & (pl.col("code") == "MEDS_BIRTH"))
    assert birth["time"].to_list() == [datetime(1860, 2, 1)]


def test_a_visit_that_ends_before_it_starts_is_kept_and_counted(events, tiny_tables, make_data, mimic3):
    text = tiny_tables["ADMISSIONS"].replace("2151-06-12 09:00:00", "2151-06-10 09:00:00")
    frame, out = events(ADMISSIONS=text)
    assert json.loads((out / "flow.json").read_text())["visits that end before they start (kept)"] == 1
    assert 7002 in frame["visit_id"].to_list()
    assert check_tables(make_data("again", ADMISSIONS=text), config=mimic3).visits_ending_before_they_start == 1


def test_rows_without_a_code_or_a_time_are_counted_not_lost_in_silence(events, tiny_tables):
    _, out = events(
        DIAGNOSES_ICD=tiny_tables["DIAGNOSES_ICD"].replace(",4280", ","),
        PRESCRIPTIONS=tiny_tables["PRESCRIPTIONS"].replace("2150-01-01 00:00:00", ""),
    )
    flow = json.loads((out / "flow.json").read_text())
    assert flow["DIAGNOSES_ICD: events missed for want of a code"] == 1
    assert flow["DIAGNOSES_ICD: rows left out, gives no event"] == 1
    assert flow["PRESCRIPTIONS: events missed for want of a time"] == 1
    assert flow["PRESCRIPTIONS: events"] == 0


def test_a_row_of_an_unknown_visit_is_left_out_and_counted_where_the_site_allows_it(
    make_data, mimic3, tiny_tables, tmp_path
):
    config = tmp_path / "config"
    config.mkdir()
    site = (
        (mimic3 / "site.yaml")
        .read_text(encoding="utf-8")
        .replace("maximum_dropped_share: 0.01", "maximum_dropped_share: 0.2")
    )
    (config / "site.yaml").write_text(site, encoding="utf-8")
    (config / "rules.yaml").write_bytes((mimic3 / "rules.yaml").read_bytes())
    data = make_data(DIAGNOSES_ICD=tiny_tables["DIAGNOSES_ICD"].replace("7002", "7003") + "888,7001,1,1\n")
    out = extract(data, config=config, root=tmp_path / "site")
    flow = json.loads((out / "flow.json").read_text())
    assert flow["DIAGNOSES_ICD: rows left out, unknown visit"] == 1
    assert flow["DIAGNOSES_ICD: rows left out, unknown patient"] == 1
    assert flow["DIAGNOSES_ICD: events"] == 3


def test_the_flow_is_in_the_order_of_the_steps(events):
    _, out = events()
    steps = list(json.loads((out / "flow.json").read_text()))
    assert steps[:3] == ["patients", "visits", "visits that end before they start (kept)"]
    assert steps[-2:] == ["events", "events outside any visit"]


def test_files_in_any_case_compressed_or_parquet_give_the_same_events(make_data, mimic3, tmp_path, tiny_tables):
    def content(data, name):
        out = extract(data, config=mimic3, root=tmp_path / name)
        return json.loads((out / MANIFEST).read_text())["content"]

    plain = content(make_data("plain"), "a")
    lower = tmp_path / "lower"
    lower.mkdir()
    for name, text in tiny_tables.items():
        header, body = text.split("\n", 1)
        packed = gzip.compress(("\ufeff" + header.lower() + "\n" + body).replace("\n", "\r\n").encode())
        (lower / f"{name.lower()}.csv.gz").write_bytes(packed)
    assert content(lower, "b") == plain
    parquet = make_data("parquet", LABEVENTS=None)
    labs = pl.read_csv((tmp_path / "plain" / "LABEVENTS.csv"), try_parse_dates=True)
    assert labs["CHARTTIME"].dtype == pl.Datetime("us")
    labs.write_parquet(parquet / "LabEvents.parquet")
    assert content(parquet, "c") == plain


def test_the_order_of_rows_in_the_files_does_not_matter(events, tiny_tables):
    turned = {}
    for name, text in tiny_tables.items():
        header, *rows = text.splitlines()
        turned[name] = "\n".join([header, *reversed(rows)]) + "\n"
    assert events("turned", **turned)[0].equals(events()[0])


def test_blank_lines_change_nothing(events, tiny_tables):
    text = tiny_tables["LABEVENTS"].replace("101,,50912,2150-01-02", "\n101,,50912,2150-01-02") + "\n\n"
    assert events("blank", LABEVENTS=text)[0].equals(events()[0])


def test_a_finished_artefact_is_kept_while_its_inputs_are_unchanged(make_data, mimic3, tmp_path):
    data, root = make_data(), tmp_path / "site"
    first = (extract(data, config=mimic3, root=root) / MANIFEST).stat().st_mtime_ns
    assert (extract(data, config=mimic3, root=root) / MANIFEST).stat().st_mtime_ns == first


@pytest.mark.parametrize("what", ["table", "artefact"])
def test_a_changed_table_or_an_altered_artefact_is_extracted_again(make_data, mimic3, tmp_path, what):
    data, root = make_data(), tmp_path / "site"
    out = extract(data, config=mimic3, root=root)
    if what == "table":
        labs = data / "LABEVENTS.csv"
        labs.write_text(labs.read_text().replace("240", "250"))
    else:
        (out / "flow.json").write_text("{}")
    frame = pl.read_parquet(extract(data, config=mimic3, root=root) / "data" / "0.parquet")
    glucose = frame.filter(pl.col("code") == "LAB//50931")["numeric_value"].to_list()
    assert glucose == [250.0 if what == "table" else 240.0]
    assert json.loads((out / "flow.json").read_text())["patients"] == 3


def test_the_manifest_names_the_hash_of_every_input(events):
    _, out = events()
    manifest = json.loads((out / MANIFEST).read_text())
    assert {"PATIENTS", "D_LABITEMS", "rules.yaml", "site.yaml", "data"} <= manifest["inputs"].keys()
    assert manifest["facts"]["patients"] == 3
    assert manifest["facts"]["data_sha256"] == manifest["inputs"]["data"]


def test_the_report_on_tables_gives_rows_years_and_the_share_with_a_visit(make_data, mimic3):
    report = check_tables(make_data(), config=mimic3)
    labs = next(table for table in report.tables if table.table == "LABEVENTS")
    assert (report.source, report.patients, report.visits) == ("mimic3", 3, 4)
    assert (labs.rows, labs.first_year, labs.last_year, labs.share_with_visit) == (4, 2150, 2160, 0.5)
    assert report.rows["LABEVENTS"] == 4
    assert json.loads(report.model_dump_json())["tables"]


@pytest.mark.parametrize("table", ["PATIENTS", "ADMISSIONS", "ICUSTAYS", "DIAGNOSES_ICD", "PRESCRIPTIONS", "LABEVENTS"])
def test_the_rows_of_a_table_can_be_rebuilt_from_its_events(events, tiny_tables, mimic3, table):
    frame, _ = events()
    rules = read_rules(mimic3)
    rule = rules.table(table)
    header = tiny_tables[table].split("\n", 1)[0].split(",")
    rebuilt = {}
    for number, (subject, time, code, value, visit, unit) in enumerate(frame.rows()):
        texts = {
            "time": "" if time is None else rules.write_time(time),
            "value": "" if value is None else f"{value:g}",
            "unit": unit or "",
        }
        cells = rule.cells(code, **texts)
        if cells is not None:
            key = {"patient": subject, "visit": visit, "event": number}[rule.write.row]
            own = {"SUBJECT_ID": str(subject), "HADM_ID": "" if visit is None else str(visit)}
            rebuilt[key] = rule.write.constants | rebuilt.get(key, {}) | own | cells
    kept = [name for name in header if name != "SEQ_NUM"]
    rows = [tuple(row.get(name, "") for name in kept) for row in rebuilt.values()]
    text = tiny_tables[table]
    if table == "LABEVENTS":  # one row was attached to the visit that its time falls in
        text = text.replace("101,,50912,2150-01-02", "101,7001,50912,2150-01-02")
    expected = [tuple(row[name] for name in kept) for row in csv.DictReader(text.splitlines())]
    assert sorted(rows) == sorted(expected)
