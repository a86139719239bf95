from __future__ import annotations

import inspect
from dataclasses import dataclass

import audit_toy as toy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from fairsynth.audit.evaluate import balanced_accuracy, confusion, evaluate, histogram, tuned_threshold
from fairsynth.audit.fidelity import code_totals, code_visits
from fairsynth.audit.predictors import FitSettings, load_predictor
from fairsynth.augmentation.baselines import copy_plan, copy_rows
from fairsynth.augmentation.mixing import FAIRSYNTH, OVERSAMPLED, PLAIN_SYNTHETIC, REAL_ONLY, mix
from fairsynth.augmentation.plan import equal_cells, members_of
from fairsynth.errors import ConfigError
from fairsynth.visits.records import Records


@dataclass(frozen=True)
class Known:
    """Scores a patient by the share of code 0 in the first visit's codes; remembers what it was shown."""

    shown: list[Records]

    def scores(self, records: Records) -> np.ndarray:
        self.shown.append(records)
        return (records.visit_counts * 37 % 101) / 100


def rows(groups: int = 3):
    patient = st.tuples(st.integers(0, 100), st.integers(0, 1), st.integers(0, groups - 1))
    return st.lists(patient, min_size=1, max_size=60).map(lambda values: np.array(values, dtype=np.int64).T)


@settings(deadline=None)
@given(rows())
def test_confusion_equals_scikit_learn_group_by_group(table):
    score, label, group = table
    predicted = score >= 50
    ours = confusion(predicted, label=label, group=group, groups=3)
    for g in range(3):
        if not (group == g).any():
            assert ours[g].tolist() == [0, 0, 0, 0]
            continue
        tn, fp, fn, tp = confusion_matrix(label[group == g], predicted[group == g], labels=[0, 1]).ravel()
        assert ours[g].tolist() == [tp, fp, fn, tn]


@settings(deadline=None)
@given(rows())
def test_the_histogram_counts_everyone_once_in_the_bin_of_the_score(table):
    score, label, group = table
    counts = histogram(score / 100, label=label, group=group, groups=3)
    assert counts.shape == (3, 2, 200) and counts.dtype == np.int64
    expected = np.zeros_like(counts)
    for s, y, g in zip(score, label, group, strict=True):
        expected[g, y, min(2 * s, 199) if (s / 100) * 200 >= 2 * s else 2 * s - 1] += 1
    assert np.array_equal(counts, expected)


@settings(deadline=None)
@given(rows())
def test_the_tuned_threshold_has_the_best_f1_of_all(table):
    score, label, _ = table
    threshold = tuned_threshold(score / 100, label)
    if not label.any():
        assert threshold == 0.5
        return
    best = max(f1_score(label, score / 100 >= t, zero_division=0.0) for t in np.unique(score / 100))
    assert f1_score(label, score / 100 >= threshold) == pytest.approx(best, abs=1e-12)


def test_balanced_accuracy_equals_scikit_learn_where_both_labels_occur():
    rng = np.random.default_rng(0)
    label, group, predicted = rng.integers(0, 2, 90), np.repeat([0, 1, 2], 30), rng.random(90) < 0.6
    label[group == 2] = 0  # left out: it has no positive
    expected = np.mean([balanced_accuracy_score(label[group == g], predicted[group == g]) for g in (0, 1)])
    assert balanced_accuracy(confusion(predicted, label=label, group=group, groups=3)) == pytest.approx(expected)
    assert balanced_accuracy(np.array([[0, 3, 0, 4]])) == 0.5


def test_only_the_real_held_out_patients_are_counted():
    cohort, fitted = toy.cohort(toy.draw([[40, 10], [10, 2]], seed=1)), Known([])
    result = evaluate(fitted, cohort=cohort)
    held_out = members_of(cohort.held_out.group, cohort.held_out.label, groups=2)
    assert (result.scores.sum(axis=-1) == held_out).all()
    assert (result.confusion[..., [0, 2]].sum(axis=-1) == held_out[:, 1]).all()
    assert (result.confusion[..., [1, 3]].sum(axis=-1) == held_out[:, 0]).all()
    assert [len(shown) for shown in fitted.shown] == [len(cohort.validation), len(cohort.held_out)]


def test_no_caller_can_choose_who_is_evaluated():
    assert set(inspect.signature(evaluate).parameters) == {"fitted", "cohort"}


def test_a_predictor_is_never_shown_a_label():
    fitted = Known([])
    evaluate(fitted, cohort=toy.cohort(toy.draw([[40, 10], [10, 2]], seed=1)))
    assert all(not shown.label.any() and toy.LAYOUT.label not in shown.context for shown in fitted.shown)


def test_the_first_threshold_is_a_half_and_the_second_is_tuned_on_validation():
    cohort = toy.cohort(toy.draw([[40, 10], [10, 2]], seed=1))
    result = evaluate(Known([]), cohort=cohort)
    validation = Known([]).scores(cohort.validation)
    assert result.thresholds.tolist() == [0.5, tuned_threshold(validation, cohort.validation.label)]
    predicted = Known([]).scores(cohort.held_out) >= 0.5
    assert result.confusion[0][:, :2].sum() == predicted.sum()


