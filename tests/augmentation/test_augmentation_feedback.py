from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from fairsynth.augmentation.feedback import (
    LARGEST_STEP,
    WEIGHTS,
    Policy,
    ValidationCounts,
    next_positive_share,
    next_weights,
    overpredicts,
    pool,
    quotas,
    rates,
    shrunken,
    soft_counts,
)
from fairsynth.augmentation.iteration import Criterion, Plan, Search, iterate
from fairsynth.augmentation.plan import CEILING, equal_rates, weighted_rates
from fairsynth.errors import ConfigError
from fairsynth.fairness.counts import count_patients, from_confusion

GROUPS = 3
REFERENCE = np.array([True, False, False])
NO_SCORES = np.zeros((GROUPS, 2, 200), dtype=np.int64)
members = arrays(np.int64, (2, GROUPS, 2), elements=st.integers(0, 60))
weights = arrays(np.float64, GROUPS, elements=st.floats(*WEIGHTS))
policies = st.builds(Policy, weights=weights, positive_share=st.floats(0.05, 0.5), budget_share=st.floats(0, 1))
budgets = st.integers(0, 200)
few = settings(deadline=None, max_examples=60)


def counted(confusion) -> ValidationCounts:
    return ValidationCounts(confusion=np.array(confusion, dtype=np.int64), scores=NO_SCORES)


# --- quotas ----------------------------------------------------------------------------------------------------------


@few
@given(members, policies, budgets)
def test_quotas_are_within_the_budget_of_each_site_and_never_negative(cells, policy, budget):
    found = quotas(cells, policy=policy, budget=budget)
    assert (found >= 0).all()
    served = cells.sum(axis=(1, 2)) > 0
    assert (found.sum(axis=(1, 2)) == np.where(served, math.floor(budget * policy.budget_share), 0)).all()


@few
@given(members, policies, budgets, budgets)
def test_each_site_may_have_a_budget_of_its_own(cells, policy, one, other):
    both = quotas(cells, policy=policy, budget=np.array([one, other]))
    for site, budget in enumerate((one, other)):
        assert np.array_equal(both[site], quotas(cells, policy=policy, budget=budget)[site])


@few
@given(members, policies, budgets)
def test_a_group_that_a_site_lacks_gets_nobody_there(cells, policy, budget):
    found = quotas(cells, policy=policy, budget=budget)
    assert not found[cells.sum(axis=2) == 0].any()


@few
@given(members, policies, budgets)
def test_the_same_policy_gives_the_same_quotas_and_a_site_s_do_not_depend_on_the_others(cells, policy, budget):
    both = quotas(cells, policy=policy, budget=budget)
    for site in range(2):
        assert np.array_equal(both[site], quotas(cells[site : site + 1], policy=policy, budget=budget)[0])


@few
@given(members, budgets, st.floats(1, 7))
def test_weights_that_are_alike_give_equal_rates(cells, budget, weight):
    site = cells[0] + 1
    plain = equal_rates(site, budget=budget)
    assert np.array_equal(weighted_rates(site, budget=budget, weights=np.ones(GROUPS)), plain)
    if not plain[:, 0].any():  # the budget ends before one half: only the ratios of the weights count
        scaled = weighted_rates(site, budget=budget, weights=np.full(GROUPS, weight))
        np.testing.assert_allclose(scaled, plain, atol=1)


@few
@given(arrays(np.int64, (GROUPS, 2), elements=st.integers(1, 60)), weights, budgets)
def test_a_weight_is_the_ratio_of_a_group_s_odds_to_another_s(site, own, budget):
    added = weighted_rates(site, budget=budget, weights=own)
    total = site + added
    lifted = np.flatnonzero((added[:, 1] > 1) & (added[:, 0] == 0))
    top = CEILING / (1 - CEILING)
    for group in lifted:  # nobody that was lifted stands above another by more than a patient
        one_less = (total[group, 1] - 1) / total[group, 0] / own[group]
        for other in np.flatnonzero(added[:, 0] == 0):
            reached = (total[other, 1] + 1) / total[other, 0]
            assert one_less <= reached / own[other] + 1e-9 or reached >= top


