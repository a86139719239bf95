"""Score histograms -> whether scores mean what they say: calibration in the large, ECE, slope, Brier score.

In:  histograms (..., 2, 200) of scores by label, of one group or of several pooled.
Out: float64 over the leading axes; NaN where a number is undefined, never 0 in its place.
Never: rows of patients. Each score is taken as the middle of its bin, at most `HALF_BIN` away; what that costs is said
of each number. Definitions in words: docs/metrics.md.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from fairsynth.fairness.metrics import SCORE_BINS
from fairsynth.schemas import FloatArray, IntArray

HALF_BIN = 0.5 / SCORE_BINS  # how far a score is from the middle of its bin, at most
MIDDLES = (np.arange(SCORE_BINS) + 0.5) / SCORE_BINS  # (200,)
CALIBRATION_BINS = 10  # of equal width on [0, 1], in which scores are compared with outcomes

_NEWTON_STEPS = 50
_STEEPEST = 1e3  # a slope beyond it means that scores separate the labels: there is no finite one


def in_the_large(histogram: IntArray) -> FloatArray:
    """(...) mean score minus observed rate: above 0, risks are overstated. Within `HALF_BIN` of that of the scores."""
    patients, positives = _by_bin(histogram)
    return _mean((patients * MIDDLES - positives).sum(-1), patients)


def expected_calibration_error(histogram: IntArray, *, bins: int = CALIBRATION_BINS) -> FloatArray:
    """(...) mean over patients of |mean score - observed rate| of the patient's bin, of `bins` of equal width.

    Within `HALF_BIN` of that of the scores. It is never below |`in_the_large`|; with few patients a bin it is above 0
    for perfect scores too, so compare groups of similar size. Raises ValueError unless `bins` is at most 10 and divides
    200.
    """
    if not 1 <= bins <= CALIBRATION_BINS or SCORE_BINS % bins:
        raise ValueError(f"bins must be at most {CALIBRATION_BINS} and divide {SCORE_BINS}")
    patients, positives = _by_bin(histogram)
    excess = (patients * MIDDLES - positives).reshape(*patients.shape[:-1], bins, -1).sum(-1)  # (..., bins)
    return _mean(np.abs(excess).sum(-1), patients)


def brier(histogram: IntArray) -> FloatArray:
    """(...) mean squared distance of score and label, within `brier_error` of that of the scores."""
    patients, positives = _by_bin(histogram)
    squares = (patients - positives) * MIDDLES**2 + positives * (1 - MIDDLES) ** 2
    return _mean(squares.sum(-1), patients)


def brier_error(histogram: IntArray) -> FloatArray:
    """(...) bound on |brier(histogram) - Brier score of the unbinned scores|.

    A score h from the middle m of its bin changes (m - y)^2 by at most h (2 |m - y| + h), and h is at most `HALF_BIN`.
    """
    patients, positives = _by_bin(histogram)
    distance = (patients - positives) * MIDDLES + positives * (1 - MIDDLES)
    return _mean((HALF_BIN * (2 * distance + HALF_BIN * patients)).sum(-1), patients)


def slope(histogram: IntArray) -> FloatArray:
    """(...) coefficient of logit(score) in a logistic regression of the label on it (Cox 1958).

    1 is well spread; below 1, scores are too extreme. NaN without both labels, with all scores in one bin, or where a
    threshold separates the labels.
    """
    patients, positives = _by_bin(histogram)
    flat = zip(patients.reshape(-1, SCORE_BINS), positives.reshape(-1, SCORE_BINS), strict=True)
    return np.array([_slope(of, hits) for of, hits in flat]).reshape(patients.shape[:-1])


def _slope(patients: FloatArray, positives: FloatArray) -> float:
    """Newton's method on the log-likelihood of intercept and slope."""
    used = patients > 0
    inputs = np.column_stack([np.ones(int(used.sum())), logit(MIDDLES[used])])  # (n, 2)
    of, hits = patients[used], positives[used]
    if len(of) < 2 or hits.sum() in (0, of.sum()):
        return float("nan")
    beta = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        risk = expit(inputs @ beta)
        curvature = (inputs * (of * risk * (1 - risk))[:, None]).T @ inputs
        if not np.isfinite(beta).all() or np.abs(beta).max() > _STEEPEST or np.linalg.cond(curvature) > 1e12:
            return float("nan")
        step = np.linalg.solve(curvature, inputs.T @ (hits - of * risk))
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            return float(beta[1])
    return float("nan")


def _by_bin(histogram: IntArray) -> tuple[FloatArray, FloatArray]:
    """(..., 200) patients and positives."""
    return histogram.sum(axis=-2).astype(np.float64), histogram[..., 1, :].astype(np.float64)


def _mean(total: FloatArray, patients: FloatArray) -> FloatArray:
    number = patients.sum(-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
