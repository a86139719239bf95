"""The files: names, headers, formats and quirks of the two sources; determinism and atomicity."""

import gzip
import re
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from fairsynth.config import SimulationConfig
from fairsynth.errors import ConfigError
from fairsynth.simulate import mimic3 as mimic3_tables
from fairsynth.simulate import simulate, truth
from fairsynth.simulate import source as sources

SHARED = Path(__file__).parents[3] / "shared/data/mimic-iii-demo"
needs_demo = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no folder ../shared/data/mimic-iii-demo beside the checkout"
)

MIMIC3_HEADERS = {
    "PATIENTS": "ROW_ID,SUBJECT_ID,GENDER,DOB,DOD,DOD_HOSP,DOD_SSN,EXPIRE_FLAG",
    "ADMISSIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_TYPE,ADMISSION_LOCATION,"
    "DISCHARGE_LOCATION,INSURANCE,LANGUAGE,RELIGION,MARITAL_STATUS,ETHNICITY,EDREGTIME,EDOUTTIME,DIAGNOSIS,"
    "HOSPITAL_EXPIRE_FLAG,HAS_CHARTEVENTS_DATA",
    "ICUSTAYS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,DBSOURCE,FIRST_CAREUNIT,LAST_CAREUNIT,FIRST_WARDID,LAST_WARDID,"
    "INTIME,OUTTIME,LOS",
    "DIAGNOSES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE",
    "D_ICD_DIAGNOSES": "ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE",
    "PROCEDURES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE",
    "D_ICD_PROCEDURES": "ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE",
    "PRESCRIPTIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,STARTDATE,ENDDATE,DRUG_TYPE,DRUG,DRUG_NAME_POE,"
    "DRUG_NAME_GENERIC,FORMULARY_DRUG_CD,GSN,NDC,PROD_STRENGTH,DOSE_VAL_RX,DOSE_UNIT_RX,FORM_VAL_DISP,FORM_UNIT_DISP,"
    "ROUTE",
    "LABEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUE,VALUENUM,VALUEUOM,FLAG",
    "D_LABITEMS": "ROW_ID,ITEMID,LABEL,FLUID,CATEGORY,LOINC_CODE",
}
PIC_HEADERS = {
    "PATIENTS": "ROW_ID,SUBJECT_ID,GENDER,DOB,DOD,EXPIRE_FLAG",
    "ADMISSIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_DEPARTMENT,DISCHARGE_DEPARTMENT,"
    "INSURANCE,LANGUAGE,RELIGION,MARITAL_STATUS,ETHNICITY,EDREGTIME,EDOUTTIME,DIAGNOSIS,ICD10_CODE_CN,"
    "HOSPITAL_EXPIRE_FLAG,HAS_CHARTEVENTS_DATA",
    "ICUSTAYS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,FIRST_CAREUNIT,LAST_CAREUNIT,FIRST_WARDID,LAST_WARDID,INTIME,"
    "OUTTIME,LOS",
    "DIAGNOSES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD10_CODE_CN",
    "D_ICD_DIAGNOSES": "ROW_ID,ICD10_CODE_CN,ICD10_CODE,TITLE_CN,TITLE",
    "PRESCRIPTIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,STARTDATE,ENDDATE,DRUG_NAME_CN,DRUG_NAME_EN,PROD_STRENGTH,"
    "DRUG_NAME_GENERIC,DOSE_VAL_RX,DOSE_UNIT_RX,DRUG_FORM",
    "LABEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUE,VALUENUM,VALUEUOM,FLAG",
    "D_LABITEMS": "ROW_ID,ITEMID,LABEL_CN,LABEL,FLUID,CATEGORY,LOINC_CODE",
}


def headers(folder):
    return {path.name: path.read_text().split("\n", 1)[0] for path in folder.iterdir()}


