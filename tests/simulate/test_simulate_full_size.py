"""At full size the tables have the sources' own numbers of rows, and memory knows nothing of the number of patients."""

import json
import weakref

import numpy as np
import pytest

from fairsynth.cli import main
from fairsynth.config import BiasConfig, SimulationConfig
from fairsynth.simulate import content, full_size, simulate, truth
from fairsynth.simulate import write as writing

# Rows of MIMIC-III 1.4 and PIC 1.1.0 as their authors count them.
ROWS = {
    "mimic3": {
        "patients": 46_520,
        "admissions": 58_976,
        "diagnoses": 651_047,
        "procedures": 240_095,
        "prescriptions": 4_156_450,
        "labs": 27_854_055,
    },
    "pic": {
        "patients": 12_881,
        "admissions": 13_449,
        "diagnoses": 13_365,
        "prescriptions": 1_256_591,
        "labs": 10_094_117,
    },
}
SAMPLE = 6_000  # patients


def rows_of_patients(part, source):
    """What each patient of a chunk has in the tables: name -> (P,) rows."""
    visits = {"admissions": np.flatnonzero(part.seen)}
    visits["diagnoses"] = content.diagnoses(part, knobs=BiasConfig()).visit
    if source == "mimic3":
        visits["procedures"] = content.procedures(part, knobs=BiasConfig()).visit
    visits["prescriptions"] = content.drugs(part, detail=1).visit
    visits["labs"] = content.labs(part, detail=1, knobs=BiasConfig()).visit
    number, patient = len(part.planned.patients.number), part.planned.visits.patient
    return {name: np.bincount(patient[visit], minlength=number) for name, visit in visits.items()}


@pytest.mark.parametrize("source", ["mimic3", "pic"])
def test_a_patient_has_as_many_rows_as_in_the_source(source):
    parts = [
        rows_of_patients(part, source) for part in truth.parts(SimulationConfig(source=source, patients=SAMPLE, seed=7))
    ]
    for name, rows in ROWS[source].items():
        if name == "patients":
            continue
        each = np.concatenate([part[name] for part in parts])
        error = each.std() / np.sqrt(SAMPLE)
        assert 4 * error < 0.1 * each.mean()  # or the next line would say little
        assert each.mean() == pytest.approx(rows / ROWS[source]["patients"], abs=4 * error), name


@pytest.mark.parametrize("source", ["mimic3", "pic"])
def test_the_preset_has_the_sources_patients_and_leaves_the_rest_as_it_is(source):
    config = SimulationConfig(source=source, seed=9, detail=0.5, mix="study")
    assert full_size(config) == config.model_copy(update={"patients": ROWS[source]["patients"]})


def test_the_command_line_writes_the_full_number_of_patients(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(writing, "parts", lambda config: seen.append(config) or iter(()))
    with pytest.raises(SystemExit):
        main(["simulate", "pic", "--full-size", "--seed", "3", "--out", str(tmp_path / "raw"), "--json"])
    assert seen == [SimulationConfig(source="pic", patients=12_881, seed=3)]
    assert json.loads(capsys.readouterr().out)["rows"]["LABEVENTS"] == 0


def test_full_size_and_a_number_of_patients_are_refused_together(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["simulate", "pic", "--full-size", "--patients", "5", "--out", str(tmp_path / "raw")])
    assert stopped.value.code == 2
    assert "two sizes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_more_than_two_chunks_of_patients_are_held_at_a_time(tmp_path, monkeypatch):
    alive: list[weakref.ref] = []
    most = 0

    def watched(config):
        nonlocal most
        for part in truth.parts(config):
            alive.append(weakref.ref(part))
            most = max(most, sum(reference() is not None for reference in alive))
            yield part

    monkeypatch.setattr(truth, "CHUNK", 30)
    monkeypatch.setattr(writing, "parts", watched)
    simulate(SimulationConfig(source="mimic3", patients=240, detail=0.02), tmp_path / "raw")
    assert len(alive) == 8
    assert most <= 2
