"""Visits with each code, real and synthetic -> how well their shares agree, and what synthetic patients alone teach.

In:  audit arrays: `code_visits`, `code_totals`, `alone`.   Out: `Fidelity`.
Never: a code's name; a small cell in clear; a share where there is no visit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fairsynth.audit.summary import Fidelity
from fairsynth.fairness import metrics
from fairsynth.fairness.estimates import number
from fairsynth.governance.disclosure import shown
from fairsynth.schemas import FloatArray, IntArray

RARE = 0.01  # codes in fewer than this share of training visits form the rare tail of the fidelity figures

Counts = Mapping[str, IntArray]  # the audit arrays of one site


def fidelity(parts: Sequence[Counts], *, minimum_cell: int) -> Fidelity:
    """How far synthetic visits of these sites resemble real ones, code by code, and what they alone teach a predictor.

    Numbers of visits under `minimum_cell` are not shown.
    """
    training, held_out, synthetic = shares = _shares(parts)
    totals = np.stack([part["code_totals"] for part in parts]).sum(axis=0)
    alone = np.stack([part["alone"] for part in parts]).sum(axis=(0, 2))
    rare = training < RARE
    auroc_real, auroc_synthetic = (number(area) for area in metrics.auroc(alone))
    visits = tuple(shown(int(count), minimum_cell=minimum_cell) for count in totals)
    return Fidelity(
        codes=shares.shape[1],
        visits=(visits[0], visits[1], visits[2]),
        r2=_determination(held_out, synthetic),
        r2_ceiling=_determination(held_out, training),
        r2_training=_determination(training, synthetic),
        r2_training_rare=_determination(training[rare], synthetic[rare]),
        points=tuple((x, y, z) for x, y, z in shares.T.round(6).tolist()) if totals.all() else (),
        auroc_real=auroc_real,
        auroc_synthetic=auroc_synthetic,
    )


def _shares(parts: Sequence[Counts]) -> FloatArray:
    """(3, C) share of training, held-out and synthetic visits with each code; NaN where there is no visit.

    A site's synthetic visits are weighted to count as many as its training visits: how many are made is a choice.
    """
    visits = np.stack([part["code_visits"] for part in parts]).astype(np.float64)  # (sites, 3, C)
    totals = np.stack([part["code_totals"] for part in parts]).astype(np.float64)  # (sites, 3)
    weight = np.where(totals[:, 2] > 0, totals[:, 0] / np.maximum(totals[:, 2], 1), 0.0)
    visits[:, 2] *= weight[:, None]
    totals[:, 2] *= weight
    occurs, chances = visits.sum(axis=0), totals.sum(axis=0)
    return np.asarray(np.where(chances > 0, occurs.T / np.where(chances > 0, chances, 1), np.nan).T)


def _determination(y: FloatArray, x: FloatArray) -> float | None:
    """1 - residual / total sum of squares of y against y = x; None where y does not vary or there are no visits."""
    total = ((y - y.mean()) ** 2).sum() if len(y) else 0.0
    return number(1 - ((y - x) ** 2).sum() / total) if total > 0 else None
