"""What a new patient must be: any part of the label visit.

In:  arrays, one entry a patient.   Out: `Conditions`, checked against a layout.
Never: a chance; a token of a visit (a given history is `Records`, see `sample.stream_patients`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from fairsynth.errors import ConfigError, Problem
from fairsynth.schemas import IntArray
from fairsynth.visits.layout import TokenLayout

FREE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """(B,) each: index of the group, the label (0 or 1), index of the sex and of the age band that a patient must have.

    `phenotypes` (B, F): 1 must be present, 0 must be absent. -1 leaves a token to the model, None leaves it for
    everyone. What is left free is drawn from the model's distribution given all that is not.
    """

    group: IntArray
    label: IntArray
    sex: IntArray | None = None
    age: IntArray | None = None
    phenotypes: IntArray | None = None

    def __len__(self) -> int:
        return len(self.group)

    def part(self, rows: slice) -> Conditions:
        """The conditions of the patients `rows`."""
        return Conditions(**{name: array[rows] for name, array in self._given()})

    @classmethod
    def free(cls, number: int) -> Conditions:
        """`number` patients without a condition."""
        return cls(group=np.full(number, FREE, dtype=np.int64), label=np.full(number, FREE, dtype=np.int64))

    def check(self, layout: TokenLayout) -> None:
        """Raise ConfigError when an array has another length, or a value that the layout does not have."""
        problems = []
        for name, array in self._given():
            values = 2 if name in ("label", "phenotypes") else _length(getattr(layout, _BLOCKS[name]))
            shape = (len(self), _length(layout.phenotypes)) if name == "phenotypes" else (len(self),)
            if array.shape != shape:
                problems.append(Problem(what="condition of another shape", where=name, expected=str(shape)))
            elif ((array < FREE) | (array >= values)).any():
                problems.append(Problem(what="condition out of range", where=name, expected=f"-1 .. {values - 1}"))
        if problems:
            raise ConfigError(problems)

    def _given(self) -> Iterator[tuple[str, IntArray]]:
        for each in fields(self):
            if (array := getattr(self, each.name)) is not None:
                yield each.name, array


_BLOCKS = {"group": "groups", "sex": "sexes", "age": "ages"}


def _length(columns: slice) -> int:
    return int(columns.stop - columns.start)
