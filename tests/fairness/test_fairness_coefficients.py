"""Coefficients: derivatives of the pooled loss, and the law that sites' gradients add up to the pooled one."""

import numpy as np
import pytest
import torch

from fairsynth.config import ObjectiveConfig
from fairsynth.errors import CohortError
from fairsynth.fairness import objectives
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.counts import count_patients, pool

NAMES = ("demographic_parity", "disparate_impact", "equal_opportunity", "equalised_odds", "worst_tpr")
EVERY = [(name, comparison) for name in NAMES for comparison in ("pooled", "mean", "max")]
REFERENCE = np.array([True, False, False, False])
GROUPS = 4


def config(name, comparison="pooled"):
    return ObjectiveConfig(name=name, comparison=comparison, target="label")


def site(seed, *, groups, patients):
    """Features (B, D), label (B,) and group (B,) of one site."""
    rng = np.random.default_rng(seed)
    group = rng.choice(groups, size=patients)
    features = np.column_stack([rng.normal(size=(patients, 5)) + 0.4 * group[:, None], np.ones(patients)])
    label = (rng.random(patients) < 0.2 + 0.1 * (group == 1)).astype(np.int64)
    return features, label, group


# Uneven on purpose: 400, 60 and 23 patients; the second lacks group 3, the third has one group only.
SITES = [
    site(11, groups=[0, 1, 2, 3], patients=400),
    site(12, groups=[0, 1, 2], patients=60),
    site(13, groups=[2], patients=23),
]
WEIGHTS = torch.tensor([0.3, -0.8, 0.5, 0.1, 0.6, -0.4], dtype=torch.float64)


def soft(weights, features):
    return torch.sigmoid(torch.tensor(features) @ weights)


def soft_counts(weights):
    with torch.no_grad():
        return [count_patients(soft(weights, x).numpy(), labels=y, group=g, groups=GROUPS) for x, y, g in SITES]


def pooled_gradient(name, comparison):
    """The gradient of the objective on all patients in one place, by autograd alone."""
    weights = WEIGHTS.clone().requires_grad_()
    x, y, g = (np.concatenate(parts) for parts in zip(*SITES, strict=True))
    p, y, member = soft(weights, x), torch.tensor(y), torch.nn.functional.one_hot(torch.tensor(g), GROUPS).double()
    counts = torch.stack([member.sum(0), (member * y[:, None]).sum(0), member.T @ p, member.T @ (p * y)], dim=1)
    loss = getattr(objectives, name)(counts, reference=torch.tensor(REFERENCE), comparison=comparison)
    loss.backward()
    return loss.item(), weights.grad


@pytest.mark.parametrize(("name", "comparison"), EVERY)
def test_the_sum_of_uneven_sites_gradients_equals_the_pooled_gradient(name, comparison):
    parts = soft_counts(WEIGHTS)
    assert parts[1][3, 0] == 0  # this site lacks a group
    found = coefficients(config(name, comparison), pool(parts), reference=REFERENCE)
    total = torch.zeros_like(WEIGHTS)
    for x, y, g in SITES:  # each site alone: linear in its own patients, no ratio formed
        weights = WEIGHTS.clone().requires_grad_()
        p, c = soft(weights, x), torch.tensor(found.values)[g]
        (c[:, 0] * p + c[:, 1] * torch.tensor(y) * p).sum().backward()
        total += weights.grad
    loss, expected = pooled_gradient(name, comparison)
    assert found.loss == pytest.approx(loss, rel=1e-12)
    assert expected.norm() > 1e-3
    assert ((total - expected).norm() / expected.norm()).item() < 1e-6


@pytest.mark.parametrize(("name", "comparison"), EVERY)
def test_coefficients_equal_finite_differences(name, comparison):
    counts = pool(soft_counts(WEIGHTS))
    found = coefficients(config(name, comparison), counts, reference=REFERENCE)
    step = 1e-5
    for group in range(GROUPS):
        for column in (2, 3):
            values = []
            for sign in (1, -1):
                moved = counts.copy()
                moved[group, column] += sign * step
                values.append(coefficients(config(name, comparison), moved, reference=REFERENCE).loss)
            slope = (values[0] - values[1]) / (2 * step)
            assert found.values[group, column - 2] == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_following_the_coefficients_lowers_the_loss(name):
    weights, before = WEIGHTS.clone(), None
    for _ in range(20):
        found = coefficients(config(name), pool(soft_counts(weights)), reference=REFERENCE)
        before = before or found.loss
        weights.requires_grad_()
        total = sum(
            (
                (c := torch.tensor(found.values)[g])[:, 0] * soft(weights, x)
                + c[:, 1] * torch.tensor(y) * soft(weights, x)
            ).sum()
            for x, y, g in SITES
        )
        (gradient,) = torch.autograd.grad(total, weights)
        weights = (weights - 0.1 * gradient).detach()
    assert found.loss < 0.9 * before


def test_the_gradient_moves_the_selection_rates_towards_parity():
    objective, weights, ratios = config("disparate_impact"), WEIGHTS.clone(), []
    for _ in range(30):
        counts = pool(soft_counts(weights))
        protected, base = counts[1:].sum(axis=0), counts[0]
        ratios.append((protected[2] / protected[0]) / (base[2] / base[0]))
        found = coefficients(objective, counts, reference=REFERENCE)
        weights.requires_grad_()
        total = sum((torch.tensor(found.values)[g][:, 0] * soft(weights, x)).sum() for x, _, g in SITES)
        (gradient,) = torch.autograd.grad(total, weights)
        weights = (weights - 0.04 * gradient).detach()
    assert abs(1 - ratios[0]) > 0.15
    assert abs(1 - ratios[-1]) < 0.5 * abs(1 - ratios[0])


@pytest.mark.parametrize(("name", "comparison"), EVERY)
def test_groups_without_patients_or_positives_have_coefficient_zero(name, comparison):
    counts = pool(soft_counts(WEIGHTS))
    counts[3] = 0
    counts[2, [1, 3]] = 0
    found = coefficients(config(name, comparison), counts, reference=REFERENCE)
    assert np.isfinite(found.values).all()
    assert not found.values[3].any()
    assert not found.values[2, 1]
    assert found.values[:2].any()


def test_nobody_to_compare_stops_with_a_coded_error():
    counts = pool(soft_counts(WEIGHTS))
    counts[0] = 0  # the reference group
    with pytest.raises(CohortError, match="nobody to compare"):
        coefficients(config("disparate_impact"), counts, reference=REFERENCE)


def test_no_positives_anywhere_stops_a_true_positive_objective():
    counts = pool(soft_counts(WEIGHTS))
    counts[:, [1, 3]] = 0
    with pytest.raises(CohortError, match="nobody to compare"):
        coefficients(config("worst_tpr"), counts, reference=REFERENCE)
