"""Every configuration that is shipped: a few made-up patients in its schema become exactly the events expected.

`data/<source>/` holds the tables, named and laid out as the source's own release, and `expected.csv`.
"""

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from fairsynth import artefacts
from fairsynth.config import read_site, read_study
from fairsynth.extraction import check_tables, extract, read_rules
from fairsynth.extraction.columns import EVENT_SCHEMA
from fairsynth.visits.groups import read_groups
from fairsynth.visits.labs import labs

CONFIGS = Path(__file__).resolve().parents[2] / "site_configs"
STUDIES = CONFIGS.parent / "studies"
DATA = Path(__file__).parent / "data"
DIABETES_130 = Path(__file__).resolve().parents[3] / "shared" / "data" / "diabetes-130"
SOURCES = ("mimic4", "eicu", "omop")
SITES_OF_DIABETES130 = {"medicare": 11, "unrecorded": 12, "public": 13, "private": 14}  # and the patient of each


def expected(source: str) -> pl.DataFrame:
    return pl.read_csv(DATA / source / "expected.csv", schema=EVENT_SCHEMA)


def in_order(events: pl.DataFrame) -> list[tuple]:
    return events.sort(list(EVENT_SCHEMA), nulls_last=False).rows()


def codes(events: Path) -> dict[str, tuple[str | None, list[str]]]:
    return {code: (text, parents) for code, text, parents in pl.read_parquet(events / "metadata/codes.parquet").rows()}


@pytest.mark.parametrize("source", SOURCES)
def test_the_tables_of_a_source_become_the_events_expected(source, tmp_path):
    events = extract(DATA / source, config=CONFIGS / source, root=tmp_path)
    assert in_order(pl.read_parquet(events / "data/*.parquet")) == in_order(expected(source))


@pytest.mark.parametrize("site", SITES_OF_DIABETES130)
def test_a_site_of_diabetes130_has_the_patients_whose_first_encounter_its_payer_paid(site, tmp_path):
    events = extract(DATA / "diabetes130", config=CONFIGS / "diabetes130" / site, root=tmp_path)
    own = expected("diabetes130").filter(subject_id=SITES_OF_DIABETES130[site])
    assert in_order(pl.read_parquet(events / "data/*.parquet")) == in_order(own)


@pytest.mark.skipif(not DIABETES_130.is_dir(), reason="needs shared/data/diabetes-130")
def test_the_four_sites_share_out_the_real_patients_as_the_docs_say():
    cells = {site: read_site(CONFIGS / "diabetes130" / site).first_visit.cells for site in SITES_OF_DIABETES130}
    owner = {cell: site for site, listed in cells.items() for cell in listed}
    assert len(owner) == sum(map(len, cells.values()))  # no payer has two sites
    columns = ["encounter_id", "patient_nbr", "payer_code"]
    rows = pl.read_csv(DIABETES_130 / "diabetic_data.csv.gz", infer_schema=False, null_values="?", columns=columns)
    first = rows.sort(pl.col("encounter_id").cast(pl.Int64)).group_by("patient_nbr", maintain_order=True).first()
    sites = first["payer_code"].fill_null("").replace_strict(owner)  # every payer has one
    assert dict(sites.value_counts().iter_rows()) == {
        "medicare": 20_414,
        "private": 13_368,
        "public": 6_693,
        "unrecorded": 31_043,
    }


def test_the_study_of_diabetes130_has_its_four_sites_and_its_groups():
    study = read_study(STUDIES / "diabetes130.yaml")
    assert {entry.site for entry in study.sites} == set(SITES_OF_DIABETES130)
    groups = {rule.group for rule in read_groups(CONFIGS / "diabetes130" / "groups.yaml").rules}
    assert groups == set(study.groups.names)


@pytest.mark.parametrize("source", SOURCES)
def test_every_row_is_accounted_for(source):
    for table in check_tables(DATA / source, config=CONFIGS / source).tables:
        assert table.rows == table.kept + sum(table.left_out.values())


def test_rows_that_are_left_out_are_those_meant_to_be():
    def left_out(source):
        report = check_tables(DATA / source, config=CONFIGS / source)
        return {table.table: table.left_out for table in report.tables if table.left_out}

    assert left_out("mimic4") == {}
    assert left_out("eicu") == {
        "DIAGNOSIS": {"gives no event": 1},  # no code
        "MEDICATION": {"gives no event": 2},  # cancelled; without a name
    }
    assert left_out("omop") == {
        "VISIT_OCCURRENCE": {"left out by rule": 1},  # an outpatient visit
        "CONDITION_OCCURRENCE": {"left out by rule": 1, "gives no event": 1},  # in that visit; no concept at all
    }


@pytest.mark.parametrize(("source", "calendar"), [("mimic4", "real"), ("omop", "real"), ("eicu", "artificial")])
def test_a_source_without_dates_says_so(source, calendar, tmp_path):
    events = extract(DATA / source, config=CONFIGS / source, root=tmp_path)
    assert artefacts.read_manifest(events, kind="events")["facts"]["calendar"] == calendar


