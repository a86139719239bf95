"""Patients -> the steps of a batch: only real positions, tokens sparse.

In:  `Records`, a vocabulary.   Out: `Sequences` (once a data set), `Batch` (once an optimisation step).
Never: padding, randomness, knowledge of sites.

A patient with T visits is T + 2 rows: start | label visit | visit 1 | ... | visit T. Step t of it (t = 0 .. T) reads
rows 0 .. t and predicts row t + 1. The last step's target also carries `end`, which is never an input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fairsynth.errors import CohortError
from fairsynth.schemas import IntArray
from fairsynth.visits.layout import TokenLayout, Vocabulary
from fairsynth.visits.records import Records


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """B patients, ordered by length, as P = sum (T + 1) steps.

    inputs, targets   (K,), (K',) int64 token ids, with (P,) starts of each step's tokens; `end` is not among them
    positions         (P,) int64, 0 reads the start row and predicts the label visit
    runs              (patients, steps) of each run of patients of equal length, in order
    patient           (P,) int64, 0 .. B - 1, the patient of each step
    last              (P,) bool, the step whose target carries `end`
    group, label      (B,) int64
    rows              (B,) int64, where the patients stand in the data set
    """

    inputs: Tensor
    input_starts: Tensor
    targets: Tensor
    target_starts: Tensor
    positions: Tensor
    runs: tuple[tuple[int, int], ...]
    patient: Tensor
    last: Tensor
    group: Tensor
    label: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.group)

    @property
    def steps(self) -> int:
        """P."""
        return len(self.positions)

    def dense(self, layout: TokenLayout, dtype: torch.dtype) -> Tensor:
        """(P, V) the multi-hot targets, `end` included."""
        target = torch.zeros(self.steps, layout.size, dtype=dtype)
        stops = torch.cat([self.target_starts[1:], torch.tensor([len(self.targets)])])
        target[torch.arange(self.steps).repeat_interleave(stops - self.target_starts), self.targets] = 1
        target[self.last, layout.end] = 1
        return target


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """All patients of a data set as rows of tokens; `starts[i] .. starts[i + 1] - 1` are the rows of patient i."""

    tokens: IntArray
    offsets: IntArray
    starts: IntArray
    group: IntArray
    label: IntArray

    @classmethod
    def of(cls, records: Records, *, vocabulary: Vocabulary, maximum_visits: int) -> Self:
        """The rows of `records`. Raises CohortError when a patient has more than `maximum_visits` visits."""
        if too_long := int((records.visit_counts > maximum_visits).sum()):
            raise CohortError.of(
                "patients with more visits than the generator reads",
                where=f"{too_long} of {len(records)} patients",
                expected=f"at most {maximum_visits} visits",
                do="raise generator.maximum_visits, or keep each patient's last visits when the cohort is made",
            )
        patients = np.arange(len(records), dtype=np.int64)
        lengths = (np.ones_like(patients), np.diff(records.context_offsets), np.diff(records.visit_offsets))
        starts = np.full(len(records), vocabulary.layout.start, dtype=np.int64)
        tokens = np.concatenate([starts, records.context, records.codes])
        offsets = _offsets(np.concatenate(lengths))
        order = np.argsort(np.concatenate([patients, patients, records.visit_patient]), kind="stable")
        elements, offsets = gather(offsets, order)
        return cls(
            tokens=tokens[elements],
            offsets=offsets,
            starts=_offsets(records.visit_counts + 2),
            group=records.group,
            label=records.label,
        )

    def __len__(self) -> int:
        return len(self.group)

    @property
    def steps(self) -> IntArray:
        """(B,) number of predicted positions of each patient."""
        return np.diff(self.starts) - 1

    def batch(self, rows: IntArray) -> Batch:
        """The patients at `rows`, ordered by length."""
        rows = rows[np.argsort(self.steps[rows], kind="stable")]
        steps = self.steps[rows]
        first = np.repeat(self.starts[rows], steps)
        positions = np.arange(steps.sum(), dtype=np.int64) - np.repeat(_offsets(steps)[:-1], steps)
        inputs, input_offsets = gather(self.offsets, first + positions)
        targets, target_offsets = gather(self.offsets, first + positions + 1)
        lengths, counts = np.unique(steps, return_counts=True)
        return Batch(
            inputs=torch.from_numpy(self.tokens[inputs]),
            input_starts=torch.from_numpy(input_offsets[:-1]),
            targets=torch.from_numpy(self.tokens[targets]),
            target_starts=torch.from_numpy(target_offsets[:-1]),
            positions=torch.from_numpy(positions),
            runs=tuple(zip(counts.tolist(), lengths.tolist(), strict=True)),
            patient=torch.from_numpy(np.repeat(np.arange(len(rows), dtype=np.int64), steps)),
            last=torch.from_numpy(positions == np.repeat(steps - 1, steps)),
            group=torch.from_numpy(self.group[rows]),
            label=torch.from_numpy(self.label[rows]),
            rows=torch.from_numpy(rows),
        )

    def batches(self, *, steps: int) -> Iterator[Batch]:
        """All patients in batches of at most `steps` steps (or one patient), shortest first."""
        order = np.argsort(self.steps, kind="stable")
        ends = np.cumsum(self.steps[order])
        start = 0
        while start < len(order):
            done = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + steps, side="right")))
            yield self.batch(order[start:stop])
            start = stop


def gather(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Element indices of the CSR rows `rows`, and the new offsets."""
    counts = offsets[rows + 1] - offsets[rows]
    new = _offsets(counts)
    return np.arange(new[-1], dtype=np.int64) + np.repeat(offsets[rows] - new[:-1], counts), new


def _offsets(counts: IntArray) -> IntArray:
    """CSR offsets of rows with these lengths."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