def test_mimic3_files_and_headers_are_those_of_the_full_release_and_nothing_more(mimic3_folder):
    assert headers(mimic3_folder) == {f"{name}.csv": header for name, header in MIMIC3_HEADERS.items()}


def test_pic_files_and_headers_are_those_of_its_release_and_nothing_more(pic_folder):
    assert headers(pic_folder) == {f"{name}.csv": header for name, header in PIC_HEADERS.items()}


@needs_demo
@pytest.mark.parametrize("name", sorted(MIMIC3_HEADERS))
def test_mimic3_headers_are_the_demos_in_upper_case(name):
    with gzip.open(SHARED / f"{name}.csv.gz", "rt") as handle:
        assert handle.readline().strip().replace('"', "").upper() == MIMIC3_HEADERS[name]


@needs_demo
def test_laboratory_items_and_icd9_codes_exist_in_the_demos_dictionaries(mimic3):
    def demo(name):
        return pl.read_csv(SHARED / f"{name}.csv.gz", infer_schema_length=0).rename(str.upper)

    item = ["ITEMID", "LABEL", "FLUID", "CATEGORY", "LOINC_CODE"]
    assert mimic3["D_LABITEMS"].join(demo("D_LABITEMS"), on=item, how="anti").is_empty()
    for name in ("D_ICD_DIAGNOSES", "D_ICD_PROCEDURES"):
        assert mimic3[name].join(demo(name), on=["ICD9_CODE", "SHORT_TITLE"], how="anti").is_empty()


def test_every_code_and_item_used_is_in_its_dictionary(mimic3, pic):
    pairs = [("DIAGNOSES_ICD", "D_ICD_DIAGNOSES", "ICD9_CODE"), ("PROCEDURES_ICD", "D_ICD_PROCEDURES", "ICD9_CODE")]
    for table, dictionary, column in [*pairs, ("LABEVENTS", "D_LABITEMS", "ITEMID")]:
        assert mimic3[table].join(mimic3[dictionary], on=column, how="anti").is_empty()
        assert not mimic3[dictionary][column].is_duplicated().any()
    for table, dictionary, column in [
        ("DIAGNOSES_ICD", "D_ICD_DIAGNOSES", "ICD10_CODE_CN"),
        ("LABEVENTS", "D_LABITEMS", "ITEMID"),
    ]:
        assert pic[table].join(pic[dictionary], on=column, how="anti").is_empty()


@pytest.mark.parametrize("tables", ["mimic3", "pic"])
def test_keys_are_unique_and_every_reference_resolves(tables, request):
    tables = request.getfixturevalue(tables)
    patients, admissions = tables["PATIENTS"], tables["ADMISSIONS"]
    assert not patients["SUBJECT_ID"].is_duplicated().any()
    assert not admissions["HADM_ID"].is_duplicated().any()
    assert not tables["ICUSTAYS"]["ICUSTAY_ID"].is_duplicated().any()
    assert set(admissions["SUBJECT_ID"]) == set(patients["SUBJECT_ID"])
    for name, table in tables.items():
        assert table["ROW_ID"].to_list() == [str(row) for row in range(1, table.height + 1)], name
        if "HADM_ID" in table.columns:
            rows = table.drop_nulls("HADM_ID")
            assert rows.join(admissions, on=["SUBJECT_ID", "HADM_ID"], how="anti").is_empty(), name


