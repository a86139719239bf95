"""Only patients who come often enough are written: who they are and what is true of them does not change."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from fairsynth.config import BiasConfig, SimulationConfig
from fairsynth.simulate import simulate, truth

PATIENTS = 700


def config(*, minimum_visits: int = 1, source="mimic3", **changed) -> SimulationConfig:
    return SimulationConfig(
        source=source, patients=PATIENTS, seed=5, detail=0.02, minimum_visits=minimum_visits, **changed
    )


def tables(folder, **chosen) -> dict[str, pl.DataFrame]:
    simulate(config(**chosen), folder)
    return {path.stem: pl.read_csv(path, infer_schema_length=0) for path in sorted(folder.glob("*.csv"))}


@pytest.fixture(scope="module")
def everybody(tmp_path_factory):
    return tables(tmp_path_factory.mktemp("all") / "raw")


@pytest.fixture(scope="module")
def returning(tmp_path_factory):
    return tables(tmp_path_factory.mktemp("returning") / "raw", minimum_visits=2)


def often(admissions: pl.DataFrame, *, least: int) -> set[str]:
    counts = admissions.group_by("SUBJECT_ID").len().filter(pl.col("len") >= least)
    return set(counts["SUBJECT_ID"])


def test_exactly_the_patients_with_that_many_admissions_are_in_the_tables(everybody, returning):
    wanted = often(everybody["ADMISSIONS"], least=2)
    assert 0 < len(wanted) < PATIENTS / 2
    assert set(returning["PATIENTS"]["SUBJECT_ID"]) == wanted
    for name, table in returning.items():
        if "SUBJECT_ID" in table.columns:
            assert set(table["SUBJECT_ID"]) <= wanted, name


def test_their_rows_are_the_same_in_every_table_but_for_the_row_numbers(everybody, returning):
    wanted = list(often(everybody["ADMISSIONS"], least=2))
    compared = 0
    for name, table in returning.items():
        if "SUBJECT_ID" not in table.columns:
            assert table.equals(everybody[name]), name
            continue
        kept = everybody[name].filter(pl.col("SUBJECT_ID").is_in(wanted))
        assert table.drop("ROW_ID").equals(kept.drop("ROW_ID")), name
        compared += table.height
    assert compared > 1000


@pytest.mark.parametrize("source", ["mimic3", "pic"])
@pytest.mark.parametrize("least", [2, 3])
def test_the_truth_of_those_who_stay_is_the_truth_they_had(source, least):
    all_of_them, kept = (truth.draw(config(source=source, minimum_visits=n)) for n in (1, least))
    counts = np.bincount(all_of_them.visits.patient, minlength=len(all_of_them.patients.number))
    stays = np.flatnonzero(counts >= least)
    assert np.array_equal(kept.patients.number, all_of_them.patients.number[stays])
    of_them = np.isin(all_of_them.visits.patient, stays)
    for name in ("risk", "died", "unit", "stay", "age_days"):
        assert np.array_equal(getattr(kept.visits, name), getattr(all_of_them.visits, name)[of_them]), name


def test_visits_that_the_tables_leave_out_do_not_count():
    bias = BiasConfig(under_representation=0.5)
    all_of_them, kept = (truth.draw(config(minimum_visits=n, bias=bias)) for n in (1, 2))
    counts = np.bincount(all_of_them.visits.patient)
    assert np.bincount(kept.visits.patient).min() == 2
    assert len(kept.patients.number) == (counts >= 2).sum()


def test_nobody_who_comes_often_enough_is_tables_without_patients(tmp_path):
    found = tables(tmp_path / "raw", minimum_visits=60)
    assert found["PATIENTS"].height == found["ADMISSIONS"].height == 0


@pytest.mark.parametrize("least", [0, -1, 1.5])
def test_a_number_of_visits_is_a_whole_number_from_one(least):
    with pytest.raises(ValidationError):
        config(minimum_visits=least)


def test_without_it_everybody_is_written():
    default = SimulationConfig(source="mimic3", patients=50)
    assert default.minimum_visits == 1