@few
@given(arrays(np.int64, (GROUPS, 2), elements=st.integers(1, 60)), weights, budgets, st.floats(1, 4))
def test_more_weight_for_a_group_takes_no_positives_from_it(site, own, budget, more):
    heavier = own * np.array([1, more, 1])
    before, after = (weighted_rates(site, budget=budget, weights=each) for each in (own, heavier))
    if not before[:, 0].any() and not after[:, 0].any():
        assert after[1, 1] >= before[1, 1] - (GROUPS - 1)  # which are rounded


def test_a_patient_left_over_goes_to_the_group_farthest_below_its_own_share():
    added = weighted_rates(np.array([[10, 0], [2, 0]]), budget=8, weights=np.array([1.0, 4.0]))
    assert added.tolist() == [[0, 4], [0, 4]]  # 3 / 2 / 4 was below 4 / 10


def test_what_a_low_share_of_positives_leaves_over_keeps_the_share():
    site = np.array([[90, 10], [18, 2], [0, 0]])
    total = site + weighted_rates(site, budget=600, weights=np.array([1.0, 2.0, 1.0]), most=0.2)
    odds = total[:2, 1] / total[:2, 0]
    np.testing.assert_allclose(odds, [0.25, 0.5], rtol=0.02)
    assert abs(int(total[0].sum()) - int(total[1].sum())) < 10  # the smaller group was filled first


@pytest.mark.parametrize(("own", "most"), [([1, 0, 1], 0.5), ([1, np.nan, 1], 0.5), ([1, 1, 1], 0.0), ([1, 1, 1], 0.6)])
def test_weights_and_shares_that_mean_nothing_are_refused(own, most):
    with pytest.raises(ConfigError):
        weighted_rates(np.ones((3, 2), dtype=np.int64), budget=5, weights=np.array(own, dtype=float), most=most)


# --- rates and weights -----------------------------------------------------------------------------------------------


def test_a_shrunken_rate_is_the_mean_of_its_posterior():
    hits, tries = np.array([40.0, 5.0, 33.0]), np.array([50.0, 20.0, 90.0])
    found = shrunken(hits, tries, minimum=5)
    mean = hits.sum() / tries.sum()
    strength = (found[0] * tries[0] - hits[0]) / (mean - found[0])  # that one prior explains all three
    for group in range(3):

        def density(rate, group=group):
            prior = stats.beta.pdf(rate, strength * mean, strength * (1 - mean))
            return prior * stats.binom.pmf(hits[group], tries[group], rate)

        whole, first = (integrate.quad(lambda r, k=k: r**k * density(r), 0, 1)[0] for k in (0, 1))
        assert found[group] == pytest.approx(first / whole, abs=1e-6)


def test_the_spread_of_few_groups_is_what_would_scatter_them_as_much_as_they_are():
    hits, tries = np.array([60.0, 11.0, 30.0]), np.array([100.0, 45.0, 60.0])
    mean = hits.sum() / tries.sum()
    found = shrunken(hits, tries, minimum=5)
    strength = (found[0] * tries[0] - hits[0]) / (mean - found[0])
    rng = np.random.default_rng(0)
    truth = rng.beta(strength * mean, strength * (1 - mean), size=(200_000, 3))
    drawn = rng.binomial(tries.astype(int), truth)
    middle = drawn.sum(axis=1, keepdims=True) / tries.sum()
    scatter = (tries * (drawn / tries - middle) ** 2).sum(axis=1).mean()
    assert scatter == pytest.approx((tries * (hits / tries - mean) ** 2).sum(), rel=0.02)


def test_the_prior_is_as_wide_as_the_groups_truly_differ():
    rng = np.random.default_rng(3)
    mean, rho = 0.3, 0.1
    tries = rng.integers(10, 60, size=3000).astype(float)
    truth = rng.beta(mean * (1 - rho) / rho, (1 - mean) * (1 - rho) / rho, size=3000)
    hits = rng.binomial(tries.astype(int), truth).astype(float)
    found = shrunken(hits, tries, minimum=5)
    raw = hits / tries
    assert np.mean((found - truth) ** 2) < 0.8 * np.mean((raw - truth) ** 2)
    slope = np.polyfit(found, truth, 1)[0]
    assert slope == pytest.approx(1, abs=0.05)  # neither too timid nor too bold