@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan")])
def test_scores_outside_the_unit_interval_are_refused(bad):
    class Wrong:
        def scores(self, records: Records) -> np.ndarray:
            return np.full(len(records), bad)

    with pytest.raises(ConfigError):
        evaluate(Wrong(), cohort=toy.cohort(toy.draw([[4, 1], [1, 1]], seed=1)))


@settings(deadline=None)
@given(arrays(np.bool_, (7, toy.CODES)))
def test_code_visits_count_visits(has):
    rng = np.random.default_rng(0)
    part = toy.records(has, visits=np.array([2, 4, 1]), group=np.array([0, 1, 0]), label=np.array([0, 1, 1]), rng=rng)
    assert code_visits([part, part.take(np.array([2]))], codes=toy.CODES).tolist() == [
        has.sum(axis=0).tolist(),
        has[6].astype(int).tolist(),
    ]
    assert code_totals([part, part.take(np.array([2]))]).tolist() == [7, 1]


# --- what the plan and the mixing are for: the minority's positives are nearly absent from the real patients ---------

REAL = [[700, 150], [120, 5]]
BUDGET = 1200


def audit(added_by: dict[str, Records], *, seed: int) -> dict[str, np.ndarray]:
    """Confusion (G, 4) at 0.5 of each approach, logistic regression."""
    train = toy.draw(REAL, seed=100 + seed)
    cohort = toy.cohort(train)
    copies = train.take(copy_rows(train, cells=copy_plan(np.array(REAL), budget=BUDGET), seed=seed))
    mixed = mix(train, plain=added_by["plain"], copies=copies, fairsynth=added_by["fairsynth"], groups=2)
    settings = FitSettings(epochs=1, threads=1)
    results = {}
    for each in mixed:
        fitted = load_predictor("logistic_regression").fit(
            each.records, vocabulary=toy.VOCABULARY, settings=settings, seed=seed
        )
        results[each.approach] = evaluate(fitted, cohort=cohort).confusion[0]
    return results


def worst_tpr(confusion_: np.ndarray) -> float:
    return float((confusion_[:, 0] / (confusion_[:, 0] + confusion_[:, 2])).min())


def natural_cells(number: int) -> np.ndarray:
    """`number` patients in the proportions of the real ones."""
    return np.rint(np.array(REAL) * number / np.sum(REAL)).astype(int)


@pytest.mark.parametrize("seed", range(3))
def test_true_patients_in_equal_cells_raise_the_worst_tpr_and_the_same_number_without_quotas_does_not(seed):
    cells = equal_cells(np.array(REAL), budget=BUDGET)
    total = np.array(REAL) + cells
    assert total[0, 0] == 700 and np.ptp(total.ravel()[1:]) <= 1  # the plan: every other cell equal, the largest as is
    added = {"fairsynth": toy.draw(cells, seed=seed), "plain": toy.draw(natural_cells(BUDGET), seed=50 + seed)}
    results = audit(added, seed=seed)
    assert worst_tpr(results[FAIRSYNTH]) > worst_tpr(results[REAL_ONLY]) + 0.25
    assert worst_tpr(results[FAIRSYNTH]) > worst_tpr(results[PLAIN_SYNTHETIC]) + 0.15
    assert worst_tpr(results[FAIRSYNTH]) > worst_tpr(results[OVERSAMPLED]) + 0.15


@pytest.mark.parametrize("seed", range(3))
def test_equal_cells_of_patients_whose_codes_say_nothing_only_move_the_threshold(seed):
    """Negative control: the same cells, patients without any sign of their label (what a useless generator gives)."""
    cells = equal_cells(np.array(REAL), budget=BUDGET)
    useless = toy.draw(cells, seed=seed, signal=0.12)
    good = toy.draw(cells, seed=seed)
    with_useless, with_good = (
        audit({"fairsynth": each, "plain": each}, seed=seed)[FAIRSYNTH] for each in (useless, good)
    )
    minority_good, minority_useless = (balanced_accuracy(each[1:]) for each in (with_good, with_useless))
    assert minority_good > 0.7
    assert minority_useless < 0.65  # a higher TPR at 0.5, all of it paid for with false positives


def test_the_guard_against_leaks_can_fail():
    """A predictor that reads the label would be perfect on unblinded patients and is blind on these."""

    class Cheat:
        def scores(self, records: Records) -> np.ndarray:
            return records.label.astype(np.float64)

    cohort = toy.cohort(toy.draw([[40, 10], [10, 2]], seed=1))
    assert np.array_equal(Cheat().scores(cohort.held_out) >= 0.5, cohort.held_out.label == 1)
    assert evaluate(Cheat(), cohort=cohort).confusion[0][:, 0].sum() == 0
