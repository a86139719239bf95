"""Which codes a site proposes under noise: those that stand out of it.

In:  which training patient carries which token.   Out: fixed-point counts, a threshold, tokens with noised counts.
Never: a token that one patient alone has, but for the chance that the ledger was charged.

Counts of tokens whose names nobody knows beforehand cannot all be told with noise: that a token is among them says that
somebody carries it. So only those above a threshold are, which one patient's tokens pass with a chance that is taken
off delta (Korolova et al. 2009; the Gaussian form is Gopi et al. 2020, arXiv 2002.09745, theorem 5.1).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from fairsynth.governance.noise import UNIT
from fairsynth.schemas import FloatArray, IntArray

MOST_CODES = 512  # of one patient that are counted


def counted_codes(carried: IntArray, tokens: Sequence[str], *, bound: float) -> IntArray:
    """(C,) fixed-point counts of patients by token; one with more than `bound`^2 tokens counts less for each.

    `carried` (M, 2) are rows of patients and indices of `tokens`, each pair once. L2 sensitivity: `bound * UNIT`.
    Of a patient with more than 512 tokens those are counted that come first by a hash of their names.
    """
    if not len(carried):
        return np.zeros(len(tokens), dtype=np.int64)
    rank = np.argsort(np.argsort([hashlib.sha256(token.encode()).digest() for token in tokens]))
    ordered = carried[np.lexsort((rank[carried[:, 1]], carried[:, 0]))]
    starts = np.flatnonzero(np.r_[True, np.diff(ordered[:, 0]) > 0])
    place = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    kept = ordered[place < MOST_CODES]
    numbers = np.bincount(kept[:, 0])[kept[:, 0]]  # tokens of the pair's patient
    weights = np.trunc(_weight(numbers, bound=bound) * (1 - 1e-9) * UNIT).astype(np.int64)
    total = np.zeros(len(tokens), dtype=np.int64)
    np.add.at(total, kept[:, 1], weights)
    return total


def threshold(*, bound: float, sigma: float, chance: float) -> float:
    """The count, in patients, that tokens of one patient alone pass with `chance` at most, all of them together.

    `sigma` is the noise's standard deviation, in patients.
    """
    numbers = np.arange(1, MOST_CODES + 1)
    # t tokens of one patient: all stay below with probability Phi((threshold - weight) / sigma)^t
    above = norm.isf(-np.expm1(np.log1p(-chance) / numbers))
    return float((_weight(numbers, bound=bound) + sigma * above).max())


def proposed(noised: IntArray, tokens: Sequence[str], *, least: float, most: int) -> dict[str, int]:
    """The at most `most` tokens whose noised fixed-point count is `least` patients or more, and these counts."""
    counts = noised / UNIT
    found = {token: math.floor(count) for token, count in zip(tokens, counts.tolist(), strict=True) if count >= least}
    ranked = sorted(found, key=lambda token: (-found[token], token))[:most]
    return {token: found[token] for token in sorted(ranked)}


def _weight(numbers: IntArray, *, bound: float) -> FloatArray:
    """What each of so many tokens of a patient counts."""
    return np.minimum(1.0, bound / np.sqrt(numbers))
