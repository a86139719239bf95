"""Trials of one row of sizes -> their counts in one place, seeds first, and thresholds.

In:  `Cell`s of one setting and one pair of sizes.   Out: `Row`; confusion counts at a threshold.
Never: approaches judged on different held-out patients; a threshold chosen on held-out patients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fairsynth.config import Favourable
from fairsynth.errors import ArtefactError, Problem
from fairsynth.experiments.evidence.cells import Axes, Cell
from fairsynth.fairness.metrics import SCORE_BINS, BoolArray
from fairsynth.schemas import FloatArray, IntArray

HALF = SCORE_BINS // 2  # the edge at a score of 0.5
THRESHOLDS = ("half", "tuned")


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """K trials that differ by seed alone: A approaches, P predictors, S sites, G groups.

    A pair of approach and predictor that a trial lacks holds zeros, of which every metric is undefined.
    """

    setting: str
    real: int
    synthetic: int
    seeds: tuple[int, ...]
    approaches: tuple[str, ...]
    predictors: tuple[str, ...]
    sites: tuple[str, ...]
    groups: tuple[str, ...]
    reference: BoolArray  # (G,)
    favourable: Favourable  # the prediction that disparate impact compares
    held_out: IntArray  # (K, A, P, S, G, 2, 200)
    validation: IntArray  # (K, A, P, S, G, 2, 200)
    added: IntArray  # (K, A, P, S, G, 2)
    train: IntArray  # (K, S, G, 2)
    oracle_copies: FloatArray  # (K,) share of the oracle's patients that are there once more; NaN: not said

    @property
    def smallest_site(self) -> int:
        """The site with the fewest real training patients, of all seeds together."""
        return int(self.train.sum(axis=(0, 2, 3)).argmin())

    @property
    def present(self) -> BoolArray:
        """(A, P) pairs that any trial judged."""
        return np.asarray(self.held_out.any(axis=(0, 3, 4, 5, 6)))

    def edges(self, threshold: str) -> IntArray:
        """(K, A, P) from which bin on patients are predicted positive: one threshold for all sites; -1: none."""
        if threshold == "half":
            return np.full(self.held_out.shape[:3], HALF)
        return tuned_edges(self.validation.sum(axis=(3, 4)))


def gather(cells: Sequence[Cell]) -> Row:
    """The row of `cells`. Raises ArtefactError when there is none, or when they are not of one row."""
    if not cells:
        raise ArtefactError.of("no finished trial", where="summary", do="run the experiment first")
    cells = sorted(cells, key=lambda cell: cell.axes.seed)
    problems = [*_misfits([cell.axes for cell in cells]), *_other_patients(cells)]
    if problems:
        raise ArtefactError(problems)
    axes = cells[0].axes
    approaches = _union(cell.axes.approaches for cell in cells)
    predictors = _union(cell.axes.predictors for cell in cells)
    counts = {
        name: np.stack([_placed(cell, getattr(cell, name), approaches, predictors) for cell in cells])
        for name in ("held_out", "validation", "added")
    }
    return Row(
        setting=axes.setting,
        real=axes.real,
        synthetic=axes.synthetic,
        seeds=tuple(cell.axes.seed for cell in cells),
        approaches=approaches,
        predictors=predictors,
        sites=axes.sites,
        groups=axes.groups,
        reference=np.isin(axes.groups, axes.reference),
        favourable=axes.favourable,
        train=np.stack([cell.train for cell in cells]),
        oracle_copies=np.array([cell.facts.get("oracle_repeated", np.nan) / cell.axes.synthetic for cell in cells]),
        **counts,
    )


def _union(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """All names, each once, in the order in which they come first."""
    return tuple(dict.fromkeys(name for some in names for name in some))


def _placed(cell: Cell, array: IntArray, approaches: tuple[str, ...], predictors: tuple[str, ...]) -> IntArray:
    """`array` (a, p, ...) of a cell with the axes of all cells (A, P, ...), zeros where it has nothing."""
    placed = np.zeros((len(approaches), len(predictors), *array.shape[2:]), dtype=np.int64)
    rows = [approaches.index(name) for name in cell.axes.approaches]
    columns = [predictors.index(name) for name in cell.axes.predictors]
    placed[np.ix_(rows, columns)] = array
    return placed


def _misfits(axes: Sequence[Axes]) -> Iterator[Problem]:
    """What keeps the trials from being one row."""
    for name in ("setting", "real", "synthetic", "sites", "groups", "reference", "favourable"):
        found = {getattr(one, name) for one in axes}
        if len(found) > 1:
            yield Problem(what="trials of different rows", where=name, expected="the same of every trial")
    if len({one.seed for one in axes}) < len(axes):
        yield Problem(what="a seed counted twice", where="seed", expected="each trial another seed")


def _other_patients(cells: Sequence[Cell]) -> Iterator[Problem]:
    """Trials whose approaches were not judged on the same patients."""
    for cell in cells:
        totals = cell.held_out.sum(axis=-1)  # (A, P, S, G, 2)
        judged = totals.any(axis=(2, 3, 4))
        everybody = totals.max(axis=(0, 1))
        if (totals[judged] != everybody).any():
            where = f"{cell.axes.setting}, {cell.axes.real} real, seed {cell.axes.seed}"
            what = "approaches were not judged on the same held-out patients"
            yield Problem(what=what, where=where, expected="equal patients by site, group and label")


# --- thresholds ------------------------------------------------------------------------------------------------------


def tuned_edges(validation: IntArray) -> IntArray:
    """(...) the edge of best F1 on histograms (..., 2, 200), the highest at a tie; -1 without a positive patient."""
    flagged = _from_bin_on(validation)[..., :SCORE_BINS]  # (..., 2, 200)
    positives = validation[..., 1, :].sum(axis=-1)
    selected, hits = flagged.sum(axis=-2), flagged[..., 1, :]
    scores = 2 * hits / np.maximum(selected + positives[..., None], 1)  # F1 = 2 TP / (TP + FP + positives)
    best = SCORE_BINS - 1 - scores[..., ::-1].argmax(axis=-1)
    return np.where(positives > 0, best, -1)


def confusion(histogram: IntArray, *, edges: IntArray) -> IntArray:
    """(..., G, 4) TP, FP, FN, TN of histograms (..., G, 2, 200) with patients from bin `edges` (...) on positive.

    Zeros where there is no edge.
    """
    cut = np.where(edges >= 0, edges, 0)[..., None, None, None]
    flagged = np.take_along_axis(_from_bin_on(histogram), cut, axis=-1)[..., 0]  # (..., G, 2)
    spared = histogram.sum(axis=-1) - flagged
    cells = np.stack([flagged[..., 1], flagged[..., 0], spared[..., 1], spared[..., 0]], axis=-1)
    return np.where(edges[..., None, None] >= 0, cells, 0)


def _from_bin_on(histogram: IntArray) -> IntArray:
    """(..., 201) patients in each bin or a higher one; 0 at the last."""
    counted = np.cumsum(histogram[..., ::-1], axis=-1)[..., ::-1]
    return np.concatenate([counted, np.zeros((*counted.shape[:-1], 1), dtype=np.int64)], axis=-1)