@few
@given(arrays(np.int64, (4, 2), elements=st.integers(0, 40)))
def test_a_shrunken_rate_lies_between_the_group_s_own_and_the_common_one(table):
    hits, tries = table[:, 0].astype(float), table.sum(axis=1).astype(float)
    found = shrunken(hits, tries, minimum=11)
    kept = tries >= 11
    if not kept.any():
        assert np.isnan(found).all()
        return
    mean = hits[kept].sum() / tries[kept].sum()
    own = np.where(kept, hits / np.maximum(tries, 1), mean)
    assert (found >= np.minimum(own, mean) - 1e-12).all()
    assert (found <= np.maximum(own, mean) + 1e-12).all()


def step(counts, **changed):
    chosen = {"signal": "tpr", "minimum": 11, "damping": 1.0, **changed}
    return next_weights(np.ones(GROUPS), counts=np.array(counts, dtype=float), **chosen)


FAR_APART = [[1000, 200, 150, 120], [800, 150, 60, 45], [700, 100, 70, 60]]  # TPR 0.6, 0.3, 0.6


def test_the_group_with_the_lowest_rate_gets_the_highest_weight_and_only_ratios_change():
    found = step(FAR_APART)
    assert found.argmax() == 1
    assert found[1] > 1.2 * found[0]
    assert np.prod(found) == pytest.approx(1)


def test_groups_that_differ_by_chance_alone_do_not_move():
    assert step([[200, 40, 30, 24], [200, 40, 30, 22], [200, 40, 30, 23]]) == pytest.approx(np.ones(3))


@few
@given(st.integers(0, 10).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, p))))
def test_a_group_with_too_few_positives_moves_nobody_and_not_on_its_own_noise(own):
    positives, found = own
    changed = [*FAR_APART[:2], [300, positives, found + 5, found]]
    assert np.array_equal(step(changed), step([*FAR_APART[:2], [300, 0, 0, 0]]))


@few
@given(
    arrays(np.int64, (GROUPS, 4), elements=st.integers(0, 80)),
    arrays(np.float64, GROUPS, elements=st.floats(0.4, 2.5)),
)
def test_weights_stay_in_bounds_and_a_step_is_at_most_a_factor_of_two_either_way(confusion, own):
    own = own / np.exp(np.log(own).mean())
    after = next_weights(own, counts=from_confusion(confusion), signal="tpr", minimum=11, damping=1.0)
    assert ((after >= WEIGHTS[0]) & (after <= WEIGHTS[1])).all()
    inside = (after > WEIGHTS[0]) & (after < WEIGHTS[1])
    moved = np.abs(np.log(after) - np.log(own))
    assert (moved[inside] <= 2 * LARGEST_STEP + 1e-9).all()  # once by its own rate, once by keeping the mean


def test_a_damped_step_is_shorter_and_selection_rates_can_be_the_signal():
    whole, half = np.log(step(FAR_APART)), np.log(step(FAR_APART, damping=0.5))
    assert 0 < half[1] < whole[1]
    selected = [[1000, 100, 100, 60], [1000, 100, 300, 60], [1000, 100, 100, 60]]
    assert step(selected, signal="selection").argmin() == 1
    assert step(selected) == pytest.approx(np.ones(3))
    assert rates(np.array(selected, dtype=float), signal="selection", minimum=11)[1] == pytest.approx(0.3, abs=0.01)


def test_counts_of_sites_add_and_soft_counts_are_those_of_the_scores():
    rng = np.random.default_rng(0)
    scores, label, group = rng.random(500), rng.integers(0, 2, 500), rng.integers(0, GROUPS, 500)
    histogram = np.zeros((GROUPS, 2, 200), dtype=np.int64)
    np.add.at(histogram, (group, label, (scores * 200).astype(int)), 1)
    exact = count_patients(scores, labels=label, group=group, groups=GROUPS)
    np.testing.assert_allclose(soft_counts(histogram), exact, atol=0.1)  # a middle errs either way
    np.testing.assert_array_equal(soft_counts(histogram)[:, :2], exact[:, :2])
    part = ValidationCounts(confusion=np.ones((GROUPS, 4), dtype=np.int64), scores=histogram)
    assert np.array_equal(pool([part, part, part]).scores, 3 * histogram)
    assert pool([part, part]).confusion.sum() == 8 * GROUPS


