"""What chance alone gives: is something commoner among training patients than among held-out ones?

In:  counts or scores of members (training patients) and of others (held out).   Out: rates, limits, p-values.
Never: records. If nothing was memorised, members and others are exchangeable, whatever the synthetic patients are:
that is all that every test here assumes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fairsynth.schemas import FloatArray


@dataclass(frozen=True, kw_only=True)
class Share:
    """`hits` of `total` patients."""

    hits: int
    total: int

    @property
    def rate(self) -> float:
        """NaN of nobody."""
        return self.hits / self.total if self.total else math.nan


@dataclass(frozen=True, kw_only=True)
class Area:
    """An AUC, the probability that a member scores above another, and its standard error."""

    value: float
    error: float
    members: int
    others: int

    def upper(self, confidence: float) -> float:
        """One-sided upper limit."""
        return self.value + float(stats.norm.ppf(confidence)) * self.error

    @property
    def p(self) -> float:
        """One-sided, against 0.5."""
        return float(stats.norm.sf((self.value - 0.5) / self.error)) if self.error else float(self.value <= 0.5)


def excess_p(members: Share, others: Share) -> float:
    """Exact one-sided p-value of as many hits among members, given all hits: binomial with the members' share."""
    together = members.hits + others.hits
    if not together or not (members.total and others.total):
        return 1.0
    share = members.total / (members.total + others.total)
    return float(stats.binomtest(members.hits, together, share, alternative="greater").pvalue)


def ratio_upper(members: Share, others: Share, *, confidence: float) -> float:
    """Exact one-sided upper limit of the ratio of the two rates (Clopper and Pearson 1934, given all hits)."""
    if not others.hits or not members.total:
        return math.inf
    share = float(stats.beta.ppf(confidence, members.hits + 1, others.hits))
    return share / (1 - share) * others.total / members.total


def resolves_ratio(members: Share, others: Share, *, limit: float, confidence: float, level: float) -> bool:
    """Whether there are so many hits that a generator without excess has its upper limit above `limit` with probability
    `level` at most (normal approximation)."""
    if not (members.hits and others.hits):
        return False
    error = math.sqrt(1 / members.hits + 1 / others.hits)
    return float(stats.norm.ppf(confidence) + stats.norm.isf(level)) * error <= math.log(limit)


def area(members: FloatArray, others: FloatArray) -> Area:
    """The AUC with its standard error (DeLong, DeLong and Clarke-Pearson 1988). Both need two patients at least."""
    n, m = len(members), len(others)
    together = stats.rankdata(np.concatenate([members, others]))
    above = (together[:n] - stats.rankdata(members)) / m  # (n,) share of others below each member
    below = 1 - (together[n:] - stats.rankdata(others)) / n  # (m,) share of members above each other
    error = math.sqrt(above.var(ddof=1) / n + below.var(ddof=1) / m)
    return Area(value=float(above.mean()), error=error, members=n, others=m)


@dataclass(frozen=True, kw_only=True)
class Top:
    """How many members score above all but a small share of the others."""

    ratio: float  # true positive rate / false positive rate
    p: float
    members: Share
    others: Share


def top(members: FloatArray, others: FloatArray, *, share: float, rng: np.random.Generator) -> Top:
    """The true positive rate at a false positive rate of `share` (at least one patient), equal scores in random order.

    Exact p-value: above the k-th highest of m others lie BetaBinomial(n, k, m + 1 - k) of n members.
    """
    n, m = len(members), len(others)
    k = max(1, math.floor(share * m))
    scores = np.concatenate([members, others])
    order = np.lexsort((rng.random(n + m), scores))[::-1]
    is_other = order >= n
    last = int(np.flatnonzero(is_other)[k - 1])
    hits = last - (k - 1)
    p = float(stats.betabinom.sf(hits - 1, n, k, m + 1 - k))
    found, among = Share(hits=hits, total=n), Share(hits=k, total=m)
    return Top(ratio=found.rate / among.rate, p=p, members=found, others=among)


def risk(attack: Share, control: Share, *, confidence: float) -> tuple[float, float]:
    """What an attack gains by its targets having been in training, and its one-sided upper limit.

    (attack - control) / (1 - control), as Anonymeter has it (Giomi et al. 2023, PoPETs); both rates Wilson-centred.
    """
    z = float(stats.norm.ppf(confidence))
    (a, a_error), (c, c_error) = _wilson(attack, z), _wilson(control, z)
    if c >= 1:
        return 0.0, 0.0
    excess = (a - c) / (1 - c)
    error = math.hypot(a_error / (1 - c), c_error * (1 - a) / (1 - c) ** 2)
    return excess, excess + error


def _wilson(share: Share, z: float) -> tuple[float, float]:
    """Centre and half width of Wilson's interval."""
    n = max(share.total, 1)
    rate = share.hits / n
    width = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return (rate + z * z / (2 * n)) / (1 + z * z / n), width
