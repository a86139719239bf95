"""Coefficients under noise: used where they stand out of it."""

from __future__ import annotations

import numpy as np
import pytest

from fairsynth.config import ObjectiveConfig
from fairsynth.fairness.coefficients import coefficients
from fairsynth.federation.noised.steady import outstanding, possible

REFERENCE = np.array([True, False])
OBJECTIVE = ObjectiveConfig()


def counts(rate, *, members=1000.0):
    """Two groups of `members`, the second predicted at `rate`, the first at 0.4."""
    rows = [[members, 0.3 * members, r * members, 0.2 * members * r] for r in (0.4, rate)]
    return np.array(rows)


def found(values, *, noise):
    return outstanding(OBJECTIVE, values, deviations=np.full(values.shape, float(noise)), reference=REFERENCE, seed=1)


def test_far_from_parity_they_are_those_of_the_counts():
    values = counts(0.2)
    expected = coefficients(OBJECTIVE, values, reference=REFERENCE).values
    assert np.array_equal(found(values, noise=2), expected)
    assert expected.any()


def test_near_parity_where_noise_may_turn_them_there_are_none():
    assert coefficients(OBJECTIVE, counts(0.399), reference=REFERENCE).values.any()
    assert not found(counts(0.399), noise=20)[:, 0].any()


def test_without_noise_all_are_used():
    values = counts(0.399)
    assert np.array_equal(found(values, noise=0), coefficients(OBJECTIVE, values, reference=REFERENCE).values)


def test_where_there_is_nobody_to_compare_there_are_none():
    values = counts(0.2)
    values[1] = 0
    assert not found(values, noise=1).any()


def test_the_same_counts_give_the_same_coefficients():
    values = counts(0.3)
    assert np.array_equal(found(values, noise=10), found(values, noise=10))


@pytest.mark.parametrize("label", [True, False])
def test_impossible_counts_become_the_nearest_possible_ones(label):
    made = possible(np.array([[10.0, 12.0, -3.0, 4.0], [8.0, 5.0, 6.0, 9.0]]), label=label)
    assert (made >= 0).all()
    assert (made[:, 3] <= made[:, 1]).all()
    assert (made[:, 3] <= made[:, 2]).all()
    assert made[1].tolist() == [8.0, 5.0, 6.0, 5.0]
    assert made[0, 1] == (10.0 if label else 12.0)
