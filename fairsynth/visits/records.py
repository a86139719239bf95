"""Patients as CSR arrays: what the generator reads and writes, and what predictors train on.

In:  token ids.   Out: `Records`, with selection and concatenation.
Never: patient identifiers, file formats other than our own safetensors, Python lists of visits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from fairsynth.errors import ArtefactError
from fairsynth.schemas import IntArray

_FIELDS = ("codes", "visit_offsets", "patient_offsets", "context", "context_offsets", "group", "label")


@dataclass(frozen=True, kw_only=True, eq=False)
class Records:
    """B patients. Visit v of the file holds tokens `codes[visit_offsets[v]:visit_offsets[v + 1]]`, sorted and unique;
    patient i owns visits `patient_offsets[i] .. patient_offsets[i + 1] - 1`, oldest first, at least one.

    codes            (K,)       int64, ids inside `layout.codes`
    visit_offsets    (sum T + 1,) int64
    patient_offsets  (B + 1,)   int64, in visits
    context          (M,)       int64, ids inside `layout.context`, sorted: the label visit, group and label included
    context_offsets  (B + 1,)   int64
    group            (B,)       int64, index into the study's groups
    label            (B,)       int64, 0 or 1
    """

    codes: IntArray
    visit_offsets: IntArray
    patient_offsets: IntArray
    context: IntArray
    context_offsets: IntArray
    group: IntArray
    label: IntArray

    def __len__(self) -> int:
        return len(self.group)

    @property
    def visits(self) -> int:
        """Number of visits of all patients."""
        return len(self.visit_offsets) - 1

    @property
    def visit_counts(self) -> IntArray:
        """(B,) visits of each patient."""
        return np.diff(self.patient_offsets)

    @property
    def visit_patient(self) -> IntArray:
        """(sum T,) the patient that each visit belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.visit_counts)

    def take(self, indices: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Self:
        """The patients at `indices` (integers, repeats allowed, or a boolean mask), in that order."""
        rows = np.flatnonzero(indices) if indices.dtype == np.bool_ else np.asarray(indices, dtype=np.int64)
        visit_rows, patient_offsets = _gather(self.patient_offsets, rows)
        code_rows, visit_offsets = _gather(self.visit_offsets, visit_rows)
        context_rows, context_offsets = _gather(self.context_offsets, rows)
        return type(self)(
            codes=self.codes[code_rows],
            visit_offsets=visit_offsets,
            patient_offsets=patient_offsets,
            context=self.context[context_rows],
            context_offsets=context_offsets,
            group=self.group[rows],
            label=self.label[rows],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Records]) -> Self:
        """All patients of `parts`, in order. `parts` must not be empty."""
        return cls(
            codes=np.concatenate([part.codes for part in parts]),
            visit_offsets=_join_offsets([part.visit_offsets for part in parts]),
            patient_offsets=_join_offsets([part.patient_offsets for part in parts]),
            context=np.concatenate([part.context for part in parts]),
            context_offsets=_join_offsets([part.context_offsets for part in parts]),
            group=np.concatenate([part.group for part in parts]),
            label=np.concatenate([part.label for part in parts]),
        )

    def save(self, path: Path) -> None:
        """Write as safetensors. Not atomic by itself: write inside an artefact folder."""
        save_file({name: np.ascontiguousarray(getattr(self, name)) for name in _FIELDS}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check. Raises ArtefactError when the file is missing or its offsets do not fit."""
        if not path.is_file():
            raise ArtefactError.of("missing records", where=str(path), do="run the step that writes them")
        arrays = load_file(path)
        if set(arrays) != set(_FIELDS) or any(array.dtype != np.int64 or array.ndim != 1 for array in arrays.values()):
            raise ArtefactError.of("not a records file", where=str(path), expected=f"int64 arrays {', '.join(_FIELDS)}")
        records = cls(**arrays)
        if not records._fits():
            raise ArtefactError.of("offsets do not fit", where=str(path), do="run the step that writes them again")
        return records

    def _fits(self) -> bool:
        pairs = (
            (self.patient_offsets, self.visits),
            (self.visit_offsets, len(self.codes)),
            (self.context_offsets, len(self.context)),
        )
        lengths = {len(self.patient_offsets), len(self.context_offsets), len(self.label) + 1, len(self) + 1}
        return len(lengths) == 1 and all(
            offsets[0] == 0 and offsets[-1] == stop and bool((np.diff(offsets) >= 0).all()) for offsets, stop in pairs
        )


def regrouped(parts: Iterable[Records], *, patients: int) -> Iterator[Records]:
    """The patients of `parts` in order, `patients` at a time, the last time perhaps fewer; nobody is one empty part."""
    waiting: list[Records] = []
    yielded = False
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) < patients:
            continue
        whole = Records.concatenate(waiting)
        stop = len(whole) - len(whole) % patients
        for start in range(0, stop, patients):
            yield whole.take(np.arange(start, start + patients))
            yielded = True
        waiting = [whole.take(np.arange(stop, len(whole)))]
    rest = Records.concatenate(waiting) if waiting else _nobody()
    if len(rest) or not yielded:
        yield rest


def _nobody() -> Records:
    empty, start = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
    return Records(
        codes=empty,
        visit_offsets=start,
        patient_offsets=start,
        context=empty,
        context_offsets=start,
        group=empty,
        label=empty,
    )


def _gather(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Element indices of the CSR rows `rows`, and the new offsets."""
    counts = offsets[rows + 1] - offsets[rows]
    new_offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(counts, out=new_offsets[1:])
    shift = np.repeat(offsets[rows] - new_offsets[:-1], counts)
    return np.arange(new_offsets[-1], dtype=np.int64) + shift, new_offsets


def _join_offsets(parts: Sequence[IntArray]) -> IntArray:
    """The offsets of concatenated CSR arrays."""
    ends = np.cumsum([0, *(part[-1] for part in parts)])
    shifted = [part[1:] + end for part, end in zip(parts, ends, strict=False)]
    return np.concatenate([np.zeros(1, dtype=np.int64), *shifted])
