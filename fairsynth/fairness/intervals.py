"""Counts -> how uncertain a metric is, without a row of data.

In:  confusion counts (..., G, 4) or histograms (..., G, 2, 200) of held-out patients; a random generator.
Out: replicates of the counts; percentile and Wilson intervals.
Never: patients. So no paired comparison of two approaches on the same patients: the counts do not say which patient
the one got right and the other wrong.

A patient is one draw from the cells of its group, so a multinomial draw of n_g patients over the observed shares is
the bootstrap of patients stratified by group. Runs that differ by seed are pooled: an interval spans the replicates
of all seeds and says where one more run, on one more held-out sample, would fall.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from fairsynth.schemas import FloatArray, IntArray

_BISECTIONS = 40  # halvings of [0, 1]: 1e-12


def bootstrap(counts: IntArray, *, replicates: int, rng: np.random.Generator) -> IntArray:
    """(replicates, ..., M) draws from counts (..., M) that keep each row's total; a row of zeros stays zero.

    The last axis holds the cells that a patient can be in: for confusion counts (..., G, 4) as they are; flatten a
    histogram (..., G, 2, 200) to (..., G, 400). Cells that are empty everywhere cost nothing.
    """
    totals = counts.sum(axis=-1)
    used = np.flatnonzero(counts.reshape(-1, counts.shape[-1]).any(axis=0))
    drawn = np.zeros((replicates, *counts.shape), dtype=np.int64)
    if len(used):
        cells = counts[..., used].astype(np.float64)
        shares = cells / np.maximum(totals, 1)[..., None]
        shares[totals == 0, 0] = 1.0  # any valid shares: zero patients are drawn
        drawn[..., used] = rng.multinomial(totals, shares, size=(replicates, *totals.shape))
    return drawn


def percentiles(replicates: FloatArray, *, confidence: float) -> tuple[float, float]:
    """The central `confidence` interval of all finite replicates, of whatever shape.

    (NaN, NaN) when fewer than the share `confidence` of them is defined, or when all are the same number: a sample
    without variation (no true positive at all) tells the bootstrap nothing, and a width of 0 would be a false claim.
    """
    defined = replicates[np.isfinite(replicates)]
    if not defined.size or defined.size < confidence * replicates.size or np.ptp(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def wilson(successes: npt.ArrayLike, trials: npt.ArrayLike, *, confidence: float) -> tuple[float, float]:
    """Wilson's interval of one proportion, of K runs pooled; `successes` and `trials` are scalars or (K,).

    For one run this is Wilson's score interval. For several it is the interval of the equal mixture of their
    confidence distributions: low is the rate at which the runs' mean upper-tail probability is (1 - confidence) / 2,
    and high alike. Runs without trials are left out; (NaN, NaN) when none is left.
    """
    hits, tries = np.atleast_1d(np.asarray(successes, dtype=np.float64)), np.atleast_1d(np.asarray(trials, np.float64))
    kept = tries > 0
    if not kept.any():
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = _mixture_quantiles(hits[kept] / tries[kept], tries[kept], levels=np.array([tail, 1 - tail]))
    return float(low), float(high)


def _mixture_quantiles(rates: FloatArray, trials: FloatArray, *, levels: FloatArray) -> FloatArray:
    """(L,) the x at which the mean over K runs of P(true rate < x) reaches each level; it rises with x."""
    low, high = np.zeros(len(levels)), np.ones(len(levels))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        z = (middle[:, None] - rates) / np.sqrt((middle * (1 - middle))[:, None] / trials)  # (L, K)
        below = ndtr(z).sum(axis=1) < levels * len(rates)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