@pytest.mark.parametrize("tables", ["mimic3", "pic"])
def test_times_parse_and_keep_their_order_and_death_is_the_end_of_the_last_visit(tables, request):
    tables = request.getfixturevalue(tables)
    times = ["ADMITTIME", "DISCHTIME", "DEATHTIME"]
    stays = tables["ADMISSIONS"].with_columns(pl.col(times).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=True))
    assert (stays["ADMITTIME"] < stays["DISCHTIME"]).all()
    assert stays["DEATHTIME"].is_not_null().to_list() == (stays["HOSPITAL_EXPIRE_FLAG"] == "1").to_list()
    dead = stays.filter(pl.col("HOSPITAL_EXPIRE_FLAG") == "1")
    assert (dead["DEATHTIME"] == dead["DISCHTIME"]).all()
    last = stays.group_by("SUBJECT_ID").agg(pl.col("ADMITTIME").max())
    assert dead.join(last, on=["SUBJECT_ID", "ADMITTIME"], how="anti").is_empty()
    following = stays.sort("SUBJECT_ID", "ADMITTIME").with_columns(
        before=pl.col("DISCHTIME").shift().over("SUBJECT_ID")
    )
    assert (following["before"].drop_nulls() < following.filter(pl.col("before").is_not_null())["ADMITTIME"]).all()
    flag = dict(tables["PATIENTS"].select("SUBJECT_ID", "EXPIRE_FLAG").iter_rows())
    assert {subject for subject, value in flag.items() if value == "1"} == set(dead["SUBJECT_ID"])


def test_mimic3_quirks(mimic3):
    labs = mimic3["LABEVENTS"]
    assert labs["HADM_ID"].null_count() / labs.height == pytest.approx(0.187, abs=0.01)
    assert set(labs["FLAG"].drop_nulls()) == {"abnormal"}
    assert not any("." in code for code in mimic3["DIAGNOSES_ICD"]["ICD9_CODE"])
    assert "0389" in set(mimic3["DIAGNOSES_ICD"]["ICD9_CODE"])  # the leading zero is kept
    below = labs.filter(pl.col("VALUENUM").is_null())
    assert below["VALUE"].str.starts_with("<").all()
    assert 0 < below.height < 0.05 * labs.height
    years = {int(value[:4]) for value in mimic3["ADMISSIONS"]["ADMITTIME"]}
    assert min(years) >= 2100


def test_ages_above_89_are_shifted_to_300_years(mimic3):
    first = mimic3["ADMISSIONS"].group_by("SUBJECT_ID").agg(pl.col("ADMITTIME").min())
    ages = [
        (datetime.fromisoformat(admitted) - datetime.fromisoformat(born)).days / 365.25
        for admitted, born in mimic3["PATIENTS"].join(first, on="SUBJECT_ID").select("ADMITTIME", "DOB").iter_rows()
    ]
    old = [age for age in ages if age > 89]
    assert len(old) > 10
    assert all(abs(age - 300) < 0.1 for age in old)
    assert min(ages) >= 16


def test_pic_quirks(pic):
    assert pic["DIAGNOSES_ICD"]["HADM_ID"].is_unique().all()
    assert pic["DIAGNOSES_ICD"].height / pic["ADMISSIONS"].height == pytest.approx(0.99375, abs=0.01)
    codes = set(pic["DIAGNOSES_ICD"]["ICD10_CODE_CN"])
    assert all(re.fullmatch(r"[A-Z]\d\d\.[0-9x]\d\d|M\d{5}/\d", code) for code in codes)
    assert any(code.startswith("M9") for code in codes)
    assert set(pic["LABEVENTS"]["FLAG"]) == {"z", "h", "l"}
    assert pic["LABEVENTS"]["HADM_ID"].null_count() == 0
    assert all(text.endswith(" ethnic") for text in set(pic["ADMISSIONS"]["ETHNICITY"]))
    years = {int(value[:4]) for value in pic["ADMISSIONS"]["ADMITTIME"]}
    assert min(years) >= 2050
    assert max(years) <= 2125


def test_pic_ages_are_childrens_at_day_resolution(pic):
    first = pic["ADMISSIONS"].group_by("SUBJECT_ID").agg(pl.col("ADMITTIME").min())
    days = [
        (datetime.fromisoformat(admitted) - datetime.fromisoformat(born)).days
        for admitted, born in pic["PATIENTS"].join(first, on="SUBJECT_ID").select("ADMITTIME", "DOB").iter_rows()
    ]
    assert min(days) >= 0
    assert max(days) < 18 * 365.25
    assert len({day for day in days if day < 28}) > 15  # newborns of many single days


