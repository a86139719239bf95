"""Calibration from histograms, against rows, sklearn and the stated bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from fairsynth.fairness import calibration
from fairsynth.fairness.calibration import HALF_BIN, MIDDLES


def histogram_of(label, score):
    table = np.zeros((2, 200), dtype=np.int64)
    np.add.at(table, (label, np.minimum((score * 200).astype(int), 199)), 1)
    return table


def rows(seed=1, patients=4000, spread=1.0, shift=0.0):
    """Scores, and labels that follow risk: logit(risk) = spread * logit(score) + shift."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 1, patients)
    label = (rng.random(patients) < 1 / (1 + np.exp(-(spread * log_odds + shift)))).astype(np.int64)
    return label, 1 / (1 + np.exp(-log_odds))


def error_of_rows(label, score, bins=10):
    """ECE by a loop over bins of rows."""
    which = np.minimum((score * bins).astype(int), bins - 1)
    total = 0.0
    for one in range(bins):
        inside = which == one
        if inside.any():
            total += inside.sum() * abs(score[inside].mean() - label[inside].mean())
    return total / len(label)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 2, 4, 5, 8, 10]))
def test_numbers_of_a_histogram_are_within_their_bounds_of_those_of_the_rows(seed, patients, bins):
    rng = np.random.default_rng(seed)
    label, score = rng.integers(0, 2, patients), rng.random(patients)
    counted = histogram_of(label, score)
    slack = 1e-12
    assert abs(calibration.in_the_large(counted) - (score.mean() - label.mean())) <= HALF_BIN + slack
    found = calibration.expected_calibration_error(counted, bins=bins)
    assert abs(found - error_of_rows(label, score, bins)) <= HALF_BIN + slack
    assert found >= abs(calibration.in_the_large(counted)) - slack
    gap = abs(calibration.brier(counted) - ((score - label) ** 2).mean())
    assert gap <= calibration.brier_error(counted) + slack


def test_binned_scores_give_exactly_what_rows_at_the_middles_give():
    label, score = rows()
    middles = MIDDLES[np.minimum((score * 200).astype(int), 199)]
    counted = histogram_of(label, score)
    assert calibration.in_the_large(counted) == pytest.approx(middles.mean() - label.mean(), abs=1e-12)
    assert calibration.brier(counted) == pytest.approx(brier_score_loss(label, middles), abs=1e-12)
    assert calibration.expected_calibration_error(counted) == pytest.approx(error_of_rows(label, middles), abs=1e-12)


def test_the_bound_of_the_brier_score_is_reached_by_scores_at_the_edges_of_their_bins():
    edge = np.full(8, 0.5)  # label 1, score at the lower edge of a bin: as far from the middle as can be
    counted = histogram_of(np.ones(8, dtype=np.int64), edge)
    gap = 0.25 - calibration.brier(counted)
    assert gap == pytest.approx(calibration.brier_error(counted), abs=1e-12)
    assert calibration.brier_error(counted) < 0.003


@pytest.mark.parametrize("spread", [1.0, 0.5, 1.8])
def test_the_slope_matches_an_unpenalised_logistic_regression(spread):
    label, score = rows(seed=3, spread=spread)
    middles = MIDDLES[np.minimum((score * 200).astype(int), 199)]
    log_odds = np.log(middles / (1 - middles))[:, None]
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(log_odds, label).coef_[0, 0]
    found = calibration.slope(histogram_of(label, score))
    assert found == pytest.approx(oracle, abs=1e-4)
    assert found == pytest.approx(spread, abs=0.15)


def test_scores_that_overstate_risk_are_above_zero_in_the_large_and_true_risks_are_near_it():
    assert calibration.in_the_large(histogram_of(*rows(shift=-1.0))) > 0.1
    assert abs(calibration.in_the_large(histogram_of(*rows()))) < 0.02
    assert calibration.expected_calibration_error(histogram_of(*rows())) < 0.03
    assert calibration.slope(histogram_of(*rows(shift=-1.0))) == pytest.approx(1, abs=0.12)  # a shift is no spread


def test_nobody_has_no_calibration_and_one_label_has_no_slope():
    nobody = np.zeros((2, 200), dtype=np.int64)
    for number in (
        calibration.in_the_large,
        calibration.expected_calibration_error,
        calibration.brier,
        calibration.brier_error,
        calibration.slope,
    ):
        assert np.isnan(number(nobody))
    label, score = rows(patients=50)
    assert np.isnan(calibration.slope(histogram_of(np.ones_like(label), score)))
    assert np.isnan(calibration.slope(histogram_of(label, np.full(50, 0.3))))


def test_labels_that_a_threshold_separates_have_no_slope():
    score = np.linspace(0.1, 0.9, 40)
    assert np.isnan(calibration.slope(histogram_of((score > 0.5).astype(np.int64), score)))


def test_leading_axes_are_independent():
    counted = np.random.default_rng(4).integers(0, 3, (3, 2, 2, 200))
    for number in (calibration.expected_calibration_error, calibration.brier, calibration.slope):
        together = number(counted)
        assert together.shape == (3, 2)
        for i, j in np.ndindex(3, 2):
            assert together[i, j] == pytest.approx(number(counted[i, j]), abs=1e-12)


@pytest.mark.parametrize("bins", [0, 3, 20])
def test_bins_that_do_not_tile_the_histogram_are_refused(bins):
    with pytest.raises(ValueError, match="divide 200"):
        calibration.expected_calibration_error(np.ones((2, 200), dtype=np.int64), bins=bins)
