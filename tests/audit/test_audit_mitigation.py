from __future__ import annotations

import time
import warnings
from dataclasses import replace

import audit_toy as toy
import numpy as np
import pandas as pd
import pytest
from fairlearn import reductions
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression

from fairsynth.audit.fitting import Constant, FitSettings, bag_of_tokens
from fairsynth.audit.mitigation import ExponentiatedGradient, ThresholdOptimiser
from fairsynth.audit.predictors import LogisticRegression
from fairsynth.audit.thresholds import optimised
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

SETTINGS = FitSettings(epochs=1, threads=1)
TRAIN = toy.draw([[300, 90], [100, 30]], seed=1)
VALIDATION = toy.draw([[150, 50], [150, 50]], seed=3)
FRESH = toy.draw([[200, 60], [200, 60]], seed=2)
WEAK = replace(TRAIN, codes=np.where(np.isin(TRAIN.codes, [5, 6, 7]), 20, TRAIN.codes))  # less is known of group 1
CONSTRAINTS = ("equalized_odds", "true_positive_rate_parity")


def fit(method, *, train: Records = TRAIN, vocabulary: Vocabulary = toy.VOCABULARY):
    return method.fit(train, validation=VALIDATION, vocabulary=vocabulary, settings=SETTINGS, seed=5)


def rates(predicted, records: Records, *, label: int) -> np.ndarray:
    """(G,) mean prediction over the patients of one label."""
    groups = np.unique(records.group)
    return np.array([predicted[(records.group == group) & (records.label == label)].mean() for group in groups])


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_scores_are_the_chances_that_fairlearns_mixture_predicts_with(constraint, balanced):
    moments = {
        "equalized_odds": reductions.EqualizedOdds(difference_bound=0.01),
        "true_positive_rate_parity": reductions.TruePositiveRateParity(difference_bound=0.01),
    }
    share = WEAK.label.mean()
    costs = {"fp": 0.5 / (1 - share), "fn": 0.5 / share}
    objective = reductions.ErrorRate(costs=costs) if balanced else reductions.ErrorRate()
    oracle = reductions.ExponentiatedGradient(
        SklearnLogisticRegression(max_iter=2000), moments[constraint], objective=objective, max_iter=30
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.Pandas4Warning)
        dense = bag_of_tokens(WEAK, vocabulary=toy.VOCABULARY).toarray()
        oracle.fit(dense, WEAK.label, sensitive_features=WEAK.group)
    expected = oracle._pmf_predict(bag_of_tokens(FRESH, vocabulary=toy.VOCABULARY).toarray())[:, 1]
    scores = fit(ExponentiatedGradient(constraint=constraint, balanced=balanced), train=WEAK).scores(FRESH)
    assert np.allclose(scores, expected, atol=1e-9)
    assert ((scores > 0.01) & (scores < 0.99)).any()  # a mixture, not one classifier


@pytest.mark.parametrize(("constraint", "labels"), [("equalized_odds", [0, 1]), ("true_positive_rate_parity", [1])])
def test_a_groups_rate_on_training_patients_is_near_everybodys_and_a_plain_regressions_is_not(constraint, labels):
    constrained = fit(ExponentiatedGradient(constraint=constraint), train=WEAK).scores(WEAK)
    plain = LogisticRegression().fit(WEAK, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=5).scores(WEAK) >= 0.5
    for label in labels:
        assert np.ptp(rates(constrained, WEAK, label=label)) < 0.05
    assert np.ptp(rates(plain, WEAK, label=1)) > 0.1


def test_nothing_is_drawn_and_no_validation_patient_is_looked_at():
    method = ExponentiatedGradient()
    one = method.fit(TRAIN, validation=VALIDATION, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=1)
    other = method.fit(TRAIN, validation=FRESH, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=2)
    assert np.array_equal(one.scores(FRESH), other.scores(FRESH))


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize(
    "cells", [[[200, 60], [40, 0]], [[200, 60], [0, 12]], [[200, 0], [0, 40]], [[200, 60], [0, 0]]]
)
def test_a_group_that_lacks_a_label_takes_no_part_and_breaks_nothing(constraint, cells):
    scores = fit(ExponentiatedGradient(constraint=constraint, rounds=5), train=toy.draw(cells, seed=4)).scores(FRESH)
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_classifier_that_fairlearn_replaced_by_a_constant_keeps_its_chance(monkeypatch):
    class Replaced:
        def __init__(self, *_, **__) -> None:
            constants = [DummyClassifier(strategy="constant", constant=constant) for constant in (1, 0)]
            self.predictors_, self.weights_ = pd.Series(constants), pd.Series([0.3, 0.7])

        def fit(self, *_, **__) -> None:
            pass

    monkeypatch.setattr(reductions, "ExponentiatedGradient", Replaced)
    assert np.allclose(fit(ExponentiatedGradient()).scores(FRESH), 0.3)


@pytest.mark.parametrize("label", [0, 1])
def test_patients_of_one_label_give_that_label(label):
    cells = np.zeros((2, 2), dtype=int)
    cells[:, label] = 20
    assert fit(ExponentiatedGradient(), train=toy.draw(cells, seed=4)) == Constant(score=float(label))


def test_where_positives_are_rare_the_least_error_flags_few_of_them_and_the_balanced_error_many():
    rare = toy.draw([[600, 30], [200, 10]], seed=6, signal=0.25)
    flagged = [
        fit(ExponentiatedGradient(balanced=balanced), train=rare).scores(rare)[rare.label == 1].mean()
        for balanced in (False, True)
    ]
    assert flagged[0] < 0.4 < 0.6 < flagged[1]


def test_the_threshold_optimiser_trains_on_training_patients_and_chooses_on_validation_patients():
    fitted = fit(ThresholdOptimiser(base=LogisticRegression(), constraint="equalized_odds"))
    base = LogisticRegression().fit(TRAIN, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=5)
    expected = optimised(
        base,
        validation=VALIDATION,
        vocabulary=toy.VOCABULARY,
        constraint="equalized_odds",
        objective="balanced_accuracy_score",
    )
    assert np.array_equal(fitted.scores(FRESH), expected.scores(FRESH))
    assert np.ptp(rates(fitted.scores(VALIDATION), VALIDATION, label=1)) < 1e-9


def test_two_thousand_patients_with_six_hundred_codes_take_seconds():
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary(
        codes=tuple(f"DX//CCS//{number}" for number in range(600)),
        groups=("a", "b", "c", "d", "e"),
        ages=("young", "old"),
        phenotypes=("one",),
    )
    group = rng.choice(5, size=2000, p=[0.6, 0.2, 0.1, 0.06, 0.04])
    has = rng.random((2000, 600)) < np.exp(rng.normal(-3, 1.2, size=600)).clip(0, 0.6)
    effect = has @ rng.normal(0, 0.5, size=600)
    label = (rng.random(2000) < 1 / (1 + np.exp(2 - (effect - effect.mean()) - 0.3 * group))).astype(np.int64)
    train = Records(
        codes=np.nonzero(has)[1],
        visit_offsets=np.concatenate([[0], np.cumsum(has.sum(axis=1))]),
        patient_offsets=np.arange(2001),
        context=vocabulary.layout.groups.start + group,
        context_offsets=np.arange(2001),
        group=group,
        label=label,
    )
    start = time.process_time()
    fitted = fit(ExponentiatedGradient(), train=train, vocabulary=vocabulary)
    assert time.process_time() - start < 10  # about 1 s of one idle core
    assert np.ptp(rates(fitted.scores(train), train, label=1)) < 0.05
