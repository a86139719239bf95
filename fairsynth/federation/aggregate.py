"""Replies -> the next global model and the pooled counts.

In:  checked replies.   Out: weighted average of weights, exact sums of counts.
Never: an unchecked reply; a result that depends on the order of arrival.

Replies are folded one by one, sorted by site id, in float64: the same replies give the same bytes in any order. Those
of a round are folded array by array, out of a spool: one array of one site is in memory at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fairsynth.errors import ProtocolError
from fairsynth.federation.spool import Spool
from fairsynth.schemas import Arrays, SiteId

Number = TypeVar("Number", np.float64, np.int64)


class WeightedMean:
    """sum_i n_i w_i / sum_i n_i of named arrays, folded one reply at a time (McMahan et al. 2017, FedAvg)."""

    def __init__(self) -> None:
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._patients = 0

    def add(self, weights: Arrays, *, patients: int) -> None:
        """Fold in one site's weights. Names and shapes must be those of the first."""
        for name in sorted(weights):
            term = np.asarray(weights[name], dtype=np.float64) * patients
            if name in self._sums:
                self._sums[name] += term
            else:
                self._sums[name] = term
        self._patients += patients

    def mean(self) -> Arrays:
        """The average, float32. Raises ProtocolError when nothing was added."""
        if self._patients <= 0:
            raise ProtocolError.of("nothing to average", where="aggregate", expected="at least one reply")
        return {name: (total / self._patients).astype(np.float32) for name, total in self._sums.items()}


def average(weights: Mapping[SiteId, Arrays], *, patients: Mapping[SiteId, int]) -> Arrays:
    """The weighted mean of the sites' weights, float32; the order of `weights` does not matter."""
    mean = WeightedMean()
    for site in sorted(weights):
        mean.add(weights[site], patients=patients[site])
    return mean.mean()


def average_of(spool: Spool, prefix: str, *, patients: Mapping[SiteId, int]) -> Arrays:
    """As `average`, of the arrays in `spool` whose names begin with `prefix`, which is taken off."""
    found: Arrays = {}
    for name in spool.names(prefix):
        mean = WeightedMean()
        for site in sorted(patients):
            mean.add({name: spool.get(site, name)}, patients=patients[site])
        found[name.removeprefix(prefix)] = mean.mean()[name]
    return found


def pool(counts: Mapping[SiteId, npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """The sum of the sites' counts, element by element; exact for integers, order-free for float64."""
    first, *rest = (counts[site] for site in sorted(counts))
    total = first.copy()
    for term in rest:
        np.add(total, term, out=total)
    return total


def weights_sha256(weights: Arrays) -> str:
    """Hex SHA-256 over names, dtypes, shapes and bytes: the name of a model."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.asarray(weights[name], order="C")
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
