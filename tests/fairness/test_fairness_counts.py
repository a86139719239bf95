"""Counts by group: sums, nothing else."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, count, selection_rate, true_positive_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fairsynth.fairness import counts

GROUPS = 3
site_counts = arrays(np.float64, (GROUPS, 4), elements=st.floats(0, 1e9, allow_nan=False))


@settings(deadline=None)
@given(
    st.lists(site_counts, min_size=1, max_size=6).flatmap(
        lambda parts: st.tuples(st.just(parts), st.permutations(parts))
    )
)
def test_pooling_is_order_free(lists):
    parts, shuffled = lists
    np.testing.assert_array_equal(counts.pool(parts), counts.pool(shuffled))


@settings(deadline=None)
@given(site_counts)
def test_a_site_of_nobody_changes_no_pool(part):
    np.testing.assert_array_equal(counts.pool([counts.zero(GROUPS), part, counts.zero(GROUPS)]), part)


def test_pooling_is_exact_where_float_sums_are_not():
    parts = [np.full((1, 4), value) for value in (1e16, 1.0, -1e16)]
    assert counts.pool(parts).tolist() == [[1.0] * 4]
    assert np.sum(parts, axis=0).tolist() != [[1.0] * 4]


def rows(seed, patients=400):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, GROUPS, patients)
    label = (rng.random(patients) < 0.3).astype(np.int64)
    score = np.clip(0.4 * label + 0.1 * group + 0.5 * rng.random(patients), 0, 1)
    return group, label, score


def test_hard_counts_match_fairlearn_on_the_same_rows():
    group, label, score = rows(1)
    hard = score > 0.5
    table = counts.count_patients(hard, labels=label, group=group, groups=GROUPS)
    frame = MetricFrame(
        metrics={"n": count, "selection": selection_rate, "tpr": true_positive_rate},
        y_true=label,
        y_pred=hard,
        sensitive_features=group,
    ).by_group
    members, positives, predicted, true_positives = table.T
    np.testing.assert_array_equal(members, frame["n"])
    np.testing.assert_allclose(predicted / members, frame["selection"], atol=1e-12)
    np.testing.assert_allclose(true_positives / positives, frame["tpr"], atol=1e-12)


def test_soft_counts_add_up_patient_by_patient():
    group, label, score = rows(2, patients=50)
    expected = np.zeros((GROUPS, 4))
    for g, y, p in zip(group, label, score, strict=True):
        expected[g] += [1, y, p, y * p]
    np.testing.assert_allclose(
        counts.count_patients(score, labels=label, group=group, groups=GROUPS), expected, atol=1e-12
    )


def test_counts_of_two_halves_pool_to_the_counts_of_all():
    group, label, score = rows(3)
    half = np.arange(len(group)) % 2 == 0
    parts = [
        counts.count_patients(score[part], labels=label[part], group=group[part], groups=GROUPS)
        for part in (half, ~half)
    ]
    whole = counts.count_patients(score, labels=label, group=group, groups=GROUPS)
    np.testing.assert_allclose(counts.pool(parts), whole, rtol=1e-14)


def test_confusion_counts_hold_the_same_statistics_as_rows():
    group, label, score = rows(4)
    hard = score > 0.5
    confusion = np.array(
        [
            [
                (member & hard & (label == 1)).sum(),
                (member & hard & (label == 0)).sum(),
                (member & ~hard & (label == 1)).sum(),
                (member & ~hard & (label == 0)).sum(),
            ]
            for member in (group == g for g in range(GROUPS))
        ]
    )
    expected = counts.count_patients(hard, labels=label, group=group, groups=GROUPS)
    np.testing.assert_array_equal(counts.from_confusion(confusion), expected)


def test_a_pool_of_no_sites_is_an_error_rather_than_zero():
    with pytest.raises(ValueError, match="at least one"):
        counts.pool([])
