"""Which patients train, which validate, which are held out: by patient, from a keyed hash of the patient's id.

In:  ids, seed, the source's name.   Out: a split for each id, independent of the order of the ids.
Never: one patient in two splits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fairsynth.config import SplitConfig
from fairsynth.schemas import SPLITS, IntArray
from fairsynth.seeds import stream


def keyed_hash(ids: IntArray, *, key: int) -> npt.NDArray[np.uint64]:
    """(B,) SplitMix64 of `ids` under `key`, two rounds; different ids have different hashes."""
    return _mix(_mix(ids.astype(np.uint64) ^ np.uint64(key)) ^ np.uint64(key))


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def split(ids: IntArray, *, shares: SplitConfig, seed: int, source: str, independent: bool = False) -> IntArray:
    """(B,) index into SPLITS. Split sizes are the shares of B, rounded to whole patients.

    `ids` must be unique. The patients with the smallest hashes train, the next validate, the rest are held out. Where
    the cut lies follows from B, so one patient more may move another. With `independent` it does not, and sizes are
    near the shares of B: under differential privacy a patient must change nothing but the own place.
    """
    hashes = keyed_hash(ids, key=stream(seed, "split", source))
    cuts = np.cumsum([shares.train, shares.validation])
    if independent:
        return np.searchsorted(cuts, hashes / 2.0**64, side="right").clip(max=len(SPLITS) - 1).astype(np.int64)
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.argsort(hashes, kind="stable")] = np.arange(len(ids))
    ends = np.rint(cuts * len(ids)).astype(np.int64)
    return np.searchsorted(ends, rank, side="right").clip(max=len(SPLITS) - 1).astype(np.int64)
