"""The tests behind the gates: against other libraries, and at their level where nothing is to be found."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from fairsynth.synthesis.release.chance import Share, area, excess_p, ratio_upper, resolves_ratio, risk, top


def share(hits, total):
    return Share(hits=hits, total=total)


def scores(seed, *, n=400, m=300, shift=0.0, digits=None):
    rng = np.random.default_rng(seed)
    members, others = rng.normal(shift, 1, n), rng.normal(0, 1, m)
    return (members, others) if digits is None else (members.round(digits), others.round(digits))


@pytest.mark.parametrize("digits", [None, 0])
def test_the_auc_is_that_of_scikit_learn_ties_included(digits):
    members, others = scores(1, shift=0.3, digits=digits)
    truth = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    expected = roc_auc_score(truth, np.concatenate([members, others]))
    assert area(members, others).value == pytest.approx(expected, abs=1e-12)


def test_the_error_of_the_auc_is_that_of_repeated_draws():
    drawn = [area(*scores(seed, shift=0.5)) for seed in range(400)]
    assert np.mean([one.error for one in drawn]) == pytest.approx(np.std([one.value for one in drawn]), rel=0.1)


def test_an_auc_without_signal_is_called_significant_as_often_as_its_level_says():
    found = np.array([area(*scores(seed)).p for seed in range(2000)])
    assert (found < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_perfect_scores_are_a_certain_leak_and_constant_ones_none():
    assert area(np.ones(60), np.zeros(60)).p == 0
    assert area(np.ones(60), np.ones(60)).p == 1


def test_the_nearest_few_are_called_significant_no_more_often_than_the_level_says():
    rng = np.random.default_rng(0)
    found = np.array([top(*scores(seed, n=500, m=400, digits=1), share=0.01, rng=rng).p for seed in range(2000)])
    assert (found < 0.05).mean() <= 0.065
    assert (found < 0.5).mean() > 0.3


def test_copies_among_the_nearest_few_are_seen():
    members, others = scores(3, n=3000, m=3000)
    members[:30] = 10
    found = top(members, others, share=0.01, rng=np.random.default_rng(0))
    assert found.members.hits >= 30
    assert found.ratio > 1.5
    assert found.p < 0.005


def test_an_excess_is_judged_by_the_sizes_of_both_sides():
    assert excess_p(share(0, 100), share(0, 50)) == 1
    assert excess_p(share(20, 2000), share(10, 1000)) > 0.4
    assert excess_p(share(20, 1000), share(2, 1000)) == pytest.approx(stats.binom.sf(19, 22, 0.5), abs=1e-12)


def test_the_upper_limit_of_a_ratio_holds_as_often_as_it_says():
    rng = np.random.default_rng(5)
    drawn = [(share(rng.poisson(60), 3000), share(rng.poisson(50), 3000)) for _ in range(1000)]
    held = np.mean([ratio_upper(one, other, confidence=0.95) >= 60 / 50 for one, other in drawn])
    assert 0.935 <= held <= 0.98
    assert ratio_upper(share(5, 100), share(0, 100), confidence=0.95) == math.inf


def test_a_ratio_is_only_judged_where_an_innocent_generator_would_pass():
    few, many = share(50, 3000), share(900, 3000)
    assert not resolves_ratio(few, few, limit=1.25, confidence=0.95, level=0.005)
    assert resolves_ratio(many, many, limit=1.25, confidence=0.95, level=0.005)
    assert ratio_upper(many, many, confidence=0.95) < 1.25


def test_the_risk_is_what_the_attack_gains_over_the_control():
    excess, upper = risk(share(600, 1000), share(200, 1000), confidence=0.95)
    assert excess == pytest.approx((0.6 - 0.2) / 0.8, abs=0.005)
    assert excess < upper < excess + 0.06
    assert risk(share(10, 10), share(10, 10), confidence=0.95)[0] == pytest.approx(0, abs=1e-9)
