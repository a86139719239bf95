"""The no-harm verdict: the rule, what it says where nothing can be said, and how often it is wrong in simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.no_harm import Site, rates
from fairsynth.fairness.verdict import Bounds, Change, Verdict, bounds, judge, verdict

NOISE = np.array([-0.01, 0.01, 0.0, 0.005, -0.005])
NOTHING = Change(seeds=NOISE)


def change(mean, *, spread=1.0, replicates=None):
    return Change(seeds=mean + spread * NOISE, replicates=replicates)


def decide(gain, f1, abs_log_di=NOTHING, **keys):
    return verdict(gain=gain, f1=f1, abs_log_di=abs_log_di, **keys)


# --- the rule --------------------------------------------------------------------------------------------------------


def test_a_clear_gain_at_no_loss_of_f1_is_reason_to_augment():
    found = decide(change(0.08), change(0.0))
    assert found.decision == "augment"
    assert found.text == (
        "Augment: worst TPR changes by +0.080 (at least +0.072), F1 by +0.000 (at least -0.008; -0.020 is allowed)."
    )


def test_a_gain_that_noise_explains_is_none():
    found = decide(change(0.005), change(0.0))
    assert found.decision == "do not augment: the gain is within noise"
    assert found.gain.low < 0 < found.gain.mean


def test_a_metric_that_is_shown_to_fall_is_not_called_a_gain():
    found = decide(change(-0.08), change(0.0))
    assert (found.decision, found.metric_falls) == ("do not augment: the gain is within noise", True)
    assert found.text.startswith("Do not augment: worst TPR falls: worst TPR changes by -0.080")
    unsure = decide(change(-0.005), change(0.0))
    assert not unsure.metric_falls
    assert "the gain is within noise" in unsure.text
    assert not decide(Change(seeds=np.array([-0.5])), NOTHING).metric_falls


def test_a_gain_does_not_excuse_a_fall_of_f1():
    found = decide(change(0.2), change(-0.05))
    assert found.decision == "do not augment: F1 falls"
    assert "F1 falls too far" in found.text


def test_a_fall_of_f1_that_cannot_be_excluded_is_told_from_one_that_is_seen():
    found = decide(change(0.2), change(-0.015, spread=3))
    assert found.decision == "do not augment: F1 falls"
    assert "F1 may fall too far" in found.text


def test_without_a_gain_a_shown_fall_of_f1_beyond_the_tolerance_is_what_is_said():
    assert decide(change(0.0), change(-0.03)).decision == "do not augment: F1 falls"
    assert decide(change(0.0), change(-0.03, spread=3)).decision == "do not augment: the gain is within noise"
    assert decide(change(0.0), change(-0.01)).decision == "do not augment: the gain is within noise"


def test_limits_are_one_sided_t_limits():
    found = decide(change(0.03), change(-0.01))
    for limits, values in ((found.gain, 0.03 + NOISE), (found.f1, -0.01 + NOISE)):
        error = stats.sem(values)
        assert limits.low == pytest.approx(values.mean() - stats.t.ppf(0.95, 4) * error)
        assert limits.high == pytest.approx(values.mean() + stats.t.ppf(0.95, 4) * error)


def test_the_more_cautious_of_seeds_and_patients_decides():
    drawn = 0.08 + 0.1 * stats.norm.ppf(np.linspace(0.001, 0.999, 999))  # patients leave 0.08 +- 0.1
    alone, both = decide(change(0.08), NOTHING), decide(change(0.08, replicates=drawn), NOTHING)
    assert (alone.decision, both.decision) == ("augment", "do not augment: the gain is within noise")
    assert both.gain.low == pytest.approx(np.quantile(drawn, 0.05))
    assert both.gain.high == pytest.approx(np.quantile(drawn, 0.95))
    narrow = decide(change(0.08, replicates=0.08 + (drawn - 0.08) / 1000), NOTHING)
    assert narrow.gain == alone.gain


def test_parity_that_worsens_is_said_and_changes_no_decision():
    found = decide(change(0.08), change(0.0), change(0.05))
    assert (found.decision, found.parity_worsens) == ("augment", True)
    assert found.text.endswith(", while |log DI| rises by +0.050.")
    assert not decide(change(0.08), change(0.0), change(-0.05)).parity_worsens


# --- where nothing can be said ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[], [0.5], [0.5, np.nan, 0.5], [0.5, 0.5, 0.5]])
def test_one_seed_equal_seeds_or_an_undefined_one_show_no_gain(values):
    found = decide(Change(seeds=np.array(values)), NOTHING)
    assert found.decision == "do not augment: the gain is within noise"
    assert found.gain.low is None
    assert "(no lower limit)" in found.text


def test_limits_formed_elsewhere_are_judged_alike():
    at_once = decide(change(0.08), change(-0.001), change(0.05))
    limits = [bounds(change(0.08)), bounds(change(-0.001)), bounds(change(0.05))]
    assert judge(*limits) == at_once
    assert judge(*(Bounds.model_validate_json(each.model_dump_json()) for each in limits)) == at_once


def test_an_unknown_f1_is_no_reason_to_augment():
    found = decide(change(0.2), Change(seeds=np.full(5, np.nan)))
    assert found.decision == "do not augment: F1 falls"
    assert "F1 may fall too far" in found.text


def test_equal_seeds_are_judged_by_their_patients():
    drawn = np.linspace(0.02, 0.06, 500)
    found = decide(Change(seeds=np.full(3, 0.04), replicates=drawn), NOTHING)
    assert found.decision == "augment"
    assert found.gain.low == pytest.approx(np.quantile(drawn, 0.05))


def test_replicates_that_are_often_undefined_say_nothing():
    drawn = np.where(np.arange(500) % 5 == 0, np.nan, np.linspace(0.05, 0.07, 500))
    assert decide(change(0.08, replicates=drawn), NOTHING).gain.low is None


# --- laws ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(-0.2, 0.2), st.floats(-0.1, 0.1), st.floats(0, 0.1), st.floats(0, 0.1))
def test_more_gain_and_more_f1_never_turn_augment_into_its_opposite(gain, f1, more_gain, more_f1):
    before = decide(change(gain), change(f1))
    after = decide(change(gain + more_gain), change(f1 + more_f1))
    assert before.decision != "augment" or after.decision == "augment"


def test_a_verdict_is_plain_json():
    found = decide(change(0.08), change(0.0))
    assert Verdict.model_validate_json(found.model_dump_json()) == found


# --- how often it is wrong -------------------------------------------------------------------------------------------


def test_where_nothing_is_gained_patients_keep_the_verdict_from_augmenting():
    site = Site(lift=0.0, alarm=0.0, patients=500)
    found = rates(site, trials=60)
    assert found["patients"].get("augment", 0) <= 0.06
    assert found["patients"].get("augment", 0) <= found["seeds"].get("augment", 0)


def test_a_large_gain_is_usually_found():
    site = Site(lift=0.5, alarm=0.1, patients=2000)
    assert rates(site, trials=25)["patients"]["augment"] > 0.8


def test_seeds_that_hold_out_halves_of_the_same_patients_know_less_than_they_seem_to():
    wrong = {share: _wrong_where_halves_are_held_out(share) for share in (0.0, 0.5)}
    assert wrong[0.5] <= 0.06
    assert wrong[0.0] > 0.2


def _wrong_where_halves_are_held_out(share):
    """How often it is said to augment where 200 patients of the worst group gain nothing in truth, ten seeds."""
    rng = np.random.default_rng(7)
    decisions = []
    for _ in range(400):
        gained = rng.choice([-1, 0, 1], p=[0.2, 0.6, 0.2], size=200)
        seeds = np.array([rng.choice(gained, 100, replace=False).mean() for _ in range(10)])
        steady = Change(seeds=0.01 + 0.001 * rng.standard_normal(10))
        decisions.append(decide(Change(seeds=seeds, held_out_share=share), steady).decision == "augment")
    return np.mean(decisions)