def test_the_share_of_positives_moves_by_a_factor_of_the_odds_and_stays_below_one_half():
    mixed = np.array([[[80, 20], [60, 40]]])  # odds 60 / 140
    assert next_positive_share(mixed, lower=True, factor=2) == pytest.approx(30 / 170)
    assert next_positive_share(mixed, lower=False, factor=2) == pytest.approx(120 / 260)
    assert next_positive_share(mixed, lower=False, factor=9) == 0.5
    assert overpredicts(np.array([[5, 3, 2, 9]]))
    assert not overpredicts(np.array([[5, 2, 3, 9]]))


# --- the iteration ---------------------------------------------------------------------------------------------------

SITES = np.array([[[900, 100], [180, 10], [90, 10]], [[400, 60], [300, 20], [0, 0]]])
VALIDATION = np.array([[800, 100], [400, 40], [300, 40]])


def counts_at(true_positive_rate, false_positive_rate) -> ValidationCounts:
    tp, fp = (
        np.round(VALIDATION[:, label] * rate) for label, rate in ((1, true_positive_rate), (0, false_positive_rate))
    )
    confusion = np.stack([tp, fp, VALIDATION[:, 1] - tp, VALIDATION[:, 0] - fp], axis=1)
    return counted(confusion)


def world(handicap, *, harm: float = 0.3):
    """Validation counts that a plan leads to: a group's rates rise with its odds in training, less its handicap."""

    def try_plan(plan: Plan) -> ValidationCounts:
        total = (SITES + plan.quotas).sum(axis=0)
        odds = np.log(total[:, 1] / total[:, 0])
        rise = lambda lift: 1 / (1 + np.exp(-(odds + lift)))  # noqa: E731
        return counts_at(rise(1.2 - np.array(handicap)), harm * rise(0.0))

    nobody = Plan(policy=Policy(weights=np.ones(GROUPS)), quotas=np.zeros_like(SITES), move="start")
    return try_plan, try_plan(nobody)


def run(handicap, *, search=None, of="worst_tpr", harm=0.3, **bounds):
    try_plan, real_only = world(handicap, harm=harm)
    return iterate(
        try_plan,
        real_only=real_only,
        members=SITES,
        budget=2000,
        criterion=Criterion(of=of, reference=REFERENCE, **bounds),
        search=search or Search(),
    )


def test_the_search_begins_with_equal_rates_and_finds_a_plan_that_is_better_for_the_worst_group():
    chosen = run([0.0, 1.5, 0.0], f1_loss=0.2)
    first = chosen.history[0]
    assert first.outcome == "accepted"
    assert np.array_equal(first.plan.quotas, [equal_rates(site, budget=2000) for site in SITES])
    assert chosen.best.value > first.value + 0.05 > chosen.real_only
    total = (SITES + chosen.best.plan.quotas).sum(axis=0)
    odds = total[:, 1] / total[:, 0]
    assert odds.argmax() == 1


def test_every_plan_that_is_kept_is_better_than_the_one_before_and_none_is_tried_twice():
    chosen = run([0.0, 1.0, 0.5], f1_loss=0.3, search=Search(maximum_trials=12))
    kept = [trial.value for trial in chosen.history if trial.outcome == "accepted"]
    assert kept == sorted(set(kept))
    assert chosen.best.value == kept[-1] == max(kept)
    plans = {trial.plan.quotas.tobytes() for trial in chosen.history}
    assert len(plans) == len(chosen.history)
    assert [trial.outcome for trial in chosen.history][-1] != "accepted" or len(chosen.history) == 12


def test_the_same_counts_give_the_same_plans():
    first, second = (run([0.0, 1.0, 0.5], f1_loss=0.3) for _ in range(2))
    assert [trial.plan.quotas.tobytes() for trial in first.history] == [
        trial.plan.quotas.tobytes() for trial in second.history
    ]


