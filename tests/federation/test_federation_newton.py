"""The arithmetic that site and server share: sums, their derivatives, the pooled optimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression

from fairsynth.federation.newton import STRENGTHS, Sums, log_loss, minimise, sums_of, symmetric, triangle

RNG = np.random.default_rng(5)
ROWS = (RNG.random((240, 6)) < 0.4).astype(float)
LABEL = (RNG.random(240) < 0.15 + 0.5 * ROWS[:, 0]).astype(np.int64)
SITES = (slice(0, 30), slice(30, 200), slice(200, 240))


def total(at):
    """The sums of three uneven sites."""
    first, *others = (sums_of(ROWS[site], LABEL[site], at) for site in SITES)
    return sum(others, start=first)


def test_the_gradient_is_the_slope_of_the_loss_and_the_hessian_that_of_the_gradient():
    at = RNG.normal(size=7)
    sums = sums_of(ROWS, LABEL, at)
    slope = approx_fprime(at, lambda weights: sums_of(ROWS, LABEL, weights).loss, 1e-6)
    curve = approx_fprime(at, lambda weights: sums_of(ROWS, LABEL, weights).gradient, 1e-6)
    assert sums.gradient == pytest.approx(slope, abs=1e-3)
    assert sums.hessian == pytest.approx(curve, abs=1e-3)


def test_the_loss_is_the_negative_log_chance_of_the_labels():
    at = RNG.normal(size=7)
    chance = 1 / (1 + np.exp(-(ROWS @ at[:-1] + at[-1])))
    nats = -np.log(np.where(LABEL == 1, chance, 1 - chance)).sum()
    assert log_loss(ROWS, LABEL, at) == pytest.approx(nats, rel=1e-12)
    assert sums_of(ROWS, LABEL, at).loss == pytest.approx(nats, rel=1e-12)


@settings(deadline=None)
@given(st.lists(st.integers(1, 239), min_size=1, max_size=4, unique=True), st.integers(0, 99))
def test_however_patients_are_spread_over_sites_the_sums_are_those_of_all(cuts, seed):
    at = np.random.default_rng(seed).normal(size=7)
    first, *others = (sums_of(ROWS[part], LABEL[part], at) for part in np.split(np.arange(240), sorted(cuts)))
    found, whole = sum(others, start=first), sums_of(ROWS, LABEL, at)
    assert found.loss == pytest.approx(whole.loss, rel=1e-12)
    assert found.gradient == pytest.approx(whole.gradient, abs=1e-10)
    assert found.hessian == pytest.approx(whole.hessian, abs=1e-10)


@pytest.mark.parametrize("inverse_strength", [1.0, 0.1, 0.003])
def test_the_optimum_is_scikit_learns_on_the_pooled_patients(inverse_strength):
    found = minimise(total, start=np.zeros(7), inverse_strength=inverse_strength)
    model = LogisticRegression(C=inverse_strength, tol=1e-12, max_iter=5000).fit(ROWS, LABEL)
    assert found.weights == pytest.approx(np.append(model.coef_[0], model.intercept_), abs=1e-5)
    assert found.sums.loss == pytest.approx(log_loss(ROWS, LABEL, found.weights), rel=1e-12)


@pytest.mark.parametrize("inverse_strength", [100.0, 1.0, 0.003])
def test_the_last_step_leaves_no_slope_whatever_the_strength(inverse_strength):
    found = minimise(total, start=np.zeros(7), inverse_strength=inverse_strength)
    slope = inverse_strength * total(found.weights).gradient + np.append(found.weights[:-1], 0)
    np.testing.assert_allclose(slope, 0, atol=inverse_strength * 1e-8)


def test_the_optimum_does_not_depend_on_the_start_even_far_away():
    near = minimise(total, start=np.zeros(7), inverse_strength=0.1).weights
    far = minimise(total, start=np.full(7, 6.0), inverse_strength=0.1).weights  # where whole steps overshoot
    assert far == pytest.approx(near, abs=1e-5)


def test_the_validation_loss_rides_along_and_moves_nothing():
    plain = minimise(total, start=np.zeros(7), inverse_strength=0.1)
    other = minimise(
        lambda at: total(at) + Sums(loss=0, gradient=np.zeros(7), hessian=np.zeros((7, 7)), validation=at.sum()),
        start=np.zeros(7),
        inverse_strength=0.1,
    )
    assert other.weights.tobytes() == plain.weights.tobytes()
    assert other.sums.validation == other.weights.sum()


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 99))
def test_a_symmetric_matrix_is_its_upper_triangle(size, seed):
    half = np.random.default_rng(seed).normal(size=(size, size))
    matrix = half + half.T
    assert triangle(matrix).shape == (size * (size + 1) // 2,)
    assert (symmetric(triangle(matrix), size=size) == matrix).all()


@pytest.mark.parametrize("seed", range(40))
def test_sums_as_coarse_as_masked_ones_lead_to_the_same_optimum_in_few_requests(seed):
    """Losses travel in steps of 2^-29: a fall that is too small to show must not be waited for."""
    rng = np.random.default_rng(seed)
    rows = (rng.random((300, 6)) < 0.3).astype(float)
    label = (rng.random(300) < 1 / (1 + np.exp(1 - rows @ rng.normal(size=6)))).astype(np.int64)
    asked = []

    def rounded(weights):
        asked.append(weights)
        sums = sums_of(rows, label, weights)
        return Sums(
            loss=np.rint(sums.loss * 2**29) / 2**29,
            gradient=np.rint(sums.gradient * 2**36) / 2**36,
            hessian=np.rint(sums.hessian * 2**36) / 2**36,
        )

    masked = plain = np.zeros(7)
    for strength in STRENGTHS:
        masked = minimise(rounded, start=masked, inverse_strength=strength).weights
        plain = minimise(lambda at: sums_of(rows, label, at), start=plain, inverse_strength=strength).weights
        assert np.abs(masked - plain).max() < 1e-7
    assert len(asked) <= 30
