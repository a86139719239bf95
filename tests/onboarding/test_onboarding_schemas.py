"""Schemas of other shapes: known ones, one table, another delimiter, two code systems, what cannot be told."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from fairsynth.config import SimulationConfig, read_site
from fairsynth.errors import ConfigError
from fairsynth.extraction import check_tables, read_rules
from fairsynth.onboarding import init_site
from fairsynth.simulate import simulate

ROOT = Path(__file__).resolve().parents[2]
DATES = [f"2021-{1 + n % 12:02}-{1 + n % 27:02}" for n in range(30)]
PEOPLE = [("pid", "gender", "dob", "race"), *((n + 500, "MF"[n % 2], f"19{50 + n}-05-01", "A") for n in range(30))]
VISITS = [
    ("encounter_id", "pid", "admit_date", "discharge_date", "died"),
    *((n + 9000, n + 500, DATES[n], f"2022-01-{1 + n % 27:02}", int(n % 9 == 0)) for n in range(30)),
]


@pytest.mark.parametrize("source", ["mimic3", "pic"])
def test_a_known_schema_is_recognised_and_guessed_well_enough_to_be_read(source, tmp_path):
    data = tmp_path / "data"
    simulate(SimulationConfig(source=source, patients=150, seed=1, mix="study", detail=0.02), data)
    outcome = init_site(data, out=tmp_path / "site", shipped=ROOT / "site_configs")
    assert source in {Path(path).name for path in outcome.looks_like}
    report = check_tables(data, config=tmp_path / "site")
    shipped = check_tables(data, config=ROOT / "site_configs" / source)
    assert report.rows == shipped.rows
    assert {table.table: table.kept for table in report.tables} == {table.table: table.kept for table in shipped.tables}
    guessed, written = read_rules(tmp_path / "site"), read_rules(ROOT / "site_configs" / source)
    assert [one.file for one in guessed.dictionaries] == [one.file for one in written.dictionaries]


def test_a_meds_data_set_and_a_source_of_several_sites_are_recognised(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rules = read_rules(ROOT / "site_configs" / "diabetes130" / "public")
    (data / "diabetic_data.csv").write_text(",".join(rules.tables[0].columns).lower() + "\n", encoding="utf-8")
    meds = {"subject_id": [1], "time": [None], "code": ["A"], "numeric_value": [1.0]}
    pl.DataFrame(meds).write_parquet(data / "0.parquet")
    outcome = init_site(data, out=tmp_path / "site", shipped=ROOT / "site_configs")
    names = {Path(path).relative_to(ROOT / "site_configs").as_posix() for path in outcome.looks_like}
    assert {"meds", "diabetes130/public", "diabetes130/medicare"} <= names
    assert "mimic3" not in names


def test_one_version_column_tells_two_code_systems_apart(tables, tmp_path):
    dx = [(9000 + n, ("4280", "I509")[n % 2], (9, 10)[n % 2]) for n in range(30)]
    data = tables(patients=PEOPLE, encounters=VISITS, diagnoses=[("encounter_id", "icd_code", "icd_version"), *dx])
    init_site(data, out=tmp_path / "site")
    events = read_rules(tmp_path / "site").table("DIAGNOSES").events
    assert {event.code: event.where for event in events} == {
        "DIAG//ICD9CM//{ICD_CODE}": {"ICD_VERSION": "9"},
        "DIAG//ICD10CM//{ICD_CODE}": {"ICD_VERSION": "10"},
    }
    assert check_tables(data, config=tmp_path / "site").visits == 30


def test_several_columns_of_diagnoses_in_the_visits_table_are_one_rule(tables, tmp_path):
    wide = [(*row, *(("diag_1", "diag_2") if n == 0 else ("I50.9", "E11.9"))) for n, row in enumerate(VISITS)]
    data = tables(patients=PEOPLE, encounters=wide)
    init_site(data, out=tmp_path / "site")
    diagnosis = next(e for e in read_rules(tmp_path / "site").table("ENCOUNTERS").events if e.code.startswith("DIAG"))
    assert (diagnosis.code, diagnosis.also) == ("DIAG//ICD10//{DIAG_1}", ("DIAG_2",))


def test_a_flag_of_death_becomes_the_outcome(tables, tmp_path):
    init_site(tables(patients=PEOPLE, encounters=VISITS), out=tmp_path / "site")
    death = next(e for e in read_rules(tmp_path / "site").table("ENCOUNTERS").events if e.code == "DEATH//HOSPITAL")
    assert (death.where, death.at) == ({"DIED": "1"}, "end")


def test_a_visits_table_alone_tells_patients_and_ages(tables, tmp_path):
    header = ("encounter_id", "patient_no", "admitted_on", "discharged_on", "age", "sex", "ethnicity", "died")
    rows = [
        (n + 9000, n // 2 + 70, DATES[n], f"2022-01-{1 + n % 27:02}", 40 + n, "MF"[n % 2], "A", 0) for n in range(30)
    ]
    data = tables(admissions=[header, *rows])
    init_site(data, out=tmp_path / "site")
    rules = read_rules(tmp_path / "site")
    assert rules.patients == rules.visits.table == "ADMISSIONS"
    birth = next(event for event in rules.table("ADMISSIONS").events if event.code == "MEDS_BIRTH")
    assert (birth.age.column, birth.age.unit) == ("AGE", "years")
    assert check_tables(data, config=tmp_path / "site").patients == 15


def test_rows_that_name_no_visit_are_attached_by_their_time(tables, tmp_path):
    results = [("pid", "encounter_id", "test", "value", "unit", "drawn_at")]
    results += [(500 + n, "" if n % 2 else 9000 + n, "K", 4.1, "mmol/L", DATES[n]) for n in range(30)]
    init_site(tables(patients=PEOPLE, encounters=VISITS, labs=results), out=tmp_path / "site")
    assert read_rules(tmp_path / "site").table("LABS").attach_by_time is True


def test_semicolons_and_gzip_are_read(tables, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, rows in {"patients": PEOPLE, "encounters": VISITS}.items():
        text = "\n".join(";".join(map(str, row)) for row in rows) + "\n"
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    init_site(folder, out=tmp_path / "site")
    assert read_rules(tmp_path / "site").text.delimiter == ";"
    assert check_tables(folder, config=tmp_path / "site").patients == 30


def test_two_tables_of_values_keep_apart(tables, tmp_path):
    header = ("encounter_id", "test", "value", "unit", "taken_at")
    rows = [(9000 + n, "K", 4.1, "mmol/L", DATES[n]) for n in range(30)]
    data = tables(patients=PEOPLE, encounters=VISITS, labs=[header, *rows], vitals=[header, *rows])
    init_site(data, out=tmp_path / "site")
    codes = {event.code for table in read_rules(tmp_path / "site").tables for event in table.events}
    assert {"LAB//LABS:{TEST}", "LAB//VITALS:{TEST}"} <= codes


def test_a_file_without_a_header_is_not_shown(tables, tmp_path):
    data = tables(patients=PEOPLE, encounters=VISITS, notes=[("77123", "canary", "2021-05-01"), ("1", "b", "c")])
    outcome = init_site(data, out=tmp_path / "site")
    text = (tmp_path / "site" / "rules.yaml").read_text(encoding="utf-8")
    assert "notes.csv: no header" in text
    assert "canary" not in text.lower()
    assert "canary" not in outcome.model_dump_json().lower()


def test_what_cannot_be_told_is_asked(tables, tmp_path):
    visits = [row[:2] + row[4:] for row in VISITS]  # no times
    outcome = init_site(tables(patients=PEOPLE, encounters=visits), out=tmp_path / "site")
    assert any("when does a visit start" in todo for todo in outcome.todos)
    with pytest.raises(ConfigError, match="TODO is not among `columns`"):
        read_rules(tmp_path / "site")
    assert read_site(tmp_path / "site").source == "site"


def test_a_folder_without_tables_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match="no tables"):
        init_site(tmp_path / "data", out=tmp_path / "site")
    with pytest.raises(ConfigError, match="bad name"):
        (tmp_path / "data" / "a.csv").write_text("a,b\nx,y\n", encoding="utf-8")
        init_site(tmp_path / "data", out=tmp_path / "1234")