def test_all_41_ethnicity_strings_have_their_published_counts():
    groups = sources.load("mimic3").groups
    assert len(groups.names) == len(set(groups.names)) == 41
    counts = dict(zip(groups.names, groups.natural * 58_976, strict=True))
    assert counts["WHITE"] == pytest.approx(40_996)
    assert counts["ASIAN - THAI"] == pytest.approx(4)
    by_prefix = {start: sum(n for name, n in counts.items() if name.startswith(start)) for start in ("BLACK", "ASIAN")}
    assert by_prefix == pytest.approx({"BLACK": 5_785, "ASIAN": 2_007})


@pytest.mark.parametrize("source", ["mimic3", "pic"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_patients(source, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate(SimulationConfig(source=source, patients=60, seed=seed, detail=0.1), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    for name in ("PATIENTS.csv", "ADMISSIONS.csv", "DIAGNOSES_ICD.csv", "LABEVENTS.csv"):
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()


def test_asking_for_more_patients_leaves_a_full_chunk_as_it_is(monkeypatch):
    monkeypatch.setattr(truth, "CHUNK", 50)
    few = truth.draw(SimulationConfig(source="pic", patients=100))
    more = truth.draw(SimulationConfig(source="pic", patients=150))
    assert len(more.patients.number) == 150
    assert (more.visits.risk[: len(few.visits.risk)] == few.visits.risk).all()
    assert (more.visits.number[1:] > more.visits.number[:-1]).all()


def test_the_summary_counts_what_was_written(tmp_path):
    summary = simulate(SimulationConfig(source="mimic3", patients=80, detail=0.1), tmp_path / "out")
    lines = {path.stem: path.read_bytes().count(b"\n") - 1 for path in (tmp_path / "out").iterdir()}
    assert summary.rows == lines
    assert summary.patients == 80
    assert summary.deaths == (pl.read_csv(tmp_path / "out/ADMISSIONS.csv")["HOSPITAL_EXPIRE_FLAG"]).sum()
    assert "80 simulated patients" in str(summary)


def test_an_empty_folder_is_filled_and_a_full_one_refused(tmp_path):
    config = SimulationConfig(source="pic", patients=20, detail=0.1)
    (tmp_path / "empty").mkdir()
    simulate(config, tmp_path / "empty")
    with pytest.raises(ConfigError, match="folder not empty"):
        simulate(config, tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="folder not empty"):
        simulate(config, tmp_path / "file")


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    written = mimic3_tables.chunk
    calls = []

    def fails_at_the_second_chunk(part, config):
        calls.append(part)
        if len(calls) == 2:
            raise OSError("disk full")
        return written(part, config)

    monkeypatch.setattr(truth, "CHUNK", 20)
    monkeypatch.setattr(mimic3_tables, "chunk", fails_at_the_second_chunk)
    with pytest.raises(OSError, match="disk full"):
        simulate(SimulationConfig(source="mimic3", patients=60, detail=0.1), tmp_path / "out")
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


def test_detail_scales_laboratory_rows_and_leaves_codes_alone(tmp_path):
    for name, detail in (("full", 1.0), ("third", 0.3)):
        simulate(SimulationConfig(source="mimic3", patients=200, detail=detail), tmp_path / name)
    rows = {
        name: pl.read_csv(tmp_path / name / "LABEVENTS.csv", infer_schema_length=0).height for name in ("full", "third")
    }
    assert rows["third"] / rows["full"] == pytest.approx(0.3, abs=0.03)
    for name in ("DIAGNOSES_ICD.csv", "PROCEDURES_ICD.csv", "ADMISSIONS.csv"):
        assert (tmp_path / "full" / name).read_bytes() == (tmp_path / "third" / name).read_bytes()
