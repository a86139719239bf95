"""Patients -> the rows of a batch: only real ones, tokens sparse, nothing twice.

In:  `Records`, a vocabulary.   Out: `Sequences` (once a data set), `Batch` (once an optimisation step).
Never: padding, randomness, knowledge of sites.

A patient with T visits is T + 2 rows: start | label visit | visit 1 | ... | visit T. Step t of it (t = 0 .. T) reads
rows 0 .. t and predicts row t + 1. The last step's target also carries `end`, which is never an input.

All patients begin with the same start row, so that step 0, which predicts the label visit, has one history for all of
them. A batch of B patients therefore reads R = 1 + sum T rows (the start row once, then each patient's rows 1 .. T),
and predicts B label visits and sum T visits: P = B + sum T steps, label visits first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor

from fairsynth.errors import CohortError
from fairsynth.generator.triangular import BLOCK, edges
from fairsynth.schemas import IntArray
from fairsynth.visits.layout import TokenLayout, Vocabulary
from fairsynth.visits.records import Records

BUCKETS = (2, 4, 8, 16, 24, 32, 48, 64, 96, 128)  # patients of similar length share an attention call


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Rows of tokens in CSR: row i holds tokens[starts[i]], ..., up to the start of the next; both int64."""

    tokens: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, kw_only=True, eq=False)
class PanelRows:
    """The tokens `low` .. `high` - 1 of some rows, counted from `low`, by row and by token.

    tokens, owner   (n,) int64, by row: token and its row; starts (rows,) where each row's begin
    rows            (n,) int64, by token: the rows that hold it; places (high - low,) where each token's begin
    """

    low: int
    high: int
    tokens: Tensor
    owner: Tensor
    starts: Tensor
    rows: Tensor
    places: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucket:
    """Patients that share an attention call over `length` rows; shorter ones end in rows that nothing real sees.

    gather (n * length,) int64: the batch's row at each place, the start row first
    keep   (sum T,) int64 or None: the places that are real and not the start row; None, when that is all but the first
    """

    patients: int
    length: int
    gather: Tensor
    keep: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """B patients, ordered by length.

    inputs      (sum T) rows of tokens: rows 1 .. T of each patient
    positions   (sum T,) int64, 1 .. T
    visits      targets of the (sum T) steps that predict a visit, in the order of `inputs`: code tokens by panel
    contexts    targets of the B steps that predict a label visit
    last        (B,) int64: which of `visits` carries `end` besides, by patient
    patient     (sum T,) int64, 0 .. B - 1
    group, label (B,) int64
    rows        (B,) int64, where the patients stand in the data set
    """

    inputs: Rows
    positions: Tensor
    buckets: tuple[Bucket, ...]
    visits: tuple[PanelRows, ...]
    contexts: PanelRows
    last: Tensor
    patient: Tensor
    group: Tensor
    label: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.group)

    @property
    def steps(self) -> int:
        """P."""
        return len(self) + len(self.positions)

    @property
    def step_patient(self) -> Tensor:
        """(P,) the patient of each step."""
        return torch.cat([torch.arange(len(self), device=self.patient.device), self.patient])

    def to(self, device: torch.device | str) -> Batch:
        """The batch on `device`, in one transfer; from pinned memory to a GPU, so that nobody waits for it."""
        if torch.device(device).type == "cpu":
            return self
        parts = list(_tensors(self))
        flat = torch.cat(parts)
        pinned = flat.pin_memory() if torch.device(device).type == "cuda" else flat
        moved = torch.split(pinned.to(device, non_blocking=True), [len(part) for part in parts])
        return cast(Batch, _with_tensors(self, iter(moved)))

    def dense(self, layout: TokenLayout, dtype: torch.dtype) -> Tensor:
        """(P, V) the multi-hot targets, `end` included."""
        number = len(self)
        target = torch.zeros(self.steps, layout.size, dtype=dtype, device=self.patient.device)
        target[self.contexts.owner, self.contexts.low + self.contexts.tokens] = 1
        for panel in self.visits:
            target[number + panel.owner, panel.low + panel.tokens] = 1
        target[number + self.last, layout.end] = 1
        return target


