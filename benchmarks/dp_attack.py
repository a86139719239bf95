"""How much a release gives away at least: an attack that guesses whether one patient was in the data.

In:  the attacker's scores with and without the patient.   Out: an epsilon below which the mechanism is not.
Never: an upper bound; that is the ledger's.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def lower_bound(inside, outside, *, delta, confidence=0.95):
    """An epsilon that the mechanism has at least, with the stated confidence; 0 where the attack shows nothing.

    The threshold is chosen on the first half of the trials and judged on the second. (epsilon, delta)-DP bounds
    both error rates of any guess (Kairouz, Oh and Viswanath 2015); theirs are Clopper and Pearson's upper bounds.
    """
    half = len(inside) // 2
    thresholds = np.quantile(np.concatenate([inside[:half], outside[:half]]), np.linspace(0.005, 0.995, 199))
    best = max(thresholds, key=lambda at: _bound(inside[:half], outside[:half], at, delta=delta, confidence=confidence))
    return max(0.0, _bound(inside[half:], outside[half:], best, delta=delta, confidence=confidence))


def _bound(inside, outside, threshold, *, delta, confidence):
    missed = _at_most(int((inside < threshold).sum()), len(inside), confidence)
    false = _at_most(int((outside >= threshold).sum()), len(outside), confidence)
    return max(_log((1 - delta - missed) / false), _log((1 - delta - false) / missed))


def _log(value):
    return math.log(value) if value > 0 else -math.inf


def _at_most(hits, trials, confidence):
    """The rate that is not exceeded, with half of what confidence leaves (two rates are bounded)."""
    return 1.0 if hits == trials else float(stats.beta.ppf(1 - (1 - confidence) / 2, hits + 1, trials - hits))
