"""Which numbers stand where in a masked vector, and how a real number becomes a whole one.

In:  named arrays of a site.   Out: one vector of int64; and of the sum of all sites' vectors, named arrays again.
Never: a number out of its bounds: the sum would wrap; a rounding that depends on the order of sites.

A real number x travels as round(x 2^bits). With at most 64 sites, bounds of 2^56 on what one site sends keep the sum
within int64. A mean over patients travels as n_i x with n_i <= 2^20, and is divided by n = sum n_i at the end: its
error is at most (number of sites) 2^-(bits + 1) / n.

Bounds are constants: nothing that a server says moves them. A number beyond its bound is cut to it and counted in the
vector's last word, so that the sum is thrown away and nobody sees whose it was. A site that failed in the open instead
would answer a question about its own numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fairsynth.artefacts import sha256_json
from fairsynth.errors import Problem, ProtocolError
from fairsynth.federation.masking.roster import MAXIMUM_SITES
from fairsynth.schemas import Arrays, FloatArray, IntArray

LIMIT = (1 << 62) // MAXIMUM_SITES  # of the absolute value of one number of one site
MAXIMUM_PATIENTS = 1 << 20  # n_i

Rounding = Literal["nearest", "up"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One named array of a vector.

    bits      after the binary point; 0 for counts
    bound     of the absolute value, before scaling
    lower     of the value: 0 for what cannot be negative
    mean      whether each site multiplies by its n_i, and the sum is divided by n
    rounding  up: so that what is above 0 stays so (second moments, which divide)
    words     whole 64-bit words that may wrap, such as hashes: no bound
    """

    name: str
    shape: tuple[int, ...]
    bits: int = 0
    bound: float = float(1 << 40)
    lower: float = 0.0
    mean: bool = False
    rounding: Rounding = "nearest"
    words: bool = False

    @property
    def size(self) -> int:
        """Numbers of the array."""
        return math.prod(self.shape)

    def facts(self) -> list[object]:
        """What the schema's hash is of."""
        return [self.name, list(self.shape), self.bits, self.bound, self.lower, self.mean, self.rounding, self.words]


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The records of one kind of message, in order; `patients` is n, of all sites."""

    records: tuple[Record, ...]
    patients: int = 1

    def __post_init__(self) -> None:
        for record in self.records:
            limit = LIMIT // MAXIMUM_PATIENTS if record.mean else LIMIT
            if not record.words and record.bound * 2**record.bits > limit:
                raise ProtocolError.of("record that could wrap", where=record.name, expected="fewer bits")

    @cached_property
    def length(self) -> int:
        """Numbers of a vector: the records, and how many of them are out of their bounds."""
        return sum(record.size for record in self.records) + 1

    @property
    def is_weighted(self) -> bool:
        """Whether a record is a mean over patients."""
        return any(record.mean for record in self.records)

    @cached_property
    def sha256(self) -> str:
        """The hash that a label holds."""
        return sha256_json([record.facts() for record in self.records])

    def vector(self, arrays: Mapping[str, object], *, patients: int = 1) -> IntArray:
        """The vector (L,) of a site with `patients` n_i. Raises ProtocolError on other records, shapes or types."""
        if sorted(arrays) != sorted(record.name for record in self.records):
            raise ProtocolError.of("other records than agreed", where="masked vector", expected=f"{len(self.records)}")
        vector = np.empty(self.length, dtype=np.int64)
        problems, unfit = [], int(not 1 <= patients <= MAXIMUM_PATIENTS)
        for record, place in self._places():
            try:
                vector[place], fits = _whole(record, arrays[record.name], patients=min(patients, MAXIMUM_PATIENTS))
                unfit += not fits
            except _Unfit as misfit:
                problems.append(Problem(what=misfit.what, where=record.name, expected=misfit.expected))
        if problems:
            raise ProtocolError(problems)
        vector[-1] = unfit
        return vector

    def arrays(self, total: IntArray) -> Arrays:
        """The records of the sum of all sites' vectors: int64 without bits, else float64; means are divided by n.

        Raises ProtocolError where a site's number was out of its bounds.
        """
        if total.shape != (self.length,) or total.dtype != np.int64:
            raise ProtocolError.of("sum of another length", where="masked sum", expected=f"{self.length} numbers")
        if total[-1]:
            raise ProtocolError.of(
                "numbers out of their bounds", where="masked sum", expected="numbers within them at every site"
            )
        return {record.name: self._read(record, total[place]) for record, place in self._places()}

    def _read(self, record: Record, part: IntArray) -> FloatArray | IntArray:
        found = part.reshape(record.shape)
        if not record.bits:
            return found.copy()
        scale = float(2**record.bits * (self.patients if record.mean else 1))
        return np.asarray(found.astype(np.float64) / scale)

    def _places(self) -> Iterator[tuple[Record, slice]]:
        start = 0
        for record in self.records:
            yield record, slice(start, start + record.size)
            start += record.size


def bits_for(bound: float) -> int:
    """The most bits after the point for numbers up to `bound`, of one site; 0 where there is room for none."""
    return max(math.floor(math.log2(LIMIT / bound)), 0)


class _Unfit(Exception):
    def __init__(self, what: str, expected: str) -> None:
        self.what, self.expected = what, expected
        super().__init__(what)


def _whole(record: Record, given: object, *, patients: int) -> tuple[IntArray, bool]:
    """One record as int64 (size,), and whether it was within its bounds. Raises _Unfit on another shape or type."""
    array = np.asarray(given)
    if array.shape != record.shape:
        raise _Unfit("array of another shape", f"{record.shape}")
    if record.words:
        return np.ascontiguousarray(array, dtype=np.uint64).view(np.int64).reshape(-1), True
    if record.bits == 0 and not np.issubdtype(array.dtype, np.integer) and array.dtype != np.bool_:
        raise _Unfit("count that is no integer", "int64")
    fits = not array.size or bool(record.lower <= array.min() <= array.max() <= record.bound)  # false for NaN too
    if not fits:
        array = np.clip(np.nan_to_num(array), record.lower, record.bound)
    if not record.bits:
        return array.astype(np.int64).reshape(-1), fits
    scale = 2.0**record.bits * (patients if record.mean else 1)
    found = np.multiply(array.reshape(-1), scale, dtype=np.float64)
    (np.ceil if record.rounding == "up" else np.rint)(found, out=found)
    return np.asarray(found, dtype=np.int64), fits
