from __future__ import annotations

from dataclasses import dataclass, replace

import audit_toy as toy
import numpy as np
import pytest
from fairlearn.postprocessing import ThresholdOptimizer
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.metrics import balanced_accuracy_score

from fairsynth.audit.thresholds import (
    ByThresholds,
    GroupRules,
    balanced_threshold,
    equal_rates,
    group_thresholds,
    optimised,
)
from fairsynth.errors import ConfigError
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

VALIDATION = toy.draw([[120, 40], [70, 25]], seed=1)
FRESH = toy.draw([[60, 20], [60, 20]], seed=2)

chances = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=1, max_size=40)


@dataclass(frozen=True)
class ByHash:
    """Scores of the kind that a trained model gives: positives of the majority above those of the minority."""

    def scores(self, records: Records) -> np.ndarray:
        counts = [
            np.bincount(
                records.visit_patient[np.repeat(np.arange(records.visits), np.diff(records.visit_offsets))][own],
                minlength=len(records),
            )
            for own in (records.codes < 5, records.codes < 10, records.codes < 30)
        ]
        return (2 * counts[0] + counts[1] + 0.01 * counts[2]) / 100


class Column(BaseEstimator):
    def fit(self, scores, label):
        self.fitted_ = True
        return self

    def predict(self, scores):
        return scores[:, 0]


def rates(predicted, records: Records, *, label: int) -> np.ndarray:
    """(G,) mean prediction over the patients of one label."""
    return np.array(
        [predicted[(records.group == group) & (records.label == label)].mean() for group in np.unique(records.group)]
    )


def rule(
    constraint: str,
    *,
    validation: Records = VALIDATION,
    vocabulary: Vocabulary = toy.VOCABULARY,
    minimum_positives: int = 1,
):
    return optimised(
        ByHash(),
        validation=validation,
        vocabulary=vocabulary,
        constraint=constraint,
        objective="balanced_accuracy_score",
        minimum_positives=minimum_positives,
    )


def test_a_rule_climbs_its_steps_above_their_scores():
    rules = GroupRules(
        steps=np.array([[0.2, 0.4], [0.5, np.inf]]),
        heights=np.array([[0.5, 0.25], [1.0, 0.0]]),
        floors=np.array([0.125, 0.0]),
    )
    scores, group = np.array([0.2, 0.3, 0.4, 0.5, 0.5, 0.6]), np.array([0, 0, 0, 0, 1, 1])
    assert rules.chances(scores, group).tolist() == [0.125, 0.625, 0.625, 0.875, 0.0, 1.0]


@pytest.mark.parametrize("constraint", ["equalized_odds", "true_positive_rate_parity"])
def test_scores_are_the_chances_that_fairlearn_predicts_with(constraint):
    scores = ByHash().scores(VALIDATION)[:, None]
    oracle = ThresholdOptimizer(
        estimator=Column().fit(None, None),
        constraints=constraint,
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="predict",
    ).fit(scores, VALIDATION.label, sensitive_features=VALIDATION.group)
    for records in (VALIDATION, FRESH):
        expected = oracle._pmf_predict(ByHash().scores(records)[:, None], sensitive_features=records.group)[:, 1]
        assert np.allclose(rule(constraint).scores(records), expected, atol=1e-12)


@pytest.mark.parametrize(("constraint", "labels"), [("equalized_odds", [0, 1]), ("true_positive_rate_parity", [1])])
def test_the_groups_rates_are_equal_on_validation_patients_and_were_not_before(constraint, labels):
    predicted = rule(constraint).scores(VALIDATION)
    alike = ByHash().scores(VALIDATION) > balanced_threshold(ByHash().scores(VALIDATION), VALIDATION.label)
    for label in labels:
        assert np.ptp(rates(predicted, VALIDATION, label=label)) < 1e-9
    assert np.ptp(rates(alike, VALIDATION, label=1)) > 0.1


@pytest.mark.parametrize("constraint", ["equalized_odds", "true_positive_rate_parity"])
def test_groups_that_lack_a_label_share_the_threshold_of_all_patients(constraint):
    vocabulary = replace(toy.VOCABULARY, groups=("majority", "minority", "without", "absent"))
    moved = VALIDATION.label.copy()
    third = (VALIDATION.group == 1) & (np.arange(len(VALIDATION)) % 3 == 0) & (moved == 0)
    validation = replace(VALIDATION, group=np.where(third, 2, VALIDATION.group))
    fitted = rule(constraint, validation=validation, vocabulary=vocabulary)
    together = balanced_threshold(ByHash().scores(validation), validation.label)
    for group in (2, 3):
        others = replace(FRESH, group=np.full(len(FRESH), group))
        assert np.array_equal(fitted.scores(others), ByHash().scores(others) > together)
    whole = validation.take(~third)
    assert np.array_equal(fitted.scores(whole), rule(constraint, validation=whole).scores(whole))


