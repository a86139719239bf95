"""Quota plan: how many synthetic patients each (group, label) cell of a site gets.

In:  the site's real training patients by cell.   Out: integers by cell that sum to the budget.
Never: patients, randomness, another site's counts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fairsynth.errors import CohortError, ConfigError
from fairsynth.schemas import IntArray

LABELS = 2
HALF = 0.5


def members_of(group: IntArray, label: IntArray, *, groups: int) -> IntArray:
    """(G, 2) patients by (group, label)."""
    cells = np.bincount(group * LABELS + label, minlength=groups * LABELS)
    return cells.astype(np.int64).reshape(groups, LABELS)


def equal_cells(members: IntArray, *, budget: int) -> IntArray:
    """(G, 2) synthetic patients that make real + synthetic cells as equal as `budget` allows.

    The smallest cells are filled first (water-filling), so that no other use of the budget gives a larger smallest
    cell. Both labels of a group are filled if the site has at least one patient of the group; a group without one gets
    nothing, because a site fills only the groups it serves. `members` (G, 2) are the site's real training patients.

    Raises ConfigError on a budget below 0, CohortError when the site has no patient at all.
    """
    if budget < 0:
        raise ConfigError.of("negative budget", where="augmentation.synthetic_patients", expected="0 or more")
    served = np.repeat(members.sum(axis=1, keepdims=True) > 0, LABELS, axis=1)  # (G, 2)
    if not served.any():
        raise CohortError.of("no training patient", where="quota plan", do="check the cohort's filters")
    return fill_lowest(members, budget=budget, ceilings=np.where(served, members.max() + budget, members))


def equal_rates(members: IntArray, *, budget: int) -> IntArray:
    """(G, 2) synthetic patients, positives first, that give every group of the site the same share of positives.

    The common share is the highest that `budget` allows, at most one half; a group above it is left as it is. What is
    left at one half is spent by `equal_cells`. Groups without a patient at the site get nothing. `members` (G, 2) are
    the site's real training patients.

    Raises ConfigError on a budget below 0, CohortError when the site has no patient at all.
    """
    whole = equal_cells(members, budget=budget)  # checks the input
    served = members.sum(axis=1) > 0
    low, high = 0.0, HALF
    if _positives_for(HALF, members, served).sum() > budget:
        while high - low > 1 / (1 << 40):
            middle = (low + high) / 2
            fits = _positives_for(middle, members, served).sum() <= budget
            low, high = (middle, high) if fits else (low, middle)
        share = low
    else:
        share = HALF
    added = np.zeros_like(whole)
    added[:, 1] = _positives_for(share, members, served)
    if share == HALF:
        return np.asarray(added + equal_cells(members + added, budget=budget - int(added.sum())))
    for _ in range(budget - int(added.sum())):  # fewer than there are groups
        total = (members + added).sum(axis=1)
        rate = np.where(served, (members[:, 1] + added[:, 1]) / np.maximum(total, 1), np.inf)
        added[int(rate.argmin()), 1] += 1
    return added


def _positives_for(share: float, members: IntArray, served: npt.NDArray[np.bool_]) -> IntArray:
    """(G,) positives to add so that each served group has at most `share` of them, rounded down, never below 0."""
    negatives, positives = members[:, 0], members[:, 1]
    wanted = np.floor(share / (1 - share) * negatives).astype(np.int64) - positives
    return np.where(served, np.maximum(wanted, 0), 0)


def fill_lowest(levels: IntArray, *, budget: int, ceilings: IntArray) -> IntArray:
    """Integers to add to `levels`, at most `budget` in all, that raise the lowest first and none above its ceiling.

    All of the budget is spent if the ceilings leave room for it. Whole units that cannot be shared out evenly go to the
    lowest cells in reading order, so a larger budget never takes a unit away. `levels` and `ceilings` (...,) agree in
    shape.
    """
    room = np.maximum(ceilings - levels, 0)
    spend = min(budget, int(room.sum()))
    water = _water_line(levels, room, spend)
    added = np.clip(water - levels, 0, room)
    at_line = np.flatnonzero((levels + added == water) & (added < room))
    added.reshape(-1)[at_line[: spend - int(added.sum())]] += 1
    return added.astype(np.int64)


def _water_line(levels: IntArray, room: npt.NDArray[np.int64], spend: int) -> int:
    """The highest level to which `spend` units can raise every cell that has room."""
    low, high = int(levels.min()), int((levels + room).max())
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.clip(middle - levels, 0, room).sum()) <= spend:
            low = middle
        else:
            high = middle - 1
    return low


PLANS = {"equal_rates": equal_rates, "equal_cells": equal_cells}
