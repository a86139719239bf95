"""Simulated tables of both sources pass the same door as real ones."""

import re

import polars as pl
import pytest
import yaml

from fairsynth.config import SimulationConfig
from fairsynth.extraction import check_tables, extract
from fairsynth.simulate import simulate


@pytest.fixture(scope="module", params=["mimic3", "pic"])
def simulated(request, tmp_path_factory):
    """(source, tables, site folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    config = SimulationConfig(source=request.param, patients=150, seed=3, mix="study", detail=0.05)
    simulate(config, folder / "tables")
    return request.param, folder / "tables", folder / "site"


@pytest.fixture
def config(simulated, request):
    return request.getfixturevalue(simulated[0])


def test_simulated_tables_have_no_losses(simulated, config):
    _, tables, _ = simulated
    report = check_tables(tables, config=config)
    for table in report.tables:
        assert table.rows_of_unknown_patients == table.rows_of_unknown_visits == 0
        assert table.rows_without_code == table.rows_without_time == 0


def test_every_simulated_row_becomes_its_event(simulated, config):
    source, tables, root = simulated
    out = extract(tables, config=config, root=root)
    events = pl.read_parquet(out / "data" / "0.parquet")
    counts = dict(events.group_by(pl.col("code").str.extract(r"^(\w+)")).len().rows())
    kinds = {"ADMISSIONS": "ADMISSION", "DIAGNOSES_ICD": "DIAG", "PRESCRIPTIONS": "DRUG", "LABEVENTS": "LAB"}
    for table, kind in kinds.items():
        rows = pl.read_csv(tables / f"{table}.csv", infer_schema=False).height
        assert counts[kind] == rows, table
    admissions = pl.read_csv(tables / "ADMISSIONS.csv", infer_schema=False)
    assert counts["DEATH"] == admissions.filter(pl.col("HOSPITAL_EXPIRE_FLAG") == "1").height
    assert ("PROC" in counts) is (source == "mimic3")


def test_every_simulated_lab_and_diagnosis_is_in_its_dictionary(simulated, config):
    source, tables, root = simulated
    out = extract(tables, config=config, root=root)
    codes = pl.read_parquet(out / "metadata" / "codes.parquet")
    labs = codes.filter(pl.col("code").str.starts_with("LAB//"))
    assert labs["description"].null_count() == 0
    assert labs["parent_codes"].list.join(" ").str.starts_with("LOINC/").any()
    diagnoses = codes.filter(pl.col("code").str.starts_with("DIAG//"))
    assert diagnoses["description"].null_count() == 0
    if source == "pic":
        assert diagnoses["parent_codes"].list.len().min() == 1


def test_every_simulated_ethnicity_has_a_group(simulated, config):
    _, tables, _ = simulated
    rules = yaml.safe_load((config / "groups.yaml").read_text(encoding="utf-8"))["rules"]
    raw = pl.read_csv(tables / "ADMISSIONS.csv", infer_schema=False)["ETHNICITY"].unique()
    assert [text for text in raw if not any(re.search(rule["match"], text.upper()) for rule in rules)] == []