def test_a_group_with_too_few_positives_takes_the_threshold_of_all_patients_too():
    scores, together = ByHash().scores(FRESH), balanced_threshold(ByHash().scores(VALIDATION), VALIDATION.label)
    minority = FRESH.group == 1
    own = rule("true_positive_rate_parity", minimum_positives=25).scores(FRESH)[minority]
    shared = rule("true_positive_rate_parity", minimum_positives=26).scores(FRESH)[minority]
    assert np.array_equal(shared, (scores > together)[minority])
    assert not np.array_equal(own, shared)


@pytest.mark.parametrize("label", [0, 1])
def test_validation_patients_of_one_label_leave_the_threshold_at_one_half(label):
    validation = VALIDATION.take(VALIDATION.label == label)
    fitted = rule("equalized_odds", validation=validation)
    assert np.array_equal(fitted.scores(FRESH), ByHash().scores(FRESH) > 0.5)


@settings(deadline=None)
@given(chances)
def test_no_threshold_has_a_better_balanced_accuracy_and_the_highest_wins_a_tie(pairs):
    scores, label = (np.array(axis) for axis in zip(*pairs, strict=True))
    threshold = balanced_threshold(scores / 12, label)
    if len(set(label.tolist())) == 1:
        assert threshold == 0.5
        return
    values = np.unique(scores / 12)
    candidates = [-np.inf, *((values[1:] + values[:-1]) / 2), np.inf]
    accuracy = [balanced_accuracy_score(label, scores / 12 > each) for each in candidates]
    assert threshold == max(each for each, own in zip(candidates, accuracy, strict=True) if own > max(accuracy) - 1e-12)


@settings(deadline=None)
@given(chances, st.integers(1, 20), st.integers(1, 3))
def test_each_group_reaches_the_target_and_no_higher_score_would(pairs, twentieths, minimum):
    scores, label = (np.array(axis) for axis in zip(*pairs, strict=True))
    scores, group, target = scores / 12, np.arange(len(label)) % 3, twentieths / 20
    found = group_thresholds(scores, label, group, groups=4, target=target, minimum_positives=minimum)
    for each in range(4):
        own = (label == 1) & (group == each)
        reached = scores[own if own.sum() >= minimum else label == 1]
        if not len(reached):
            assert found[each] == 0.5
            continue
        assert 20 * (reached >= found[each]).sum() >= twentieths * len(reached)
        assert 20 * (reached > found[each]).sum() < twentieths * len(reached)


@pytest.mark.parametrize("target", [0.0, -0.1, 1.01, float("nan")])
def test_a_target_that_cannot_be_reached_is_refused(target):
    with pytest.raises(ConfigError, match="at most 1"):
        group_thresholds(np.ones(1), np.ones(1, dtype=int), np.zeros(1, dtype=int), groups=1, target=target)


def test_behind_thresholds_a_patient_is_predicted_from_its_own_groups_score_on():
    fitted = ByThresholds(fitted=ByHash(), thresholds=np.array([0.1, 0.05]))
    scores = ByHash().scores(FRESH)
    expected = [float(score >= (0.1, 0.05)[group]) for score, group in zip(scores, FRESH.group, strict=True)]
    assert fitted.scores(FRESH).tolist() == expected
    assert set(expected) == {0.0, 1.0}


def test_equal_rates_bring_the_groups_to_one_true_positive_rate():
    fitted = equal_rates(ByHash(), validation=VALIDATION, vocabulary=toy.VOCABULARY)
    before = (ByHash().scores(VALIDATION) >= fitted.thresholds[0]).astype(float)
    ties = 0.15  # several positives may share the score of the threshold
    assert np.ptp(rates(fitted.scores(VALIDATION), VALIDATION, label=1)) < ties
    assert np.ptp(rates(before, VALIDATION, label=1)) > 2 * ties


def test_equal_rates_without_a_positive_leave_the_thresholds_at_one_half():
    negatives = VALIDATION.take(VALIDATION.label == 0)
    assert equal_rates(ByHash(), validation=negatives, vocabulary=toy.VOCABULARY).thresholds.tolist() == [0.5, 0.5]
