"""Arrow text columns -> integers, numbers and times, where every cell of a batch is written in the usual way.

In:  a batch of text columns.   Out: the same, some columns as int64, float64 or time; the others for cells.py to parse.
Never: a cell that cells.py would read otherwise, or refuse. This is its fast half, and gives up at the first doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["integer", "real", "time"]

# Formats that Arrow reads exactly, and the length of a time that is written so.
TIME_LENGTHS = {"%Y-%m-%d %H:%M:%S": 19, "%Y-%m-%dT%H:%M:%S": 19, "%Y-%m-%d": 10}

_TYPES = {"integer": pa.int64(), "real": pa.float64(), "time": pa.timestamp("us")}


@dataclass(frozen=True, kw_only=True)
class Casts:
    """The columns that are read as numbers or times and as nothing else."""

    kinds: Mapping[str, Kind] = field(default_factory=dict)
    time_lengths: frozenset[int] = frozenset()  # of times in the source's formats; empty: times are left as text

    def apply(self, batch: pa.RecordBatch, *, may_be_hexadecimal: bool) -> pa.RecordBatch:
        """`batch` with the columns that fit their kind. Arrow reads 0x1F as 31: then integers are left as text."""
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            kind = self.kinds.get(name)
            fits = kind is not None and not (kind == "integer" and may_be_hexadecimal)
            columns.append(self._cast(column, kind) if fits and kind is not None else column)
        return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)

    def _cast(self, column: pa.Array, kind: Kind) -> pa.Array:
        if kind == "time" and not self._usual(column):
            return column
        try:
            return pc.cast(column, _TYPES[kind])
        except pa.ArrowInvalid:
            return column

    def _usual(self, column: pa.Array) -> bool:
        found = pc.unique(pc.binary_length(column)).drop_null().to_pylist()
        return bool(self.time_lengths) and set(found) <= self.time_lengths


def time_lengths(formats: tuple[str, ...]) -> frozenset[int]:
    """Lengths of times in `formats`; none where one of them is unusual."""
    known = [TIME_LENGTHS.get(form) for form in formats]
    return frozenset() if None in known else frozenset(length for length in known if length is not None)