def test_a_plan_that_costs_too_much_f1_is_named_and_a_smaller_share_of_positives_is_tried():
    chosen = run([0.0, 0.6, 0.0], harm=1.5, f1_loss=0.0, search=Search(maximum_trials=12, patience=9))
    assert chosen.history[0].outcome == "F1 too low"
    moved = [trial for trial in chosen.history if trial.plan.move == "positive_share"]
    assert moved[0].plan.policy.positive_share < 0.5
    assert {trial.plan.move for trial in chosen.history} == {"start", "rates", "positive_share", "patients"}


def test_where_nothing_helps_no_plan_is_chosen_and_the_search_ends():
    worse = counts_at(np.full(3, 0.2), np.full(3, 0.1))
    real_only = counts_at(np.full(3, 0.5), np.full(3, 0.1))
    tries = []
    chosen = iterate(
        lambda plan: tries.append(plan) or worse,
        real_only=real_only,
        members=SITES,
        budget=500,
        criterion=Criterion(of="worst_tpr", reference=REFERENCE, f1_loss=1.0),
        search=Search(patience=3, maximum_trials=50),
    )
    assert chosen.best is None
    assert len(tries) <= 4
    assert {trial.outcome for trial in chosen.history} == {"no gain"}


def test_fewer_patients_are_kept_when_they_do_better():
    real_only = counts_at(np.full(3, 0.2), np.full(3, 0.1))

    def try_plan(plan):
        return counts_at(np.full(3, 0.9 - plan.quotas.sum() / 10000), np.full(3, 0.1))

    chosen = iterate(
        try_plan,
        real_only=real_only,
        members=SITES,
        budget=2000,
        criterion=Criterion(of="worst_tpr", reference=REFERENCE),
        search=Search(maximum_trials=9),
    )
    assert chosen.best.plan.policy.budget_share < 0.5
    assert chosen.best.plan.quotas.sum() < 2000


STUCK = Search(maximum_trials=20, patience=8)


def moves_after_the_start(*, false_alarms=0.2):
    """The plans that are tried when the first is accepted and no other gains."""
    real_only, start = (
        counts_at(np.full(3, 0.1), np.full(3, 0.1)),
        counts_at(np.array([0.9, 0.5, 0.9]), np.full(3, false_alarms)),
    )
    tries = []

    def try_plan(plan):
        tries.append(plan)
        return start if len(tries) == 1 else counts_at(np.full(3, 0.2), np.full(3, 0.1))

    criterion = Criterion(of="worst_tpr", reference=REFERENCE, f1_loss=1.0)
    iterate(try_plan, real_only=real_only, members=SITES, budget=2000, criterion=criterion, search=STUCK)
    return tries


def test_every_move_starts_from_the_best_plan_and_changes_one_thing():
    first, *others = moves_after_the_start()
    for plan in others:
        own, base = plan.policy, first.policy
        changed = {
            "rates": not np.array_equal(own.weights, base.weights),
            "positive_share": own.positive_share != base.positive_share,
            "patients": own.budget_share != base.budget_share,
        }
        assert [name for name, differs in changed.items() if differs] == [plan.move]


def test_after_a_failure_the_odds_between_groups_are_moved_half_as_far():
    _, *others = moves_after_the_start()
    far, near = [np.log(plan.policy.weights) for plan in others if plan.move == "rates"][:2]
    assert abs(near).max() < 0.8 * abs(far).max()
    assert near.argmax() == far.argmax() == 1


@pytest.mark.parametrize("false_alarms", [0.2, 0.0])
def test_the_share_of_positives_is_lowered_if_too_many_are_flagged_and_also_if_it_cannot_rise(false_alarms):
    _, *others = moves_after_the_start(false_alarms=false_alarms)
    moves = [plan.move for plan in others]
    shares = [plan.policy.positive_share for plan in others if plan.move == "positive_share"]
    assert len(shares) == 1
    assert shares[0] < 0.45
    assert (moves.index("positive_share") < moves.index("patients")) == (false_alarms > 0)


