"""Predictions -> counts by group: the additive statistics that every objective and metric is made of.

In:  per-patient labels and predictions (soft in [0, 1], or hard 0/1), or confusion counts.
Out: counts float64 (G, 4), columns `MEMBERS`, `POSITIVES`, `PREDICTED`, `TRUE_POSITIVES`.
Never: a rate (ratios are formed once, after pooling), a site's name, torch.

For the target "label" a patient is one cell: S_g sums p_i, TP_g sums y_i p_i, P_g sums y_i. For the target "codes" a
patient's cells are all (visit, code) pairs of the real visits: S_g, TP_g and P_g sum over cells, N_g still counts
patients. All four add over patients, so they add over sites.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairsynth.schemas import FloatArray, IntArray

MEMBERS, POSITIVES, PREDICTED, TRUE_POSITIVES = range(4)  # N_g, P_g, S_g, TP_g: columns of counts (G, 4)
TP, FP, FN, TN = range(4)  # columns of confusion counts (..., G, 4)


def zero(groups: int) -> FloatArray:
    """(G, 4) counts of nobody: the neutral element of `pool`."""
    return np.zeros((groups, 4))


def count_patients(
    predictions: npt.NDArray[np.floating | np.integer | np.bool_],
    *,
    labels: npt.NDArray[np.integer | np.bool_],
    group: IntArray,
    groups: int,
) -> FloatArray:
    """(G, 4) counts of B patients, each with one label and one soft or hard prediction, all (B,)."""
    columns = (np.ones(len(group)), labels, predictions, np.asarray(labels, dtype=np.float64) * predictions)
    return np.stack([np.bincount(group, weights=column, minlength=groups) for column in columns], axis=1)


def pool(parts: Sequence[FloatArray]) -> FloatArray:
    """(G, 4) the sum of sites' counts, correctly rounded and therefore the same in any order of the sites.

    Raises ValueError when there are no parts or when their shapes differ.
    """
    stacked = np.stack(parts)  # (sites, G, 4)
    sums = [math.fsum(cell) for cell in stacked.reshape(len(parts), -1).T.tolist()]
    return np.array(sums).reshape(stacked.shape[1:])


def from_confusion(confusion: IntArray) -> FloatArray:
    """(..., G, 4) counts from confusion counts (..., G, 4) with columns TP, FP, FN, TN."""
    positives = confusion[..., TP] + confusion[..., FN]
    predicted = confusion[..., TP] + confusion[..., FP]
    return np.stack([confusion.sum(-1), positives, predicted, confusion[..., TP]], axis=-1).astype(np.float64)
