"""Groups' rates, each as far from that of all groups together as its own trials are sure of.

In:  successes and trials by group.   Out: shrunken rates.
Never: patients, randomness.
"""

from __future__ import annotations

import numpy as np

from fairsynth.schemas import FloatArray


def shrunken(successes: FloatArray, trials: FloatArray, *, minimum: int) -> FloatArray:
    """(G,) rates, each drawn towards the rate of all groups together as far as its own trials leave it uncertain.

    The groups' true rates are taken as drawn from a beta distribution whose spread is estimated from the groups with at
    least `minimum` trials by the method of moments (Kleinman 1973). Where they differ by no more than chance, all have
    the common rate. A group with fewer trials has the common rate too, and no say in it. NaN where nobody has enough.
    """
    kept = trials >= max(minimum, 1)
    if not kept.any():
        return np.full(len(trials), np.nan)
    hits, tries = successes[kept], trials[kept]
    mean = float(hits.sum() / tries.sum())
    rates = np.full(len(trials), mean)
    spread = _correlation(hits, tries, mean)
    if spread > 0:
        strength = (1 - spread) / spread  # of the prior, in patients
        rates[kept] = (hits + strength * mean) / (tries + strength)
    return rates


def _correlation(hits: FloatArray, tries: FloatArray, mean: float) -> float:
    """The share, in [0, 1], of a patient's variance that lies between groups: rho of the beta-binomial distribution.

    With r_g = hits / tries, E[ sum n_g (r_g - mean)^2 ] = mean (1 - mean) sum_g (1 - n_g / n) (1 + (n_g - 1) rho).
    """
    free = (1 - tries / tries.sum()) * (tries - 1)
    if mean in (0.0, 1.0) or free.sum() <= 0:
        return 0.0
    found = (tries * (hits / tries - mean) ** 2).sum() / (mean * (1 - mean))
    return float(np.clip((found - (len(tries) - 1)) / free.sum(), 0, 1))
