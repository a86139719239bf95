"""Intervals from counts, against intervals from rows and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, ks_2samp

from fairsynth.fairness import estimates, intervals, metrics

REFERENCE = np.array([True, False])
CONFUSION = np.array([[30, 20, 15, 135], [9, 11, 8, 52]])  # 200 reference and 80 protected patients


def test_the_count_bootstrap_equals_the_patient_bootstrap_stratified_by_group():
    rng, drawn_by_row = np.random.default_rng(1), []
    for row in CONFUSION:
        patients = np.repeat(np.arange(4), row)  # the cell of each patient of the group, one row a patient
        sampled = patients[rng.integers(0, len(patients), (20_000, len(patients)))]
        drawn_by_row.append(np.stack([(sampled == cell).sum(axis=1) for cell in range(4)], axis=-1))
    by_row = np.stack(drawn_by_row, axis=1)  # (replicates, G, 4)
    by_count = intervals.bootstrap(CONFUSION, replicates=20_000, rng=np.random.default_rng(2))
    for metric in (
        lambda drawn: metrics.disparate_impact(drawn, reference=REFERENCE),
        lambda drawn: metrics.worst_tpr(drawn, minimum_positives=1).value,
        lambda drawn: metrics.f1(metrics.pooled(drawn)),
    ):
        assert ks_2samp(metric(by_row), metric(by_count)).pvalue > 0.01
        rows, counts = (intervals.percentiles(metric(drawn), confidence=0.95) for drawn in (by_row, by_count))
        np.testing.assert_allclose(counts, rows, atol=0.02)


@settings(deadline=None)
@given(arrays(np.int64, (2, 3, 4), elements=st.integers(0, 50)), st.integers(0, 1000))
def test_a_replicate_keeps_every_total_and_fills_no_empty_cell(counts, seed):
    drawn = intervals.bootstrap(counts, replicates=5, rng=np.random.default_rng(seed))
    assert drawn.shape == (5, 2, 3, 4)
    np.testing.assert_array_equal(drawn.sum(-1), np.broadcast_to(counts.sum(-1), (5, 2, 3)))
    assert not drawn[:, counts == 0].any()


def test_the_bootstrap_interval_of_one_rate_agrees_with_the_normal_one():
    drawn = intervals.bootstrap(np.array([[400, 0, 600, 0]]), replicates=20_000, rng=np.random.default_rng(3))
    low, high = intervals.percentiles(metrics.true_positive_rate(drawn)[:, 0], confidence=0.95)
    half = 1.96 * np.sqrt(0.4 * 0.6 / 1000)
    assert (low, high) == pytest.approx((0.4 - half, 0.4 + half), abs=0.002)


def test_pooled_seeds_widen_the_interval_by_their_disagreement():
    agree = np.array([[[40, 0, 60, 0]], [[40, 0, 60, 0]]])
    differ = np.array([[[20, 0, 80, 0]], [[60, 0, 40, 0]]])
    width = [
        np.ptp(
            intervals.percentiles(
                metrics.true_positive_rate(intervals.bootstrap(c, replicates=2000, rng=np.random.default_rng(4))),
                confidence=0.95,
            )
        )
        for c in (agree, differ)
    ]
    assert width[1] > width[0] + 0.3


def test_replicates_that_are_all_alike_give_no_interval():
    assert np.isnan(intervals.percentiles(np.zeros(1000), confidence=0.95)).all()


def test_too_many_undefined_replicates_give_no_interval():
    values = np.random.default_rng(5).random(1000)
    values[:40] = np.nan
    assert np.isfinite(intervals.percentiles(values, confidence=0.95)).all()
    values[:60] = np.nan
    assert np.isnan(intervals.percentiles(values, confidence=0.95)).all()


@pytest.mark.parametrize(("successes", "trials"), [(0, 12), (3, 12), (12, 12), (50, 1000), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_of_one_run_equals_scipy(successes, trials, confidence):
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    found = intervals.wilson(successes, trials, confidence=confidence)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_equal_runs_have_the_interval_of_one_and_unequal_runs_a_wider_one():
    one = intervals.wilson(10, 40, confidence=0.95)
    assert intervals.wilson([10, 10, 10], [40, 40, 40], confidence=0.95) == pytest.approx(one, abs=1e-12)
    low, high = intervals.wilson([4, 10, 16], [40, 40, 40], confidence=0.95)
    assert low < one[0]
    assert high > one[1]


def test_runs_without_trials_are_left_out():
    assert intervals.wilson([3, 0], [9, 0], confidence=0.95) == intervals.wilson(3, 9, confidence=0.95)
    assert np.isnan(intervals.wilson([0], [0], confidence=0.95)).all()


def test_an_estimate_counts_only_the_seeds_on_which_it_is_defined():
    found = estimates.estimate(np.array([0.2, np.nan, 0.4]), np.linspace(0, 1, 101), confidence=0.9)
    assert (found.mean, found.sd, found.seeds) == (pytest.approx(0.3), pytest.approx(np.std([0.2, 0.4], ddof=1)), 2)
    assert (found.low, found.high) == (pytest.approx(0.05), pytest.approx(0.95))
    assert estimates.estimate(np.array([np.nan]), np.ones(3), confidence=0.9) == estimates.NOT_ESTIMATED
    assert estimates.estimate(np.array([0.5]), np.linspace(0, 1, 101), confidence=0.9).sd is None
