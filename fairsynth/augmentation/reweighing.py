"""Baseline that adds nobody: weights that make group and label independent (Kamiran & Calders 2012).

In:  group and label of a site's real training patients.   Out: a weight for each of them.
Never: validation or held-out patients, randomness.
"""

from __future__ import annotations

import numpy as np

from fairsynth.augmentation.plan import members_of
from fairsynth.schemas import FloatArray, IntArray


def reweigh(group: IntArray, label: IntArray, *, groups: int) -> FloatArray:
    """(B,) w = P(g) P(y) / P(g, y): how many patients of the cell there would be without any dependence, for each.

    Weighted, every group has the same share of positives. They sum to B, less what belongs to empty cells: a group
    without a positive patient cannot be given one by weighing.
    """
    members = members_of(group, label, groups=groups).astype(np.float64)  # (G, 2)
    expected = members.sum(axis=1, keepdims=True) * members.sum(axis=0) / max(len(group), 1)
    weights = np.divide(expected, members, out=np.zeros_like(members), where=members > 0)
    return np.asarray(weights[group, label])