def test_a_gain_below_the_least_is_none():
    real_only, better = (counts_at(np.full(3, rate), np.full(3, 0.1)) for rate in (0.5, 0.55))
    for least, kept in ((0.01, True), (0.1, False)):
        chosen = iterate(
            lambda plan: better,
            real_only=real_only,
            members=SITES,
            budget=100,
            criterion=Criterion(of="worst_tpr", reference=REFERENCE),
            search=Search(minimum_gain=least, maximum_trials=1),
        )
        assert (chosen.best is not None) == kept


def test_no_budget_is_no_plan_and_no_trial():
    try_plan, real_only = world([0, 0, 0])
    criterion = Criterion(of="worst_tpr", reference=REFERENCE)
    chosen = iterate(try_plan, real_only=real_only, members=SITES, budget=0, criterion=criterion, search=Search())
    assert (chosen.best, chosen.history) == (None, ())


def outcome(counts, real_only, **bounds):
    criterion = Criterion(of="worst_tpr", reference=REFERENCE, **bounds)
    return criterion.outcome(counts, real_only=real_only, best=criterion.value(real_only))


def test_a_trial_is_kept_only_within_the_bounds():
    real_only = counts_at(np.array([0.6, 0.4, 0.5]), np.full(3, 0.1))
    better = counts_at(np.array([0.6, 0.6, 0.6]), np.full(3, 0.1))
    alarms = counts_at(np.array([0.6, 0.6, 0.6]), np.full(3, 0.4))
    uneven = counts_at(np.array([0.6, 0.6, 0.6]), np.array([0.1, 0.3, 0.1]))
    assert outcome(better, real_only) == "accepted"
    assert outcome(real_only, real_only) == "no gain"
    assert outcome(alarms, real_only) == "F1 too low"
    assert outcome(uneven, real_only, f1_loss=1.0, log_di=0.05) == "disparate impact too far from 1"
    assert outcome(uneven, real_only, f1_loss=1.0) == "accepted"
    few_positives = counted([[3, 5, 2, 90], [1, 5, 2, 90], [1, 5, 2, 90]])
    assert outcome(few_positives, real_only) == "undefined"


def test_a_disparity_that_real_patients_have_already_is_no_reason_to_refuse():
    real_only = counts_at(np.array([0.6, 0.2, 0.5]), np.array([0.1, 0.3, 0.3]))
    better = counts_at(np.array([0.6, 0.5, 0.6]), np.array([0.1, 0.27, 0.27]))
    assert outcome(better, real_only, f1_loss=1.0, log_di=0.0) == "accepted"


def test_the_other_criteria_are_nearness_to_parity_and_the_lowest_auroc_of_a_group():
    counts = counts_at(np.array([0.5, 0.5, 0.5]), np.array([0.1, 0.2, 0.1]))
    criterion = Criterion(of="disparate_impact", reference=REFERENCE)
    selected = counts.confusion[:, :2].sum(axis=1)
    size = counts.confusion.sum(axis=1)
    ratio = (selected[1:].sum() / size[1:].sum()) / (selected[0] / size[0])
    assert criterion.value(counts) == pytest.approx(-abs(math.log(ratio)))
    scores = NO_SCORES.copy()
    scores[:, 0, 50], scores[:, 1, 100] = VALIDATION[:, 0], VALIDATION[:, 1]
    scores[1, 1, 100], scores[1, 1, 20] = 30, 10  # a quarter of the second group's positives below all negatives
    ranked = ValidationCounts(confusion=counts.confusion, scores=scores)
    assert Criterion(of="lowest_group_auroc", reference=REFERENCE).value(ranked) == pytest.approx(0.75)
    scarce = np.array([[100, 5, 0, 60], [20, 2, 20, 60], [20, 1, 20, 3]])  # the last has 4 negatives
    scores[2] = 0
    scores[2, 0, 150], scores[2, 1, 100] = 4, 40
    few_negatives = ValidationCounts(confusion=scarce, scores=scores)
    assert Criterion(of="lowest_group_auroc", reference=REFERENCE).value(few_negatives) == pytest.approx(0.75)