def test_the_two_icd_versions_of_mimic4_keep_their_own_titles(tmp_path):
    found = codes(extract(DATA / "mimic4", config=CONFIGS / "mimic4", root=tmp_path))
    assert found["DIAG//ICD9CM//E8881"][0] == "Fall resulting in striking against other object"
    assert found["DIAG//ICD10CM//E8881"][0] == "Metabolic syndrome"
    assert found["LAB//50912"] == ("Creatinine", ["LOINC/2160-0"])


def test_concepts_of_omop_name_their_code_in_its_own_vocabulary(tmp_path):
    found = codes(extract(DATA / "omop", config=CONFIGS / "omop", root=tmp_path))
    assert found["DIAG//OMOP//45576878"] == ("Heart failure, unspecified", ["ICD10CM/I50.9"])
    assert found["PROC//OMOP//2790007"][1] == ["ICD10PCS/0BH17EZ"]
    assert found["DRUG//OMOP//1367571"] == ("heparin", ["RxNorm/5224"])
    assert found["LAB//3016723"][1] == ["LOINC/2160-0"]


def test_omop_may_come_as_parquet(tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    for path in (DATA / "omop").glob("[A-Z]*.csv"):
        frame = pl.read_csv(path, try_parse_dates=True).rename(str.lower)
        pq.write_table(frame.to_arrow(), tables / f"{path.stem.lower()}.parquet")
    events = extract(tables, config=CONFIGS / "omop", root=tmp_path / "site")
    assert in_order(pl.read_parquet(events / "data/*.parquet")) == in_order(expected("omop"))


def test_laboratory_tests_of_eicu_have_loinc_codes(tmp_path):
    found = codes(extract(DATA / "eicu", config=CONFIGS / "eicu", root=tmp_path))
    assert found["LAB//-polys"] == (None, ["LOINC/770-8"])
    assert found["LAB//troponin - I"] == (None, [])  # not one of the tests that become tokens


@pytest.mark.parametrize("source", ["mimic4", "eicu"])
def test_inline_parents_name_laboratory_tests_that_become_tokens(source):
    """Most of the table's analytes, by a code that it knows."""
    known = {code for lab in labs() for code in lab.codes}
    named = [parent.removeprefix("LOINC/") for parent in read_rules(CONFIGS / source).parents.values()]
    assert set(named) <= known
    analytes = {lab.name for lab in labs() if set(lab.codes) & set(named)}
    assert len(analytes) >= 70


MIMIC4_RACES = {
    "white": "WHITE|WHITE - RUSSIAN|WHITE - OTHER EUROPEAN|WHITE - BRAZILIAN|WHITE - EASTERN EUROPEAN",
    "black": "BLACK/AFRICAN AMERICAN|BLACK/CAPE VERDEAN|BLACK/CARIBBEAN ISLAND|BLACK/AFRICAN",
    "hispanic": (
        "HISPANIC OR LATINO|HISPANIC/LATINO - PUERTO RICAN|HISPANIC/LATINO - DOMINICAN|HISPANIC/LATINO - GUATEMALAN"
        "|HISPANIC/LATINO - SALVADORAN|HISPANIC/LATINO - COLUMBIAN|HISPANIC/LATINO - MEXICAN"
        "|HISPANIC/LATINO - HONDURAN|HISPANIC/LATINO - CENTRAL AMERICAN|HISPANIC/LATINO - CUBAN"
    ),
    "asian": "ASIAN|ASIAN - CHINESE|ASIAN - SOUTH EAST ASIAN|ASIAN - ASIAN INDIAN|ASIAN - KOREAN",
    "other": (
        "UNKNOWN|OTHER|UNABLE TO OBTAIN|PATIENT DECLINED TO ANSWER|PORTUGUESE|SOUTH AMERICAN"
        "|AMERICAN INDIAN/ALASKA NATIVE|NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER|MULTIPLE RACE/ETHNICITY"
    ),
}


def test_all_33_race_strings_of_mimic4_have_their_group():
    groups = read_groups(CONFIGS / "mimic4" / "groups.yaml")
    strings = {raw: group for group, listed in MIMIC4_RACES.items() for raw in listed.split("|")}
    assert len(strings) == 33
    assert {raw: groups.group_of(raw) for raw in strings} == strings


@pytest.mark.parametrize("source", ["diabetes130", *SOURCES])
def test_every_string_of_the_made_up_patients_has_a_group(source):
    groups = read_groups(CONFIGS / source / "groups.yaml")
    prefix = f"{groups.attribute}//"
    strings = expected(source)["code"].unique().sort()
    raw = [code.removeprefix(prefix) for code in strings if code.startswith(prefix)]
    assert raw
    assert [text for text in raw if groups.group_of(text) is None] == []
