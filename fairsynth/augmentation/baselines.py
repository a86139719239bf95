"""Baselines without a generator: copies of real patients, by three plans.

In:  a site's real training patients.   Out: copies of some of them, at most as many as a generator may add.
Never: validation or held-out patients; a copy where there is nobody to copy.

`double_prioritised` is the paper's baseline (Pias et al. 2024; paper, section 5); it copies nobody of the largest
group. `cell_balanced` evens out the cells, and `copies_to` follows any plan: the generator's own, as a control.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairsynth import seeds
from fairsynth.augmentation.plan import LABELS, fill_lowest, members_of
from fairsynth.schemas import IntArray
from fairsynth.visits.records import Records

INCREMENTS = 4


@dataclass(frozen=True, kw_only=True)
class Oversampled:
    """The copies that were chosen, and by what."""

    copies: Records
    cells: IntArray  # (G, 2) copies by (group, label)
    validation: tuple[float, ...]  # criterion of each candidate, fewest copies first


def copy_plan(members: IntArray, *, budget: int) -> IntArray:
    """(G, 2) copies of minority patients, at most `budget`; a minority group is one smaller than the largest.

    Doubly prioritised: first the rarer class of each minority group, up to the group's other class; then both classes
    of each minority group, up to half the largest group's size, so that no minority outgrows the majority. A cell
    without a patient has nothing to copy. `members` (G, 2) are real training patients.
    """
    sizes = members.sum(axis=1, keepdims=True)  # (G, 1)
    copied = (members > 0) & (sizes < sizes.max())
    first = np.where(copied, np.broadcast_to(members.max(axis=1, keepdims=True), members.shape), members)
    added = fill_lowest(members, budget=budget, ceilings=first)
    half = np.where(copied, max(int(sizes.max()) // LABELS, 1), members)
    return added + fill_lowest(members + added, budget=budget - int(added.sum()), ceilings=half)


def double_prioritised(
    train: Records, *, groups: int, budget: int, criterion: Callable[[Records], float], seed: int
) -> Oversampled:
    """Copies added in `INCREMENTS` equal increments; the number of increments with the best `criterion` is kept.

    `criterion(mixed)` scores a training set on validation patients, higher is better; the fewest copies win a tie.
    Every candidate contains the one before, and the first already holds copies. The same seed gives the same copies.
    """
    members = members_of(train.group, train.label, groups=groups)
    full = copy_plan(members, budget=budget)
    sizes = sorted({-(-int(full.sum()) * step // INCREMENTS) for step in range(1, INCREMENTS + 1)})
    plans = [copy_plan(members, budget=size) for size in sizes]
    candidates = [train.take(copy_rows(train, cells=cells, seed=seed)) for cells in plans]
    scores = [criterion(Records.concatenate([train, copies])) for copies in candidates]
    best = int(np.argmax(scores))
    return Oversampled(copies=candidates[best], cells=plans[best], validation=tuple(scores))


def cell_balanced(train: Records, *, groups: int, budget: int, seed: int) -> Records:
    """`budget` copies that make the (group, label) cells as equal as it allows, the smallest first.

    As `plan.equal_cells`, but a cell without a patient has nothing to copy: its share goes to the others.
    """
    members = members_of(train.group, train.label, groups=groups)
    ceilings = np.where(members > 0, members.max(initial=0) + budget, members)
    cells = fill_lowest(members, budget=budget, ceilings=ceilings)
    return train.take(copy_rows(train, cells=cells, seed=seed))


@dataclass(frozen=True, kw_only=True)
class Copies:
    """The copies that a plan asked for, as far as there was somebody to copy."""

    records: Records
    missing: int  # patients that the plan wants in cells without a real one


def copies_to(train: Records, *, cells: IntArray, seed: int) -> Copies:
    """`cells[g, y]` copies of each cell: what a quota plan gives without a generator."""
    members = members_of(train.group, train.label, groups=len(cells))
    possible = np.where(members > 0, cells, 0)
    rows = copy_rows(train, cells=possible, seed=seed)
    return Copies(records=train.take(rows), missing=int(cells.sum() - possible.sum()))


def copy_rows(train: Records, *, cells: IntArray, seed: int) -> IntArray:
    """Indices of the patients to copy, `cells[g, y]` of each cell: every patient once before any a second time."""
    rows = [
        _cycle(np.flatnonzero((train.group == group) & (train.label == label)), int(number), seed, group, label)
        for (group, label), number in np.ndenumerate(cells)
    ]
    return np.concatenate(rows)


def _cycle(patients: IntArray, number: int, seed: int, group: int, label: int) -> IntArray:
    """The first `number` of an endless seeded round over `patients`."""
    if number == 0:
        return np.zeros(0, dtype=np.int64)
    order = seeds.numpy_stream(seed, "copies", group, label).permutation(patients)
    return np.resize(order, number).astype(np.int64)
