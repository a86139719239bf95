"""The fidelity benchmark at a tiny size: the keys that it promises, and verdicts that can fail."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fidelity import QUICK, Setting, measure, strict
from benchmarks.fidelity_baselines import baseline_nll
from benchmarks.fidelity_data import simulated
from benchmarks.fidelity_table import STATISTICS, insufficient, markdown, targets
from fairsynth.config import FitConfig, GeneratorConfig
from fairsynth.generator.train import threads

TINY = Setting(
    seeds=2,
    patients=200,
    simulated=300,
    generator=GeneratorConfig(embedding=16, layers=1, heads=2),
    fit=FitConfig(epochs=1, threads=1, device="cpu"),
    baseline_epochs=1,
    small=(50,),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("fidelity"), patients=TINY.simulated)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def found(cohort, folder):
    return measure(cohort, TINY, kept=folder)


def perfect(found):
    """The same figures, each where the ceiling is."""
    better = copy.deepcopy(found)
    for name, figure in better["figures"].items():
        figure["synthetic"] = [1.0] * 3
        figure["real"] = 1.0
        assert name
    return better


def test_every_figure_that_the_issue_asks_for_is_there_with_an_interval_and_a_ceiling(found):
    figures = found["figures"]
    groups = ["whole", "white", "black", "hispanic", "asian", "other"]
    names = [f"r2/{group}/{name}" for group in groups for name in STATISTICS]
    names += [f"label/{group}" for group in groups] + ["auroc", "copied/visits", "nearest/mean"]
    names += [f"distance/{name}/wasserstein_sd" for name in ("visits_a_record", "codes_a_visit", "AGE", "LOS")]
    for name in names:
        assert len(figures[name]["synthetic"]) == 3 and figures[name]["real"] is not None
    assert set(found["nll"]) == {"unigram", "markov", "lstm"} and figures["nll"]["real"] is None
    assert set(found["small"]) == {"50"}
    written = json.dumps(strict(found), allow_nan=False)
    assert json.loads(written)["patients"] == {"train": 200, "validation": 30, "held_out": 30}


def test_the_table_names_every_statistic_and_what_was_missed(found):
    text = markdown("mimic3", found)
    assert all(f"R2 {name.replace('_', ' ')}" in text for name in STATISTICS)
    assert "auroc_within_0.02" not in markdown("mimic3", perfect(found))
    assert "Targets missed: none." in markdown("mimic3", perfect(found))


@pytest.mark.parametrize(
    ("name", "value", "missed"),
    [
        ("r2/whole/visit_prevalence", 0.97, "visit_prevalence_share_of_ceiling"),
        ("r2/whole/sequential_bigrams", 0.89, "sequential_bigrams_share_of_ceiling"),
        ("r2/asian/same_visit_bigrams", 0.94, "group_asian"),
        ("auroc", 0.97, "auroc_within_0.02"),
    ],
)
def test_a_target_is_missed_when_its_figure_is_too_low(found, name, value, missed):
    worse = perfect(found)
    worse["figures"][name]["synthetic"] = [value] * 3
    assert missed in [target for target, holds in targets(worse).items() if not holds]
    assert all(targets(perfect(found)).values())


def test_what_a_patient_had_before_tells_the_baselines_that_look_more_than_base_rates(cohort):
    train = cohort.train
    told = baseline_nll(train, validation=train, test=train, vocabulary=cohort.vocabulary, seed=1, epochs=2)
    assert max(told["markov"], told["lstm"]) < told["unigram"]


def test_the_unigram_is_charged_the_entropy_of_its_base_rates(cohort):
    """On the patients that it was counted on: sum of the binary entropies, visits and label visits apart."""
    train = cohort.train
    layout = cohort.vocabulary.layout
    told = baseline_nll(train, validation=train, test=train, vocabulary=cohort.vocabulary, seed=1, epochs=0)["unigram"]
    codes = np.bincount(train.codes, minlength=layout.size)[layout.codes] / train.visits
    context = np.bincount(train.context, minlength=layout.size)[layout.context] / len(train)
    ends = np.array([len(train) / train.visits])
    nats = train.visits * entropy(np.concatenate([codes, ends])) + len(train) * entropy(context)
    assert told == pytest.approx(nats / (train.visits + len(train)), rel=0.01)


def entropy(chances):
    inside = chances[(chances > 0) & (chances < 1)]
    return -(inside * np.log(inside) + (1 - inside) * np.log(1 - inside)).sum()


def test_a_group_that_real_patients_cannot_match_either_is_insufficient_not_unfaithful(found):
    few = perfect(found)
    name = "r2/asian/sequential_bigrams"
    few["figures"][name] = {"synthetic": [0.1] * 3, "real": 0.4}
    assert targets(few)["group_asian"] and insufficient(few) == [name]
    few["figures"][name]["real"] = 0.6
    assert not targets(few)["group_asian"] and insufficient(few) == []


def test_finished_steps_are_not_done_again(cohort, found, folder, monkeypatch):
    monkeypatch.setattr("benchmarks.fidelity.start", None)  # no generator can be begun
    assert json.dumps(measure(cohort, TINY, kept=folder)) == json.dumps(found)  # which are the same with NaN in them
    with pytest.raises(TypeError):
        measure(cohort, replace(TINY, patients=100), kept=folder)


def test_the_quick_setting_has_three_seeds():
    assert QUICK.seeds == 3
