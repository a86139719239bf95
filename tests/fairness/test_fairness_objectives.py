"""Objectives: their values against fairlearn and the paper's algorithm, and what happens to empty groups."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equal_opportunity_difference, equalized_odds_difference
from hypothesis import given, settings
from hypothesis import strategies as st

from fairsynth.config import ObjectiveConfig
from fairsynth.errors import ConfigError
from fairsynth.fairness import objectives
from fairsynth.fairness.counts import count_patients

NAMES = ("demographic_parity", "disparate_impact", "equal_opportunity", "equalised_odds", "worst_tpr")
TWO = torch.tensor([True, False])
FIVE = torch.tensor([True, False, False, True, False])


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def hard_rows():
    rng = np.random.default_rng(5)
    group = rng.integers(0, 2, 300)
    label = (rng.random(300) < 0.4).astype(np.int64)
    hard = rng.random(300) < 0.3 + 0.2 * label + 0.15 * group
    return group, label, hard


def invented_counts():
    return tensor(
        [
            [400.0, 60.0, 70.5, 30.25],
            [100.0, 20.0, 12.5, 7.5],
            [50.0, 4.0, 9.0, 2.5],
            [40.0, 8.0, 6.0, 4.0],
            [30.0, 5.0, 8.0, 1.0],
        ]
    )


def value(name, counts, reference, comparison="pooled"):
    return getattr(objectives, name)(counts, reference=reference, comparison=comparison)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("demographic_parity", demographic_parity_difference),
        ("equal_opportunity", equal_opportunity_difference),
        ("equalised_odds", lambda *args, **keys: equalized_odds_difference(*args, **keys, agg="mean")),
    ],
)
@pytest.mark.parametrize("comparison", ["pooled", "mean", "max"])
def test_differences_of_two_groups_match_fairlearn_on_the_same_rows(name, oracle, comparison):
    group, label, hard = hard_rows()
    counts = tensor(count_patients(hard, labels=label, group=group, groups=2))
    expected = oracle(label, hard, sensitive_features=group)
    assert expected > 0.01
    assert value(name, counts, TWO, comparison).item() == pytest.approx(expected, abs=1e-12)


def test_disparate_impact_matches_algorithm_2_of_the_paper():
    rng = np.random.default_rng(6)
    probabilities, group = rng.random((80, 7)), rng.integers(0, 2, 80)  # (N, C): codes, as in the paper
    selected, members = [0, 0], [0, 0]
    for i in range(80):
        selected[group[i]] += sum(1 for c in range(7) if probabilities[i, c] > 0.5)
        members[group[i]] += 1
    expected = abs(1 - (selected[1] / members[1]) / (selected[0] / members[0]))

    per_patient = (probabilities > 0.5).sum(axis=1)
    counts = tensor(count_patients(per_patient, labels=np.zeros(80, dtype=np.int64), group=group, groups=2))
    assert value("disparate_impact", counts, TWO).item() == pytest.approx(expected, abs=1e-12)


def test_comparisons_pool_average_or_take_the_largest_of_the_protected_groups():
    counts = invented_counts()
    base = (70.5 + 6) / (400 + 40)
    each = [abs(1 - 12.5 / 100 / base), abs(1 - 9 / 50 / base), abs(1 - 8 / 30 / base)]
    pooled = abs(1 - (12.5 + 9 + 8) / 180 / base)
    assert value("disparate_impact", counts, FIVE, "pooled").item() == pytest.approx(pooled)
    assert value("disparate_impact", counts, FIVE, "mean").item() == pytest.approx(sum(each) / 3)
    assert value("disparate_impact", counts, FIVE, "max").item() == pytest.approx(max(each))


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=8))
def test_soft_worst_tpr_lies_between_the_worst_group_and_its_stated_bound(rates):
    counts = tensor([[100.0, 50.0, 60.0, 50.0 * rate] for rate in rates])
    softmin = 1 - value("worst_tpr", counts, torch.zeros(len(rates), dtype=torch.bool)).item()
    assert min(rates) - 1e-9 <= softmin <= min(rates) + objectives.SOFTMIN_TEMPERATURE * np.log(len(rates)) + 1e-9
    assert softmin <= np.mean(rates) + 1e-9


def test_worst_tpr_pulls_hardest_on_the_worst_group():
    counts = invented_counts().requires_grad_()
    value("worst_tpr", counts, FIVE).backward()
    per_rate = counts.grad[:, 3] * counts[:, 1].detach()  # dL / dTPR_g: minus the softmin weights
    assert per_rate.argmin() == 4  # TPR 0.2
    assert per_rate.sum().item() == pytest.approx(-1)
    assert (per_rate < 0).all()


@pytest.mark.parametrize("comparison", ["pooled", "mean", "max"])
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_group_is_left_out_and_no_gradient_is_nan(name, comparison):
    counts = invented_counts()
    with_empty = torch.cat([counts, torch.zeros(1, 4, dtype=torch.float64)]).requires_grad_()
    loss = value(name, with_empty, torch.cat([FIVE, torch.tensor([False])]), comparison)
    loss.backward()
    assert loss.item() == value(name, counts, FIVE, comparison).item()
    assert torch.isfinite(with_empty.grad).all()
    assert with_empty.grad[:5, 2:].any()
    assert comparison == "pooled" or not with_empty.grad[5].any()  # one more in the pool would count; nobody is there


@pytest.mark.parametrize("comparison", ["mean", "max"])
@pytest.mark.parametrize("name", ["worst_tpr", "equal_opportunity"])
def test_a_group_without_positives_is_left_out_of_true_positive_rates(name, comparison):
    counts = invented_counts()
    no_positives = torch.cat([counts, tensor([[20.0, 0.0, 3.0, 0.0]])]).requires_grad_()
    loss = value(name, no_positives, torch.cat([FIVE, torch.tensor([False])]), comparison)
    loss.backward()
    assert loss.item() == value(name, counts, FIVE, comparison).item()
    assert torch.isfinite(no_positives.grad).all()
    assert not no_positives.grad[5].any()


@pytest.mark.parametrize("comparison", ["pooled", "mean", "max"])
@pytest.mark.parametrize("name", ["demographic_parity", "disparate_impact", "equal_opportunity", "equalised_odds"])
@pytest.mark.parametrize("empty", [[0, 3], [1, 2, 4]])
def test_nobody_to_compare_is_undefined_rather_than_fair(name, comparison, empty):
    counts = invented_counts()
    counts[empty] = 0
    assert torch.isnan(value(name, counts, FIVE, comparison))


def test_a_reference_that_selects_nobody_has_no_disparate_impact():
    counts = invented_counts()
    counts[[0, 3], 2:] = 0
    assert torch.isnan(value("disparate_impact", counts, FIVE))


# --- loading ---------------------------------------------------------------------------------------------------------


def test_every_objective_declared_in_pyproject_loads_for_every_comparison():
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    declared = pyproject["project"]["entry-points"]["fairsynth.objectives"]
    assert sorted(declared) == sorted(NAMES)
    for name in declared:
        for comparison in ("pooled", "mean", "max"):
            config = ObjectiveConfig(name=name, target="label", comparison=comparison)
            assert objectives.load_objective(config) is getattr(objectives, name)
        assert objectives.load_objective(name) is getattr(objectives, name)


def test_an_unknown_objective_names_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        objectives.load_objective("disparate_impct")
    assert "disparate_impct" in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)


def test_equalised_odds_of_codes_is_refused_since_codes_have_no_negatives():
    with pytest.raises(ConfigError, match="target label"):
        objectives.load_objective(ObjectiveConfig(name="equalised_odds", target="codes"))
