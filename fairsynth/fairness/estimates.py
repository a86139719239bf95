"""A metric over seeds and its replicates -> one printable estimate.

In:  values (K,), one a seed, and replicates of any shape.   Out: `Estimate`, with None where a number is undefined.
Never: NaN or infinity in a result, so that every estimate is plain JSON.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fairsynth.config import Strict
from fairsynth.fairness.intervals import percentiles, wilson
from fairsynth.schemas import FloatArray


class Estimate(Strict):
    """A metric over the seeds of one approach. None: undefined, not zero."""

    mean: float | None  # over the seeds on which it is defined
    sd: float | None  # over those seeds (n - 1); None with fewer than two
    low: float | None  # interval for one more run, see fairness.intervals
    high: float | None
    seeds: int  # on how many seeds it is defined


NOT_ESTIMATED = Estimate(mean=None, sd=None, low=None, high=None, seeds=0)


def estimate(values: FloatArray, replicates: FloatArray, *, confidence: float) -> Estimate:
    """Mean and sd of `values` (K,), and the percentile interval of `replicates`."""
    return _estimate(values, percentiles(replicates, confidence=confidence))


def proportion(successes: npt.ArrayLike, trials: npt.ArrayLike, *, confidence: float) -> Estimate:
    """Mean and sd of the K proportions `successes` / `trials`, with Wilson's interval; runs without trials left out."""
    hits, tries = np.atleast_1d(np.asarray(successes, np.float64)), np.atleast_1d(np.asarray(trials, np.float64))
    kept = tries > 0
    return _estimate(hits[kept] / tries[kept], wilson(hits, tries, confidence=confidence))


def number(value: float) -> float | None:
    """`value`, or None when it is not finite."""
    return float(value) if math.isfinite(value) else None


def _estimate(values: FloatArray, interval: tuple[float, float]) -> Estimate:
    defined = values[np.isfinite(values)]
    if not len(defined):
        return NOT_ESTIMATED
    low, high = map(number, interval)
    sd = float(defined.std(ddof=1)) if len(defined) > 1 else None
    return Estimate(mean=float(defined.mean()), sd=sd, low=low, high=high, seeds=len(defined))
