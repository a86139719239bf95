import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fairsynth.errors import ConfigError
from fairsynth.governance.noise import (
    UNIT,
    clipped_sum,
    discrete_gaussian,
    from_fixed,
    local_sigma,
    sensitivity_of_cells,
    sum_gap,
)


def test_noise_has_the_probabilities_of_a_discrete_gaussian():
    sigma, number = 2.0, 20_000
    drawn = discrete_gaussian(np.zeros(number, dtype=np.int64), sigma=sigma)
    edge = np.arange(-7, 8)
    mass = np.exp(-(np.arange(-60, 61) ** 2) / (2 * sigma**2))
    mass /= mass.sum()
    inner = mass[60 - 7 : 60 + 8]
    observed = [(drawn == value).sum() for value in edge] + [(np.abs(drawn) > 7).sum()]
    expected = number * np.append(inner, 1 - inner.sum())
    assert stats.chisquare(observed, expected).pvalue > 1e-6


def test_every_value_gets_noise_of_its_own_around_itself():
    values = np.array([[0, 1_000_000], [-5, 2**40]])
    draws = np.stack([discrete_gaussian(values, sigma=30.0) for _ in range(200)]) - values
    assert draws.shape == (200, 2, 2)
    assert np.abs(draws.mean(axis=0)).max() < 30 * 5 / math.sqrt(200)
    correlation = np.corrcoef(draws.reshape(200, 4).T) - np.eye(4)
    assert np.abs(correlation).max() < 0.4


@pytest.mark.parametrize("sigma", [0.0, -1.0, 0.5, math.nan, math.inf])
def test_a_scale_that_gives_no_noise_to_speak_of_is_refused(sigma):
    with pytest.raises(ConfigError, match="FS-100 noise of a scale"):
        discrete_gaussian(np.zeros(3, dtype=np.int64), sigma=sigma)


@pytest.mark.parametrize("values", [np.zeros(2), np.array([2**53]), np.array([1, 2], dtype=np.int32)])
def test_what_is_not_a_small_integer_of_64_bits_is_refused(values):
    with pytest.raises(ConfigError, match="values that noise"):
        discrete_gaussian(values, sigma=2.0)


def test_noise_of_the_honest_sites_adds_up_to_what_was_asked():
    each = local_sigma(10.0, sites=7, colluding=3)
    assert each * math.sqrt(4) == pytest.approx(10.0)


def test_with_two_sites_each_needs_the_whole_noise():
    assert local_sigma(10.0, sites=2, colluding=1) == 10.0


@pytest.mark.parametrize("colluding", [2, 3, -1])
def test_nobody_honest_is_refused(colluding):
    with pytest.raises(ConfigError, match="no honest site"):
        local_sigma(10.0, sites=2, colluding=colluding)


def test_a_patient_who_changes_k_cells_has_sensitivity_root_k():
    assert sensitivity_of_cells(50) == pytest.approx(np.linalg.norm(np.ones(50)))


def test_sums_of_discrete_gaussians_are_as_good_as_one_from_sigma_3_on():
    assert sum_gap(3.0, sites=50) < 1e-36
    assert sum_gap(0.3, sites=3) > 1


@settings(max_examples=200, deadline=None)
@given(
    patients=arrays(np.float64, (5, 3), elements=st.floats(-1e6, 1e6)),
    who=st.integers(0, 4),
    bound=st.floats(0.01, 100),
)
def test_one_patient_more_or_less_changes_a_clipped_sum_by_the_bound_at_most(patients, who, bound):
    without = np.delete(patients, who, axis=0)
    change = clipped_sum(patients, bound=bound) - clipped_sum(without, bound=bound)
    assert np.linalg.norm(change.astype(float)) <= bound * UNIT


def test_small_vectors_are_summed_as_they_are():
    vectors = np.array([[1.0, 0.5], [0.25, 2.0], [0.0, 0.0]])
    assert np.abs(from_fixed(clipped_sum(vectors, bound=10.0)) - [1.25, 2.5]).max() <= 3 / UNIT


def test_a_vector_that_is_not_finite_adds_nothing():
    vectors = np.array([[1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0]])
    assert (clipped_sum(vectors, bound=10.0) == clipped_sum(vectors[:1], bound=10.0)).all()
