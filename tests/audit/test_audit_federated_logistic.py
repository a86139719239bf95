from __future__ import annotations

import audit_toy as toy
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression

from fairsynth.audit.federated_logistic import federated_logistic
from fairsynth.audit.fitting import bag_of_tokens
from fairsynth.errors import CohortError
from fairsynth.federation.newton import Sums, sums_of
from fairsynth.schemas import SiteId
from fairsynth.visits.records import Records

EVERYBODY = toy.draw([[120, 30], [40, 12]], seed=1)


def weights_of(sites: dict[str, Records], *, inverse_strength: float = 0.03) -> np.ndarray:
    """(F + 1,) of the model of all sites, bias last."""
    fitted = federated_logistic(
        {SiteId(name): records for name, records in sites.items()},
        vocabulary=toy.VOCABULARY,
        inverse_strength=inverse_strength,
    )
    return np.append(fitted.weights, fitted.bias)


def divided(places: np.ndarray) -> dict[str, Records]:
    return {f"site-{place}": EVERYBODY.take(places == place) for place in np.unique(places)}


@pytest.mark.parametrize("inverse_strength", [0.003, 0.1, 1.0, 100.0])
def test_the_weights_are_scikit_learn_s_on_the_pooled_patients(inverse_strength):
    oracle = LogisticRegression(C=inverse_strength, solver="newton-cholesky", tol=1e-12, max_iter=500)
    oracle.fit(bag_of_tokens(EVERYBODY, vocabulary=toy.VOCABULARY), EVERYBODY.label)
    found = weights_of(divided(np.arange(len(EVERYBODY)) % 3), inverse_strength=inverse_strength)
    np.testing.assert_allclose(found, np.append(oracle.coef_[0], oracle.intercept_[0]), atol=1e-6)


@pytest.mark.parametrize("inverse_strength", [0.003, 0.1, 1.0, 100.0])
def test_at_the_weights_nothing_is_left_to_gain(inverse_strength):
    found = weights_of({"all": EVERYBODY}, inverse_strength=inverse_strength)
    rows = bag_of_tokens(EVERYBODY, vocabulary=toy.VOCABULARY).toarray()
    slope = inverse_strength * sums_of(rows, EVERYBODY.label, found).gradient + np.append(found[:-1], 0)
    np.testing.assert_allclose(slope, 0, atol=1e-8)


@pytest.mark.parametrize("inverse_strength", [0.003, 1.0, 100.0])
def test_any_division_among_sites_gives_the_same_weights(inverse_strength):
    together = weights_of({"all": EVERYBODY}, inverse_strength=inverse_strength)
    rng = np.random.default_rng(2)
    size = len(EVERYBODY)
    divisions = [
        rng.integers(0, 5, size),
        EVERYBODY.group,
        EVERYBODY.label,  # one site has no positive patient, the other nobody else
        (np.arange(size) > 0).astype(int),  # a site of one patient
    ]
    for places in divisions:
        found = weights_of(divided(places), inverse_strength=inverse_strength)
        np.testing.assert_allclose(found, together, atol=1e-9)


def test_a_site_without_patients_and_the_order_of_sites_change_nothing():
    sites = divided(np.arange(len(EVERYBODY)) % 3)
    reversed_sites = dict(reversed(sites.items()))
    assert np.array_equal(weights_of(sites), weights_of(reversed_sites))
    empty = {"a-nobody": EVERYBODY.take(np.zeros(0, dtype=np.int64))}
    np.testing.assert_allclose(weights_of({**empty, **sites}), weights_of(sites), atol=1e-12)


def at_random(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.random((25, 4)) < 0.4).astype(float), rng.integers(0, 2, 25), rng.normal(size=5)


def test_gradient_and_hessian_are_the_finite_differences_of_the_loss():
    rows, label, weights = at_random(3)
    found = sums_of(rows, label, weights)
    chance = 1 / (1 + np.exp(-(rows @ weights[:-1] + weights[-1])))
    assert found.loss == pytest.approx(-np.log(np.where(label == 1, chance, 1 - chance)).sum(), rel=1e-12)
    slope = approx_fprime(weights, lambda at: sums_of(rows, label, at).loss, 1e-7)
    np.testing.assert_allclose(found.gradient, slope, atol=1e-4)
    curve = approx_fprime(weights, lambda at: sums_of(rows, label, at).gradient, 1e-7)
    np.testing.assert_allclose(found.hessian, curve, atol=1e-4)


def test_the_sums_of_two_sites_are_those_of_their_patients_together():
    rows, label, weights = at_random(4)
    added = sums_of(rows[:9], label[:9], weights) + sums_of(rows[9:], label[9:], weights)
    whole = sums_of(rows, label, weights)
    assert isinstance(added, Sums)
    assert added.loss == pytest.approx(whole.loss, rel=1e-12)
    np.testing.assert_allclose(added.gradient, whole.gradient, atol=1e-12)
    np.testing.assert_allclose(added.hessian, whole.hessian, atol=1e-12)


def test_a_loss_far_out_is_finite():
    rows, label = np.ones((2, 1)), np.array([0, 1])
    found = sums_of(rows, label, np.array([2000.0, 0.0]))
    assert found.loss == pytest.approx(2000)
    assert np.isfinite(found.hessian).all()


def test_the_bias_is_not_pulled_towards_zero():
    found = weights_of({"all": EVERYBODY}, inverse_strength=1e-9)
    share = EVERYBODY.label.mean()
    np.testing.assert_allclose(found[:-1], 0, atol=1e-5)
    assert found[-1] == pytest.approx(np.log(share / (1 - share)), abs=1e-4)


@pytest.mark.parametrize("label", [0, 1])
def test_patients_of_one_label_are_refused(label):
    alike = EVERYBODY.take(EVERYBODY.label == label)
    with pytest.raises(CohortError, match="one label"):
        weights_of({"a": alike.take(np.arange(5)), "b": alike.take(np.arange(5, 10))})
