"""Confusion counts and score histograms -> the metrics that a report prints.

In:  confusion counts (..., G, 4) by group with columns TP, FP, FN, TN; score histograms (..., 2, 200) by label.
Out: float64 metrics over the leading axes; NaN where a metric is undefined, never 0 or 1 in its place.
Never: rows of patients, thresholds, intervals (intervals.py). Definitions in words: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairsynth.config import Favourable
from fairsynth.fairness.counts import FN, FP, TN, TP
from fairsynth.schemas import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]

SCORE_BINS = 200  # of equal width on [0, 1]; a score of 1 falls into the last


@dataclass(frozen=True, kw_only=True, eq=False)
class Worst:
    """The lowest value among the groups that may be compared."""

    value: FloatArray  # (...), NaN where no group is left
    group: IntArray  # (...), its index, the first on ties; -1 where no group is left


# --- of one set of confusion counts (..., 4) -------------------------------------------------------------------------


def pooled(confusion: IntArray) -> IntArray:
    """(..., 4) the counts of all groups together."""
    total: IntArray = confusion.sum(axis=-2)
    return total


def selection_rate(confusion: IntArray) -> FloatArray:
    """(...) share of patients predicted positive, (TP + FP) / all."""
    return _share(confusion[..., TP] + confusion[..., FP], confusion.sum(-1))


def true_positive_rate(confusion: IntArray) -> FloatArray:
    """(...) TP / (TP + FN), also called sensitivity or recall."""
    return _share(confusion[..., TP], confusion[..., TP] + confusion[..., FN])


def false_positive_rate(confusion: IntArray) -> FloatArray:
    """(...) FP / (FP + TN)."""
    return _share(confusion[..., FP], confusion[..., FP] + confusion[..., TN])


def positive_predictive_value(confusion: IntArray) -> FloatArray:
    """(...) TP / (TP + FP): share of alarms that are right."""
    return _share(confusion[..., TP], confusion[..., TP] + confusion[..., FP])


def f1(confusion: IntArray) -> FloatArray:
    """(...) 2 TP / (2 TP + FP + FN)."""
    return _share(2 * confusion[..., TP], 2 * confusion[..., TP] + confusion[..., FP] + confusion[..., FN])


def accuracy(confusion: IntArray) -> FloatArray:
    """(...) (TP + TN) / all."""
    return _share(confusion[..., TP] + confusion[..., TN], confusion.sum(-1))


def balanced_accuracy(confusion: IntArray) -> FloatArray:
    """(...) mean of the true-positive and the true-negative rate."""
    return (true_positive_rate(confusion) + 1 - false_positive_rate(confusion)) / 2


# --- across groups (..., G, 4) ---------------------------------------------------------------------------------------


def disparate_impact(confusion: IntArray, *, reference: BoolArray, favourable: Favourable = "positive") -> FloatArray:
    """(...) favoured share of all protected patients over that of all reference patients (paper, Eq. 8).

    A patient is favoured who is predicted the `favourable` outcome; "positive", as in the paper, makes the shares
    selection rates. NaN when no reference patient is favoured or either side has no patient: a model that flags nobody
    is not fair.
    """
    cells = [TP, FP] if favourable == "positive" else [FN, TN]
    favoured, members = confusion[..., cells].sum(-1), confusion.sum(-1)
    base = _share(favoured[..., reference].sum(-1), members[..., reference].sum(-1))
    protected = _share(favoured[..., ~reference].sum(-1), members[..., ~reference].sum(-1))
    return _share(protected, base)


def abs_log_di(confusion: IntArray, *, reference: BoolArray, favourable: Favourable = "positive") -> FloatArray:
    """(...) |log disparate impact|: 0 is parity, and a ratio of 1/2 is as far from it as one of 2.

    Infinite where no protected patient is favoured but a reference patient is; NaN where the ratio is undefined.
    """
    with np.errstate(divide="ignore"):
        return np.abs(np.log(disparate_impact(confusion, reference=reference, favourable=favourable)))


def demographic_parity_difference(confusion: IntArray, *, reference: BoolArray | None) -> FloatArray:
    """(...) the largest difference of selection rates, see `_widest`. Every group with a patient counts."""
    everybody = np.ones(confusion.shape[-2], dtype=np.bool_)
    return _widest(selection_rate, confusion, reference=reference, among=everybody)


def equal_opportunity_difference(
    confusion: IntArray, *, reference: BoolArray | None, minimum_positives: int
) -> FloatArray:
    """(...) the largest difference of true-positive rates, see `_widest`, over groups with enough positives."""
    among = sufficient(confusion, minimum_positives=minimum_positives)
    return _widest(true_positive_rate, confusion, reference=reference, among=among)


def equalised_odds_difference(
    confusion: IntArray, *, reference: BoolArray | None, minimum_positives: int
) -> FloatArray:
    """(...) the larger of `equal_opportunity_difference` and the same of false-positive rates.

    Both over groups with enough positives; NaN where one of the two is undefined.
    """
    among = sufficient(confusion, minimum_positives=minimum_positives)
    missed = _widest(true_positive_rate, confusion, reference=reference, among=among)
    return np.maximum(missed, _widest(false_positive_rate, confusion, reference=reference, among=among))


def _widest(
    rate: Callable[[IntArray], FloatArray], confusion: IntArray, *, reference: BoolArray | None, among: BoolArray
) -> FloatArray:
    """(...) how far apart the rates of the groups marked in `among` (..., G) are; NaN where nobody is compared.

    With a `reference` (G,): the largest distance of another group from all reference patients pooled, whom `among` does
    not concern. With None: the highest rate minus the lowest, whoever is reference (fairlearn's `between_groups`).
    """
    rates = rate(confusion)  # (..., G)
    usable = np.broadcast_to(among, rates.shape) & np.isfinite(rates)
    if reference is None:
        spread = np.where(usable, rates, -np.inf).max(-1) - np.where(usable, rates, np.inf).min(-1)
        return np.where(usable.sum(-1) > 1, spread, np.nan)
    base = rate(pooled(confusion[..., reference, :]))[..., None]
    usable = usable & ~reference & np.isfinite(base)
    distance = np.where(usable, np.abs(rates - base), -np.inf).max(-1)
    return np.where(usable.any(-1), distance, np.nan)


def sufficient(confusion: IntArray, *, minimum_positives: int) -> BoolArray:
    """(..., G) groups with at least `minimum_positives` positives, whose TPR may enter a minimum."""
    enough: BoolArray = confusion[..., TP] + confusion[..., FN] >= minimum_positives
    return enough


def lowest(rates: FloatArray, *, among: BoolArray) -> Worst:
    """The lowest of `rates` (..., G) among the groups marked in `among` (broadcast); NaN rates are passed over."""
    usable = np.broadcast_to(among, rates.shape) & np.isfinite(rates)
    kept = np.where(usable, rates, np.inf)
    group = np.where(usable.any(-1), kept.argmin(-1), -1)
    value = np.where(group >= 0, kept.min(-1), np.nan)
    return Worst(value=value, group=group.astype(np.int64))


def worst_tpr(confusion: IntArray, *, minimum_positives: int) -> Worst:
    """The lowest true-positive rate over the groups with enough positives (paper, Eq. 9; a hard minimum)."""
    return lowest(true_positive_rate(confusion), among=sufficient(confusion, minimum_positives=minimum_positives))


# --- discrimination, from histograms (..., 2, 200) -------------------------------------------------------------------


def auroc(histogram: IntArray) -> FloatArray:
    """(...) area under the ROC curve, ties inside a bin by mid-rank; NaN without a positive or without a negative.

    Off the area of the unbinned scores by at most `auroc_error`.
    """
    negatives, positives = _by_label(histogram)
    below = np.cumsum(negatives, axis=-1) - negatives
    wins = (positives * (below + negatives / 2)).sum(-1)
    return _share(wins, negatives.sum(-1) * positives.sum(-1))


def auroc_error(histogram: IntArray) -> FloatArray:
    """(...) bound on |auroc(histogram) - area of the unbinned scores|.

    Only pairs whose two scores share a bin are uncertain. Each counts 1/2 here, and 0, 1/2 or 1 unbinned: the bound is
    half their share of all pairs.
    """
    negatives, positives = _by_label(histogram)
    return _share((positives * negatives).sum(-1) / 2, negatives.sum(-1) * positives.sum(-1))


def _by_label(histogram: IntArray) -> tuple[FloatArray, FloatArray]:
    return histogram[..., 0, :].astype(np.float64), histogram[..., 1, :].astype(np.float64)


def _share(part: npt.NDArray[np.generic], whole: npt.NDArray[np.generic]) -> FloatArray:
    """part / whole, NaN where `whole` is not above 0."""
    numerator, denominator = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
