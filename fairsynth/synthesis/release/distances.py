"""How far each patient is from the nearest of others, exactly.

In:  `Profiles`.   Out: distances.   Never: an approximation; "itself" told by a distance of 0: a copy has that too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.synthesis.release.profiles import Profiles

_CELLS = 250_000  # distances held at once: they fit a cache


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """`hamming` (B,) codes in which the nearest differs; `jaccard` (B,) in [0, 1], the share of either's codes that is
    not of both. Infinity and 1 where there is nobody."""

    hamming: FloatArray
    jaccard: FloatArray


def nearest(records: Profiles, others: Profiles, *, themselves: bool = False) -> Nearest:
    """The distance of each of `records` to the nearest of `others`, by either measure.

    With `themselves`, `others` are the same patients, and each is left out of its own comparison by its index. Two
    records without a code are at Jaccard distance 0.
    """
    hamming, jaccard = np.full(len(records), np.inf), np.ones(len(records))
    for rows, shared in common(records.content, others.content):
        own = records.sizes[rows].astype(np.float32)[:, None]
        sizes = others.sizes.astype(np.float32)[None, :]
        either = own + sizes - shared
        differing = either - shared
        apart = np.where(either > 0, differing / np.maximum(either, 1), 0)
        if themselves:
            place = np.arange(len(rows))
            differing[place, rows], apart[place, rows] = np.inf, np.inf
        if len(others):
            hamming[rows] = differing.min(axis=1)
            jaccard[rows] = np.minimum(apart.min(axis=1), 1)
    return Nearest(hamming=hamming, jaccard=jaccard)


def common(one: sparse.csr_array, other: sparse.csr_array) -> Iterator[tuple[IntArray, npt.NDArray[np.float32]]]:
    """Rows of `one`, some at a time, and (rows, len(other)) how many columns each shares with each of `other`."""
    dense = np.ascontiguousarray(other.toarray().T, dtype=np.float32)  # (C, B)
    step = max(1, _CELLS // max(other.shape[0], 1))
    for start in range(0, one.shape[0], step):
        rows = np.arange(start, min(start + step, one.shape[0]), dtype=np.int64)
        yield rows, np.asarray(one[rows] @ dense, dtype=np.float32)
