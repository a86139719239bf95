"""Two approaches' scores of the same held-out patients -> how they differ, over seeds and patients alike.

In:  scores (K, B) of K seeds by each approach, label and group of the B patients, where all these are in one place.
Out: bootstrap replicates of the difference of each metric, and their percentile interval.
Never: counts of several sites (intervals.py), a group with too few positives in a minimum.

A replicate draws each group's patients with replacement, the same ones for both approaches and all seeds, and K seeds
with replacement; its value is the mean over those seeds of the difference. Nothing is looped over patients: a draw is a
vector of multiplicities (B,), and multiplicities times an indicator matrix of cells (label and side of the threshold;
label and score bin) are the replicate's confusion counts and histograms, from which metrics.py goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from fairsynth.config import Favourable, Strict
from fairsynth.errors import CohortError
from fairsynth.fairness.comparison import METRICS, Rules, Values
from fairsynth.fairness.intervals import percentiles
from fairsynth.fairness.metrics import SCORE_BINS, BoolArray
from fairsynth.fairness.paired import CONFIDENCE
from fairsynth.schemas import FloatArray, Group, IntArray

PAIRED_METRICS = (*METRICS, "abs_log_di")
_BLOCK = 2**22  # multiplicities held at once: 32 MiB


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Who is predicted, and how their groups are compared."""

    label: IntArray  # (B,) 0 or 1
    group: IntArray  # (B,) index into `names`
    names: tuple[Group, ...]
    reference: BoolArray  # (G,)
    minimum_positives: int = 11
    favourable: Favourable = "positive"

    @property
    def sufficient(self) -> BoolArray:
        """(G,) groups with enough positives to enter a minimum."""
        enough: BoolArray = (
            np.bincount(self.group[self.label == 1], minlength=len(self.names)) >= self.minimum_positives
        )
        return enough

    @property
    def rules(self) -> Rules:
        """How metrics compare the groups."""
        return Rules(
            reference=self.reference, sufficient=self.sufficient, confidence=CONFIDENCE, favourable=self.favourable
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """One approach's scores of the held-out patients."""

    scores: FloatArray  # (K, B) in [0, 1]
    thresholds: FloatArray  # (K,) predicted positive from these on


class PairedPatients(Strict):
    """A difference of two approaches on the same patients. None: undefined, not zero."""

    mean: float | None  # over seeds, on the patients as they are
    low: float | None
    high: float | None
    seeds: int
    replicates: int
    left_out: tuple[Group, ...]  # groups with too few positives, which enter no minimum


def paired_bootstrap(
    first: Scores, second: Scores, *, held_out: HeldOut, metric: str, replicates: int, rng: np.random.Generator
) -> PairedPatients:
    """`first` minus `second` in one of `PAIRED_METRICS`, with its 95 % percentile interval.

    Raises CohortError when the two do not have the same seeds and patients.
    """
    drawn = redraw_differences(first, second, held_out=held_out, replicates=replicates, rng=rng)[metric]
    observed = differences(first, second, held_out=held_out)[metric].mean()
    low, high = percentiles(drawn, confidence=CONFIDENCE)
    return PairedPatients(
        mean=float(observed) if np.isfinite(observed) else None,
        low=low if np.isfinite(low) else None,
        high=high if np.isfinite(high) else None,
        seeds=len(first.scores),
        replicates=replicates,
        left_out=tuple(name for name, kept in zip(held_out.names, held_out.sufficient, strict=True) if not kept),
    )


def differences(first: Scores, second: Scores, *, held_out: HeldOut) -> dict[str, FloatArray]:
    """`first` minus `second` (K,) in each of `PAIRED_METRICS`, on the patients as they are. Raises CohortError."""
    _check(first, second, held_out)
    once = np.ones((1, len(held_out.label)), dtype=np.int64)
    return {name: values[0] for name, values in _differences(first, second, once, held_out).items()}


def redraw_differences(
    first: Scores, second: Scores, *, held_out: HeldOut, replicates: int, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """(replicates,) mean differences over seeds, redrawn over patients and seeds, in each of `PAIRED_METRICS`.

    A replicate is NaN where a metric is undefined on one of its seeds. Raises CohortError as `paired_bootstrap`.
    """
    _check(first, second, held_out)
    seeds = len(first.scores)
    chosen = rng.integers(seeds, size=(replicates, seeds))
    parts = [_differences(first, second, times, held_out) for times in _multiplicities(held_out, replicates, rng)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in PAIRED_METRICS}  # (replicates, K)
    return {name: np.take_along_axis(values, chosen, axis=1).mean(axis=1) for name, values in found.items()}


def _multiplicities(held_out: HeldOut, replicates: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """(r, B) how often each patient is drawn, in blocks of replicates that fit `_BLOCK`; each group keeps its size."""
    patients = len(held_out.label)
    members = [np.flatnonzero(held_out.group == group) for group in range(len(held_out.names))]
    left = replicates
    while left > 0:
        block = min(left, max(_BLOCK // patients, 1))
        times = np.zeros((block, patients), dtype=np.int64)
        for rows in (rows for rows in members if len(rows)):
            times[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=block)
        left -= block
        yield times


def _differences(first: Scores, second: Scores, times: IntArray, held_out: HeldOut) -> dict[str, FloatArray]:
    """(R, K) differences of metrics, where patients count `times` (R, B) over."""
    one, other = (_values(approach, times, held_out) for approach in (first, second))
    with np.errstate(invalid="ignore"):  # infinite |log DI| on both sides: undefined
        return {name: one[name] - other[name] for name in PAIRED_METRICS}


def _values(approach: Scores, times: IntArray, held_out: HeldOut) -> dict[str, FloatArray]:
    """(R, K) metrics of one approach."""
    groups = len(held_out.names)
    confusion, histogram = [], []
    for scores, threshold in zip(approach.scores, approach.thresholds, strict=True):
        hard = scores >= threshold
        outcome = np.where(held_out.label == 1, np.where(hard, 0, 2), np.where(hard, 1, 3))  # TP, FP, FN, TN
        bins = np.minimum((scores * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
        confusion.append(_count(times, held_out.group * 4 + outcome, cells=groups * 4).reshape(-1, groups, 4))
        cell = (held_out.group * 2 + held_out.label) * SCORE_BINS + bins
        counted = _count(times, cell, cells=groups * 2 * SCORE_BINS)
        histogram.append(counted.reshape(-1, groups, 2, SCORE_BINS))
    found = Values.of(np.stack(confusion, axis=1), np.stack(histogram, axis=1), rules=held_out.rules).overall
    with np.errstate(divide="ignore"):
        return {**found, "abs_log_di": np.abs(np.log(found["disparate_impact"]))}


def _count(times: IntArray, cell: IntArray, *, cells: int) -> IntArray:
    """(R, cells) patients in each cell, where patient b is in `cell[b]`, counted `times` (R, B) over."""
    patients = len(cell)
    indicator = csr_array((np.ones(patients, dtype=np.int64), (cell, np.arange(patients))), shape=(cells, patients))
    counted: IntArray = np.asarray(indicator @ times.T).T
    return counted


def _check(first: Scores, second: Scores, held_out: HeldOut) -> None:
    shape = (len(first.scores), len(held_out.label))
    fits = first.scores.shape == second.scores.shape == shape and shape[0] == len(first.thresholds)
    if not fits or len(first.thresholds) != len(second.thresholds) or len(held_out.group) != shape[1] or not all(shape):
        raise CohortError.of(
            "scores that cannot be paired",
            where="paired bootstrap",
            expected="scores (K, B) of the same K seeds and B patients by both approaches, and a threshold a seed",
            do="judge both approaches on the same held-out patients with the same seeds",
        )