def _tensors(value: object) -> Iterator[Tensor]:
    """Every tensor in a tree of dataclasses and tuples, in the order of the fields; all are (n,) int64."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _tensors(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _with_tensors(value: object, tensors: Iterator[Tensor]) -> object:
    """The same tree with other tensors, in the same order."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple):
        return tuple(_with_tensors(each, tensors) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _with_tensors(getattr(value, f.name), tensors) for f in fields(value)})
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """All patients of a data set as rows of tokens; rows 1 .. T + 1 of patient i begin at `starts[i]`."""

    tokens: IntArray
    offsets: IntArray
    starts: IntArray
    group: IntArray
    label: IntArray
    layout: TokenLayout

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
        lengths = np.concatenate([np.diff(records.context_offsets), np.diff(records.visit_offsets)])
        order = np.argsort(np.concatenate([patients, records.visit_patient]), kind="stable")
        elements, offsets = gather(_offsets(lengths), order)
        return cls(
            tokens=np.concatenate([records.context, records.codes])[elements],
            offsets=offsets,
            starts=_offsets(records.visit_counts + 1),
            group=records.group,
            label=records.label,
            layout=vocabulary.layout,
        )

    def __len__(self) -> int:
        return len(self.group)

    @property
    def steps(self) -> IntArray:
        """(B,) number of predicted rows of each patient: T + 1."""
        return np.diff(self.starts)

    def batch(self, rows: IntArray, *, block: int = BLOCK) -> Batch:
        """The patients at `rows`, ordered by length, for a model with panels of `block` rows."""
        rows = rows[np.argsort(self.steps[rows], kind="stable")]
        visits = self.steps[rows] - 1
        position = np.arange(visits.sum(), dtype=np.int64) - np.repeat(_offsets(visits)[:-1], visits)
        first = np.repeat(self.starts[rows], visits) + position

        inputs, input_offsets = gather(self.offsets, first)
        cuts = edges(self.layout.codes.stop, block=block)
        return Batch(
            inputs=Rows(tokens=torch.from_numpy(self.tokens[inputs]), starts=torch.from_numpy(input_offsets[:-1])),
            positions=torch.from_numpy(position + 1),
            buckets=tuple(_buckets(visits)),
            visits=tuple(self._panels(first + 1, cuts=cuts)),
            contexts=next(self._panels(self.starts[rows], cuts=[self.layout.codes.stop, self.layout.end])),
            last=torch.from_numpy(np.cumsum(visits) - 1),
            patient=torch.from_numpy(np.repeat(np.arange(len(rows), dtype=np.int64), visits)),
            group=torch.from_numpy(self.group[rows]),
            label=torch.from_numpy(self.label[rows]),
            rows=torch.from_numpy(rows),
        )

    def batches(self, *, steps: int, block: int = BLOCK) -> Iterator[Batch]:
        """All patients in batches of at most `steps` steps (or one patient), shortest first."""
        order = np.argsort(self.steps, kind="stable")
        ends = np.cumsum(self.steps[order])
        start = 0
        while start < len(order):
            done = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + steps, side="right")))
            yield self.batch(order[start:stop], block=block)
            start = stop

    def _panels(self, rows: IntArray, *, cuts: list[int]) -> Iterator[PanelRows]:
        """The tokens of the CSR rows `rows`, cut into panels; every token lies within `cuts`."""
        elements, offsets = gather(self.offsets, rows)
        tokens, number = self.tokens[elements], len(rows)
        owner = np.repeat(np.arange(number, dtype=np.int64), np.diff(offsets))
        panel = np.searchsorted(cuts, tokens, side="right") - 1
        by_row, by_token = np.argsort(panel, kind="stable"), np.argsort(tokens, kind="stable")
        counts = np.bincount(panel * number + owner, minlength=(len(cuts) - 1) * number).reshape(-1, number)
        starts = np.cumsum(counts, axis=1) - counts
        places = _offsets(np.bincount(tokens, minlength=self.layout.size))
        ends = _offsets(counts.sum(axis=1))
        for i, (low, high) in enumerate(itertools.pairwise(cuts)):
            own = slice(ends[i], ends[i + 1])
            yield PanelRows(
                low=low,
                high=high,
                tokens=torch.from_numpy(tokens[by_row[own]] - low),
                owner=torch.from_numpy(owner[by_row[own]]),
                starts=torch.from_numpy(starts[i]),
                rows=torch.from_numpy(owner[by_token[own]]),
                places=torch.from_numpy(places[low:high] - places[low]),
            )


def _buckets(visits: IntArray) -> Iterator[Bucket]:
    """Attention calls for patients with these visit counts, in rising order; row 0 is the start row of all."""
    own = 1 + _offsets(visits)  # a patient's first row of its own
    ceiling = np.searchsorted(BUCKETS, visits + 1)
    for start, stop in zip(*_runs(ceiling), strict=True):
        length = int(visits[stop - 1]) + 1
        place = np.arange(length, dtype=np.int64)
        real = place[None, :] <= visits[start:stop, None]
        rows = np.where(real & (place > 0), own[start:stop, None] + place - 1, 0)
        kept = real & (place > 0)
        keep = None if real.all() else torch.from_numpy(np.flatnonzero(kept.ravel()))
        yield Bucket(patients=stop - start, length=length, gather=torch.from_numpy(rows.ravel()), keep=keep)


def _runs(values: IntArray) -> tuple[list[int], list[int]]:
    """Where each run of equal values starts, and where it ends."""
    starts = np.flatnonzero(np.diff(values, prepend=-1)) if len(values) else np.empty(0, dtype=np.int64)
    return starts.tolist(), [*starts[1:].tolist(), len(values)] if len(values) else []


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
