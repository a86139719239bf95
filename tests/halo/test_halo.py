"""HALO as a library."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import fairsynth
from fairsynth.errors import ArtefactError, CohortError, ConfigError
from fairsynth.halo import HALO, Conditions, FitConfig, GeneratorConfig, Patient, from_patients, to_patients

FIELDS = ("codes", "visit_offsets", "patient_offsets", "context", "context_offsets", "group", "label")
SIZE = GeneratorConfig(embedding=16, layers=1, heads=2, maximum_visits=6)
QUICK = FitConfig(epochs=20, batch_size=16, learning_rate=1e-2, warm_up_steps=5, threads=1, device="cpu")


def clinic(number, *, seed):
    """Half the patients cough (A and B, always together), half limp (C); who coughs dies more, and is older."""
    rng = np.random.default_rng(seed)
    patients = []
    for _ in range(number):
        coughs = rng.random() < 0.5
        visit = ["A", "B"] if coughs else ["C"]
        patients.append(
            Patient(
                visits=[visit] * int(rng.integers(1, 4)),
                group="north" if rng.random() < 0.7 else "south",
                label=int(rng.random() < (0.5 if coughs else 0.1)),
                sex="female" if rng.random() < 0.5 else "male",
                age="old" if coughs else "young",
            )
        )
    return patients


RECORDS, WORDS = from_patients(clinic(200, seed=1))


@pytest.fixture(scope="module")
def model():
    return HALO(SIZE, QUICK, seed=1).fit(RECORDS, vocabulary=WORDS)


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, fairsynth; assert 'torch' not in sys.modules; fairsynth.HALO; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert fairsynth.HALO is HALO
    with pytest.raises(AttributeError):
        fairsynth.NOTHING  # noqa: B018


def test_a_model_learns_what_goes_together(model):
    new = list(to_patients(model.sample(300, seed=5), vocabulary=WORDS))
    first = [set(one.visits[0]) for one in new]
    together = np.mean([visit in ({"A", "B"}, {"C"}) for visit in first])
    assert together > 0.8
    coughs = np.array([visit == {"A", "B"} for visit in first])
    deaths = np.array([one.label for one in new])
    assert deaths[coughs].mean() > deaths[~coughs].mean() + 0.15


def test_the_history_is_of_validation_patients_set_aside(model):
    assert len(model.history.epochs) >= 2
    assert model.history.epochs[model.history.best].validation == min(e.validation for e in model.history.epochs)


def test_the_nll_is_lower_for_patients_like_those_learnt_from_than_for_others(model):
    alike, _ = from_patients(clinic(100, seed=2), vocabulary=WORDS)
    others, _ = from_patients(
        [Patient(visits=[["A", "C"]], group="south", sex="male", age="young") for _ in range(20)], vocabulary=WORDS
    )
    assert model.nll(alike) < model.nll(others) - 1


def test_given_conditions_hold(model):
    new = model.sample(model.conditions(40, group="south", label=1, sex="male", age="old"), seed=3)
    for one in to_patients(new, vocabulary=WORDS):
        assert (one.group, one.label, one.sex, one.age) == ("south", 1, "male", "old")


def test_the_stream_is_the_sample_in_parts(model):
    parts = list(model.stream(50, seed=2, batch_size=16))
    assert [len(part) for part in parts] == [16, 16, 16, 2]
    whole = list(to_patients(model.sample(50, seed=2), vocabulary=WORDS))
    assert [one for part in parts for one in to_patients(part, vocabulary=WORDS)] == whole
    assert not same(model.sample(50, seed=2), model.sample(50, seed=3))


def test_a_history_is_continued(model):
    short = [one for one in clinic(30, seed=9) if len(one.visits) < 3]
    histories, _ = from_patients(short, vocabulary=WORDS)
    for before, after in zip(short, to_patients(model.continue_(histories), vocabulary=WORDS), strict=True):
        assert [tuple(visit) for visit in before.visits] == list(after.visits[: len(before.visits)])
        assert len(after.visits) > len(before.visits)
        assert (after.group, after.label, after.sex, after.age) == (before.group, before.label, before.sex, before.age)


def test_what_was_saved_is_loaded_and_samples_the_same(model, tmp_path):
    loaded = HALO.load(model.save(tmp_path / "clinic"), device="cpu")
    assert same(loaded.sample(40, seed=8), model.sample(40, seed=8))
    assert loaded.nll(RECORDS) == model.nll(RECORDS)
    assert (loaded.history, loaded.config, loaded.seed) == (model.history, SIZE, 1)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match="no generator artefact"):
        HALO.load(tmp_path)


def test_patients_without_sex_age_and_group_are_enough():
    records, words = from_patients([{"visits": one.visits} for one in clinic(40, seed=1)])
    model = HALO(SIZE, QUICK.model_copy(update={"epochs": 1})).fit(records, vocabulary=words)
    one = next(to_patients(model.sample(1), vocabulary=words))
    assert (one.group, one.sex, one.age) == ("all", None, None)


def test_the_default_size_has_room_for_the_longest_record():
    records, words = from_patients([{"visits": [["A"]] * 60}, *[{"visits": [["A"]]}] * 20])
    model = HALO(fit=QUICK.model_copy(update={"epochs": 1})).fit(records, vocabulary=words)
    assert model.config.maximum_visits == 60


def test_before_it_is_trained_a_model_says_so():
    for use in (lambda m: m.sample(1), lambda m: m.nll(RECORDS), lambda m: m.save("nowhere"), lambda m: m.vocabulary):
        with pytest.raises(ConfigError, match="not trained yet"):
            use(HALO())
    assert "untrained" in repr(HALO())


def test_what_does_not_fit_is_refused(model):
    _, others = from_patients([{"visits": [["Z"]]}] * 11)
    with pytest.raises(CohortError, match="outside the vocabulary"):
        HALO(SIZE).fit(RECORDS, vocabulary=others)
    with pytest.raises(CohortError, match="no patients"):
        HALO(SIZE).fit(RECORDS.take(np.arange(0)), vocabulary=WORDS)
    long, words = from_patients([{"visits": [["A"]] * 9}] * 11)
    with pytest.raises(CohortError, match="more visits"):
        HALO(SIZE).fit(long, vocabulary=words)
    with pytest.raises(ConfigError, match="unknown group"):
        model.conditions(3, group="west")
    with pytest.raises(ConfigError, match="no patients asked for"):
        model.sample(0)
    with pytest.raises(ConfigError, match="no patients asked for"):
        model.sample(Conditions.free(0))


def test_phenotypes_are_given_by_name():
    patients = [replace(one, phenotypes=["cough" if one.age == "old" else "limp"]) for one in clinic(200, seed=1)]
    records, words = from_patients(patients)
    model = HALO(SIZE, QUICK, seed=1).fit(records, vocabulary=words)
    wanted = model.conditions(30, label=1, phenotypes={"cough": True, "limp": False})
    new = list(to_patients(model.sample(wanted, seed=2), vocabulary=words))
    assert [list(one.phenotypes) for one in new] == [["cough"]] * 30
    free = model.conditions(3, phenotypes={"limp": True})
    assert free.phenotypes.tolist() == [[-1, 1]] * 3
    with pytest.raises(ConfigError, match="unknown phenotype"):
        model.conditions(3, phenotypes={"fever": True})
