"""Several weighted objectives, the favourable outcome, and the differences that a report prints."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fairsynth.config import GroupsConfig, ObjectiveConfig, ObjectiveTerm
from fairsynth.errors import CohortError, ConfigError
from fairsynth.fairness import metrics, objectives
from fairsynth.fairness.coefficients import coefficients, names
from fairsynth.fairness.counts import count_patients, from_confusion
from fairsynth.fairness.terms import mirrored

DOC = Path(__file__).parents[2] / "docs" / "objectives.md"
REFERENCE = np.array([True, False, False])
COUNTS = np.array([[400.0, 60, 70.5, 30.25], [100, 20, 12.5, 7.5], [50, 4, 9, 2.5]])


def rows(groups=3, patients=500, seed=7):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, patients)
    label = (rng.random(patients) < 0.35).astype(np.int64)
    hard = rng.random(patients) < 0.25 + 0.3 * label + 0.1 * group
    return group, label, hard.astype(np.int64)


def confusion_of(group, label, hard, groups=3):
    cells = np.zeros((groups, 4), dtype=np.int64)
    np.add.at(cells, (group, np.where(label == 1, np.where(hard, 0, 2), np.where(hard, 1, 3))), 1)
    return cells


# --- differences, against fairlearn ----------------------------------------------------------------------------------


def test_differences_between_all_groups_match_fairlearn_on_the_same_rows():
    group, label, hard = rows()
    cells, keys = confusion_of(group, label, hard), {"sensitive_features": group}
    parity = metrics.demographic_parity_difference(cells, reference=None)
    opportunity = metrics.equal_opportunity_difference(cells, reference=None, minimum_positives=1)
    odds = metrics.equalised_odds_difference(cells, reference=None, minimum_positives=1)
    assert parity == pytest.approx(demographic_parity_difference(label, hard, **keys), abs=1e-12)
    assert opportunity == pytest.approx(equal_opportunity_difference(label, hard, **keys), abs=1e-12)
    assert odds == pytest.approx(equalized_odds_difference(label, hard, **keys), abs=1e-12)
    assert min(parity, opportunity, odds) > 0.05


def test_differences_from_the_reference_are_the_largest_distance_of_another_group_from_it():
    group, label, hard = rows()
    cells = confusion_of(group, label, hard)
    frame = MetricFrame(
        metrics={"selection": selection_rate, "tpr": true_positive_rate, "fpr": false_positive_rate},
        y_true=label,
        y_pred=hard,
        sensitive_features=group,
    ).by_group
    expected = (frame.loc[1:] - frame.loc[0]).abs().max()
    parity = metrics.demographic_parity_difference(cells, reference=REFERENCE)
    opportunity = metrics.equal_opportunity_difference(cells, reference=REFERENCE, minimum_positives=1)
    odds = metrics.equalised_odds_difference(cells, reference=REFERENCE, minimum_positives=1)
    assert parity == pytest.approx(expected["selection"], abs=1e-12)
    assert opportunity == pytest.approx(expected["tpr"], abs=1e-12)
    assert odds == pytest.approx(max(expected["tpr"], expected["fpr"]), abs=1e-12)


def test_several_reference_groups_are_pooled_before_the_distance_is_taken():
    cells = np.array([[10, 10, 10, 70], [5, 5, 5, 5], [2, 1, 3, 14]])  # selected 20 of 100, 10 of 20, 3 of 20
    found = metrics.demographic_parity_difference(cells, reference=np.array([True, True, False]))
    assert found == pytest.approx(30 / 120 - 3 / 20)


def test_a_group_with_too_few_positives_enters_no_difference_of_true_positive_rates():
    cells = np.array([[20, 0, 20, 60], [15, 0, 5, 30], [0, 0, 10, 30]])  # TPR 1/2, 3/4, 0 of 10
    keys = {"reference": REFERENCE}
    assert metrics.equal_opportunity_difference(cells, minimum_positives=11, **keys) == pytest.approx(0.25)
    assert metrics.equal_opportunity_difference(cells, minimum_positives=10, **keys) == pytest.approx(0.5)
    assert metrics.equal_opportunity_difference(cells, minimum_positives=11, reference=None) == pytest.approx(0.25)
    for reference in (REFERENCE, None):
        assert np.isnan(metrics.equal_opportunity_difference(cells, reference=reference, minimum_positives=21))
        assert np.isnan(metrics.equalised_odds_difference(cells, reference=reference, minimum_positives=21))


def test_a_group_without_patients_enters_no_difference_of_selection_rates():
    cells = np.array([[20, 0, 20, 60], [15, 0, 5, 30], [0, 0, 0, 0]])
    assert metrics.demographic_parity_difference(cells, reference=REFERENCE) == pytest.approx(0.1)
    assert metrics.demographic_parity_difference(cells, reference=None) == pytest.approx(0.1)
    assert np.isnan(metrics.demographic_parity_difference(cells[[0, 2]], reference=REFERENCE[:2]))


@pytest.mark.parametrize("favourable", ["positive", "negative"])
def test_disparate_impact_of_the_favourable_prediction_matches_fairlearn(favourable):
    group, label, hard = rows(groups=2)
    cells = confusion_of(group, label, hard, groups=2)
    found = metrics.disparate_impact(cells, reference=np.array([True, False]), favourable=favourable)
    favoured = hard if favourable == "positive" else 1 - hard
    ratio = demographic_parity_ratio(label, favoured, sensitive_features=group)  # the smaller rate over the larger
    assert min(found, 1 / found) == pytest.approx(ratio, abs=1e-12)
    assert (found > 1) == (favourable == "positive")  # group 1 is selected more often
    distance = metrics.abs_log_di(cells, reference=np.array([True, False]), favourable=favourable)
    assert distance == pytest.approx(-np.log(ratio))


def test_log_distance_is_infinite_for_nobody_favoured_and_undefined_without_a_favoured_reference():
    nobody_protected = np.array([[2, 3, 5, 45], [0, 0, 2, 20], [0, 0, 0, 8]])
    assert metrics.abs_log_di(nobody_protected, reference=REFERENCE) == np.inf
    assert np.isnan(metrics.abs_log_di(nobody_protected[::-1], reference=REFERENCE))


# --- the favourable outcome in training ------------------------------------------------------------------------------


def test_mirrored_counts_are_those_of_the_opposite_labels_and_predictions():
    group, label, hard = rows()
    counts = torch.tensor(count_patients(hard, labels=label, group=group, groups=3))
    opposite = torch.tensor(count_patients(1 - hard, labels=1 - label, group=group, groups=3))
    assert torch.equal(mirrored(counts), opposite)
    assert torch.equal(mirrored(mirrored(counts)), counts)


def test_the_loss_of_the_negative_outcome_agrees_with_the_reported_ratio():
    cells = confusion_of(*rows())
    config = ObjectiveConfig(target="label", favourable="negative")
    found = coefficients(config, from_confusion(cells), reference=REFERENCE)
    ratio = metrics.disparate_impact(cells, reference=REFERENCE, favourable="negative")
    assert found.loss == pytest.approx(abs(1 - ratio), abs=1e-12)
    assert found.loss != pytest.approx(
        coefficients(ObjectiveConfig(target="label"), from_confusion(cells), reference=REFERENCE).loss, abs=1e-3
    )


def test_codes_have_no_negative_prediction_to_favour():
    with pytest.raises(ValidationError, match="target: label"):
        ObjectiveConfig(target="codes", favourable="negative")
    with pytest.raises(ValidationError, match="target: label"):
        ObjectiveConfig(target="codes", also=(ObjectiveTerm(name="demographic_parity", favourable="negative"),))


# --- several objectives ----------------------------------------------------------------------------------------------

ALSO = (
    ObjectiveTerm(name="worst_tpr", share=0.5),
    ObjectiveTerm(name="demographic_parity", comparison="max", share=3.0),
)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0.01, 10))
def test_loss_and_gradient_of_a_weighted_sum_are_the_weighted_sums(first, second, third):
    shares = (first, second, third)
    parts = [("disparate_impact", "mean"), ("worst_tpr", "pooled"), ("demographic_parity", "max")]
    terms = [
        ObjectiveTerm(name=name, comparison=comparison, share=share)
        for (name, comparison), share in zip(parts, shares, strict=True)
    ]
    config = ObjectiveConfig(**terms[0].model_dump(), target="label", also=terms[1:])
    together = coefficients(config, COUNTS, reference=REFERENCE)
    alone = [
        coefficients(ObjectiveConfig(name=name, comparison=comparison, target="label"), COUNTS, reference=REFERENCE)
        for name, comparison in parts
    ]
    assert together.loss == pytest.approx(sum(w * one.loss for w, one in zip(shares, alone, strict=True)), rel=1e-12)
    expected = sum(w * one.values for w, one in zip(shares, alone, strict=True))
    np.testing.assert_allclose(together.values, expected, rtol=1e-10, atol=1e-14)
    assert expected.any(axis=1).all()


def test_one_objective_of_share_one_is_the_function_itself():
    assert objectives.load_objective(ObjectiveConfig(target="label")) is objectives.disparate_impact


def test_a_term_that_is_unknown_or_not_defined_for_the_target_is_refused_by_its_name():
    with pytest.raises(ConfigError, match="worst_tprr"):
        objectives.load_objective(ObjectiveConfig(also=(ObjectiveTerm(name="worst_tprr"),)))
    with pytest.raises(ConfigError, match="objective: equalised_odds, target: codes"):
        objectives.load_objective(ObjectiveConfig(also=(ObjectiveTerm(name="equalised_odds"),)))


def test_the_same_loss_twice_is_refused_but_not_with_another_comparison():
    with pytest.raises(ValidationError, match="named twice"):
        ObjectiveConfig(also=(ObjectiveTerm(share=2.0),))
    assert len(ObjectiveConfig(also=(ObjectiveTerm(comparison="max"),)).terms) == 2


def test_a_sum_is_undefined_if_one_term_is_and_the_message_names_that_term():
    config = ObjectiveConfig(name="demographic_parity", target="label", also=(ObjectiveTerm(name="worst_tpr"),))
    counts = COUNTS.copy()
    counts[:, [1, 3]] = 0  # nobody is positive: no true-positive rate, but selection rates
    with pytest.raises(CohortError, match=r"objective: worst_tpr, pooled training counts of 3 groups"):
        coefficients(config, counts, reference=REFERENCE)


def test_the_terms_survive_the_way_through_a_plan_and_are_told_in_words():
    config = ObjectiveConfig(target="label", also=ALSO)
    again = ObjectiveConfig.model_validate(config.model_dump(mode="json", by_alias=True))
    assert again == config
    assert names(config) == "disparate_impact + 0.5 worst_tpr + 3 demographic_parity"


def test_the_documented_choices_are_a_valid_part_of_a_study_file():
    (text,) = re.findall(r"## What you choose\n\n```yaml\n(.*?)```", DOC.read_text(), flags=re.DOTALL)
    choices = yaml.safe_load(text)
    groups, objective = GroupsConfig(**choices["groups"]), ObjectiveConfig(**choices["objective"])
    assert groups.reference == ("white:female", "white:male")
    assert names(objective) == "disparate_impact + 0.5 equal_opportunity + 0.2 log_ratio"
    assert objective.weight == 1.2


def test_each_term_chooses_its_own_favourable_outcome():
    parity = {"target": "label", "name": "disparate_impact"}
    both = ObjectiveConfig(**parity, also=(ObjectiveTerm(favourable="negative", share=2.0),))
    positive, negative = (
        coefficients(ObjectiveConfig(**parity, favourable=one), COUNTS, reference=REFERENCE)
        for one in ("positive", "negative")
    )
    found = coefficients(both, COUNTS, reference=REFERENCE)
    assert positive.loss != pytest.approx(negative.loss)
    assert found.loss == pytest.approx(positive.loss + 2 * negative.loss, rel=1e-12)
    np.testing.assert_allclose(found.values, positive.values + 2 * negative.values, rtol=1e-12)
