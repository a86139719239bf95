"""Metrics from counts, against sklearn and fairlearn on rows."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, selection_rate, true_positive_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score, roc_auc_score

from fairsynth.fairness import metrics

GROUPS = 3
REFERENCE = np.array([True, False, False])


def rows(seed=1, patients=600):
    """Group, label, score (B,) of patients who score higher if positive, and by group."""
    rng = np.random.default_rng(seed)
    group = rng.choice(GROUPS, size=patients, p=[0.6, 0.3, 0.1])
    label = (rng.random(patients) < 0.25).astype(np.int64)
    score = 1 / (1 + np.exp(-(rng.normal(size=patients) + 1.2 * label + 0.3 * group - 0.8)))
    return group, label, score


def confusion_of(group, label, hard):
    table = np.zeros((GROUPS, 4), dtype=np.int64)
    for g, y, prediction in zip(group, label, hard, strict=True):
        table[g, {(1, 1): 0, (0, 1): 1, (1, 0): 2, (0, 0): 3}[y, int(prediction)]] += 1
    return table


def histogram_of(group, label, score):
    table = np.zeros((GROUPS, 2, metrics.SCORE_BINS), dtype=np.int64)
    np.add.at(table, (group, label, np.minimum((score * metrics.SCORE_BINS).astype(int), metrics.SCORE_BINS - 1)), 1)
    return table


def test_pooled_metrics_match_sklearn_on_rows():
    group, label, score = rows()
    hard = score > 0.5
    everyone = metrics.pooled(confusion_of(group, label, hard))
    assert metrics.f1(everyone) == pytest.approx(f1_score(label, hard), abs=1e-12)
    assert metrics.positive_predictive_value(everyone) == pytest.approx(precision_score(label, hard), abs=1e-12)
    assert metrics.accuracy(everyone) == pytest.approx(accuracy_score(label, hard), abs=1e-12)
    assert metrics.balanced_accuracy(everyone) == pytest.approx(balanced_accuracy_score(label, hard), abs=1e-12)
    assert metrics.false_positive_rate(everyone) == pytest.approx(hard[label == 0].mean(), abs=1e-12)


def test_rates_by_group_match_fairlearn_on_rows():
    group, label, score = rows()
    hard = score > 0.5
    confusion = confusion_of(group, label, hard)
    frame = MetricFrame(
        metrics={"selection": selection_rate, "tpr": true_positive_rate},
        y_true=label,
        y_pred=hard,
        sensitive_features=group,
    ).by_group
    np.testing.assert_allclose(metrics.selection_rate(confusion), frame["selection"], atol=1e-12)
    np.testing.assert_allclose(metrics.true_positive_rate(confusion), frame["tpr"], atol=1e-12)
    worst = metrics.worst_tpr(confusion, minimum_positives=1)
    assert worst.value == pytest.approx(frame["tpr"].min(), abs=1e-12)
    assert worst.group == frame["tpr"].argmin()


def test_disparate_impact_matches_fairlearn_rates_of_two_pools():
    group, label, score = rows()
    hard = score > 0.5
    frame = MetricFrame(metrics=selection_rate, y_true=label, y_pred=hard, sensitive_features=group > 0).by_group
    found = metrics.disparate_impact(confusion_of(group, label, hard), reference=REFERENCE)
    assert found == pytest.approx(frame[True] / frame[False], abs=1e-12)


def test_a_model_that_flags_no_reference_patient_has_no_disparate_impact():
    nobody = np.array([[0, 0, 5, 45], [3, 1, 2, 20], [1, 1, 0, 8]])
    assert np.isnan(metrics.disparate_impact(nobody, reference=REFERENCE))
    assert np.isnan(metrics.disparate_impact(np.zeros((3, 4), dtype=np.int64), reference=REFERENCE))


def test_a_model_that_flags_no_protected_patient_has_disparate_impact_zero():
    confusion = np.array([[2, 3, 5, 45], [0, 0, 2, 20], [0, 0, 0, 8]])
    assert metrics.disparate_impact(confusion, reference=REFERENCE) == 0


def test_undefined_metrics_are_nan_rather_than_zero():
    nobody = np.zeros(4, dtype=np.int64)
    for metric in (
        metrics.selection_rate,
        metrics.true_positive_rate,
        metrics.false_positive_rate,
        metrics.positive_predictive_value,
        metrics.f1,
        metrics.accuracy,
        metrics.balanced_accuracy,
    ):
        assert np.isnan(metric(nobody))


def test_a_group_with_too_few_positives_is_not_the_worst_group():
    confusion = np.array([[8, 0, 4, 50], [6, 0, 6, 50], [0, 0, 9, 50]])  # TPR 2/3, 1/2, 0 of 9
    worst = metrics.worst_tpr(confusion, minimum_positives=10)
    assert (worst.value, worst.group) == (0.5, 1)
    assert metrics.sufficient(confusion, minimum_positives=10).tolist() == [True, True, False]
    assert metrics.worst_tpr(confusion, minimum_positives=9).group == 2


def test_without_a_sufficient_group_there_is_no_worst_group():
    worst = metrics.worst_tpr(np.array([[1, 0, 1, 5], [0, 0, 2, 5]]), minimum_positives=10)
    assert np.isnan(worst.value)
    assert worst.group == -1


def test_leading_axes_are_independent():
    rng = np.random.default_rng(2)
    confusion = rng.integers(0, 30, (4, 2, GROUPS, 4))
    histogram = rng.integers(0, 3, (4, 2, GROUPS, 2, metrics.SCORE_BINS))
    impact = metrics.disparate_impact(confusion, reference=REFERENCE)
    worst = metrics.worst_tpr(confusion, minimum_positives=20)
    area = metrics.auroc(histogram)
    for i, j in np.ndindex(4, 2):
        assert impact[i, j] == metrics.disparate_impact(confusion[i, j], reference=REFERENCE)
        alone = metrics.worst_tpr(confusion[i, j], minimum_positives=20)
        np.testing.assert_equal((worst.value[i, j], worst.group[i, j]), (alone.value, alone.group))
        np.testing.assert_array_equal(area[i, j], metrics.auroc(histogram[i, j]))


# --- AUROC -----------------------------------------------------------------------------------------------------------


def test_auroc_equals_sklearn_within_the_stated_bound():
    group, label, score = rows(3)
    histogram = histogram_of(group, label, score)
    everyone = histogram.sum(axis=0)
    error = metrics.auroc_error(everyone)
    assert 0 < error < 0.005
    assert abs(metrics.auroc(everyone) - roc_auc_score(label, score)) <= error
    for g in range(GROUPS):
        exact = roc_auc_score(label[group == g], score[group == g])
        assert abs(metrics.auroc(histogram)[g] - exact) <= metrics.auroc_error(histogram)[g]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_auroc_is_within_its_bound_for_coarse_scores_too(seed, patients):
    rng = np.random.default_rng(seed)
    label = np.r_[0, 1, rng.integers(0, 2, patients)]
    score = rng.choice(rng.random(8) * 0.05, size=len(label))  # few distinct scores, crowded into ten bins
    histogram = histogram_of(np.zeros(len(label), dtype=np.int64), label, score)[0]
    gap = abs(metrics.auroc(histogram) - roc_auc_score(label, score))
    assert gap <= metrics.auroc_error(histogram) + 1e-12


def test_auroc_of_binned_scores_is_exact_ties_included():
    group, label, score = rows(4)
    binned = np.floor(score * metrics.SCORE_BINS)
    found = metrics.auroc(histogram_of(group, label, score).sum(axis=0))
    assert found == pytest.approx(roc_auc_score(label, binned), abs=1e-12)


def test_auroc_of_one_class_is_undefined():
    histogram = np.zeros((2, metrics.SCORE_BINS), dtype=np.int64)
    histogram[0, 3] = 5
    assert np.isnan(metrics.auroc(histogram))
    assert np.isnan(metrics.auroc_error(histogram))
