"""Quota plan: how many synthetic patients each (group, label) cell of a site gets.

In:  the site's real training patients by cell.   Out: integers by cell that sum to the budget.
Never: patients, randomness, another site's counts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fairsynth.errors import CohortError, ConfigError
from fairsynth.schemas import FloatArray, IntArray

LABELS = 2
HALF = 0.5
CEILING = 0.75  # of the positives in a group, whatever its weight
_ENDLESS = float(1 << 40)  # steps of a bisection


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
    return weighted_rates(members, budget=budget, weights=np.ones(len(members)))


def weighted_rates(members: IntArray, *, budget: int, weights: FloatArray, most: float = HALF) -> IntArray:
    """(G, 2) synthetic patients, positives first, that bring the groups' odds of label 1 into the ratio of `weights`.

    A group of weight w gets w times the odds of a group of weight 1, whose share of positives is the highest that
    `budget` allows, at most `most`; nobody's exceeds `CEILING`, and a group above its share is left as it is. What is
    left at `most` goes to the smallest groups, both labels in the group's own share. Weights of 1 are `equal_rates`.

    Raises ConfigError on a budget below 0, a weight not above 0 or `most` outside (0, 1/2]; CohortError when the site
    has no patient at all.
    """
    equal_cells(members, budget=budget)  # checks members and budget
    if not (np.isfinite(weights).all() and (weights > 0).all() and 0 < most <= HALF):
        raise ConfigError.of("quota weights do not fit", where="quota plan", expected="weights > 0, 0 < most <= 1/2")
    served = members.sum(axis=1) > 0

    def positives(share: float) -> IntArray:
        wanted = np.floor(_odds(share, weights) * members[:, 0]).astype(np.int64) - members[:, 1]
        return np.where(served, np.maximum(wanted, 0), 0)

    added = np.zeros_like(members)
    added[:, 1] = positives(_highest(positives, top=most, budget=budget))
    if positives(most).sum() > budget:
        for _ in range(budget - int(added.sum())):  # fewer than there are groups
            odds = (members[:, 1] + added[:, 1]) / np.maximum(members[:, 0], 1 / _ENDLESS) / weights
            added[int(np.where(served, odds, np.inf).argmin()), 1] += 1
        return added
    odds = _odds(most, weights)
    mix = 2 * np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1)  # (G, 2), of ones where the share is one half
    return added + _fill_mixed(members + added, budget=budget - int(added.sum()), mix=mix, served=served)


def _odds(share: float, weights: FloatArray) -> FloatArray:
    """(G,) the odds of label 1 that groups of these weights get at this share of positives."""
    return np.minimum(weights * (share / (1 - share)), CEILING / (1 - CEILING))


def _fill_mixed(levels: IntArray, *, budget: int, mix: FloatArray, served: npt.NDArray[np.bool_]) -> IntArray:
    """(G, 2) integers summing to `budget` that raise the lowest `levels / mix` of served groups first."""

    def added_at(line: float) -> IntArray:
        return np.where(served[:, None], np.maximum(np.floor(line * mix).astype(np.int64) - levels, 0), 0)

    added = added_at(_highest(added_at, top=float((levels / mix).max() + (budget + 1) / mix.min()), budget=budget))
    for _ in range(budget - int(added.sum())):  # no more than there are cells
        lowest = np.where(served[:, None], (levels + added) / mix, np.inf).argmin()
        added.reshape(-1)[lowest] += 1
    return added


def _highest(added_at: Callable[[float], IntArray], *, top: float, budget: int) -> float:
    """The highest level in [0, `top`], to about 2^-40 of it, whose additions, which rise with it, fit the budget."""
    if added_at(top).sum() <= budget:
        return top
    low, high = 0.0, top
    while high - low > top / _ENDLESS:
        middle = (low + high) / 2
        low, high = (middle, high) if added_at(middle).sum() <= budget else (low, middle)
    return low


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
