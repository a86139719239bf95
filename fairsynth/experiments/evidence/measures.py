"""Counts of a row -> every metric of every seed, approach and predictor, for all sites together and for each.

In:  `Row`.   Out: `Measures` of each scope: float64 (K, A, P) and (K, A, P, G); NaN where a metric is undefined.
Never: means over seeds, intervals, comparisons. Definitions in words: docs/evidence.md.

A metric is named by itself and its threshold, `("worst_tpr", "tuned")`; those that need none have `NO_THRESHOLD`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairsynth.audit.summary import ALL_SITES
from fairsynth.experiments.evidence.counted import THRESHOLDS, Row, confusion
from fairsynth.fairness import calibration, metrics
from fairsynth.schemas import FloatArray, IntArray

NO_THRESHOLD = "none"
MINIMUM_POSITIVES = 30  # held-out positives that a group needs in a scope, on average over seeds, to enter a minimum

Key = tuple[str, str]  # metric, threshold

# 1: higher is better, -1: lower is better. Other metrics have no better side.
DIRECTION = {
    "worst_tpr": 1,
    "f1": 1,
    "ppv": 1,
    "tpr": 1,
    "auroc_within": 1,
    "lowest_group_auroc": 1,
    "abs_log_di": -1,
    "fpr": -1,
    "demographic_parity_difference": -1,
    "equal_opportunity_difference": -1,
    "equalised_odds_difference": -1,
    "expected_calibration_error": -1,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures:
    """One site, or all sites together."""

    scope: str
    members: IntArray  # (G,) held-out patients, the fewest of any seed
    positives: FloatArray  # (G,) held-out positives, the mean over seeds
    sufficient: metrics.BoolArray  # (G,) groups that may enter a minimum, the same for all seeds
    confusion: dict[str, IntArray]  # (K, A, P, G, 4) at each threshold
    overall: dict[Key, FloatArray]  # (K, A, P)
    by_group: dict[Key, FloatArray]  # (K, A, P, G)


def measure(row: Row, *, minimum_positives: int = MINIMUM_POSITIVES) -> list[Measures]:
    """The measures of all sites together, then of each site."""
    everywhere = list(range(len(row.sites)))
    scopes = [(ALL_SITES, everywhere), *((name, [index]) for index, name in enumerate(row.sites))]
    return [_scope(row, name, sites, minimum_positives=minimum_positives) for name, sites in scopes]


def _scope(row: Row, name: str, sites: list[int], *, minimum_positives: int) -> Measures:
    by_site = row.held_out[:, :, :, sites]  # (K, A, P, S, G, 2, 200)
    histogram = by_site.sum(axis=3)
    patients = histogram.sum(axis=-1).max(axis=(1, 2))  # (K, G, 2): all that were judged are the same ones
    positives = patients[..., 1]
    # By the mean: the fewest of any seed would drop the smallest group, often the worst, as seeds are added.
    sufficient = (positives.mean(axis=0) >= minimum_positives) & (positives.min(axis=0) > 0)
    overall, by_group = _ranked(by_site, sufficient=sufficient)
    for metric, of in _CALIBRATION.items():
        overall[metric, NO_THRESHOLD] = of(histogram.sum(axis=3))
        by_group[metric, NO_THRESHOLD] = of(histogram)
    confusions = {threshold: confusion(histogram, edges=row.edges(threshold)) for threshold in THRESHOLDS}
    for threshold, cells in confusions.items():
        decided = _decided(cells, row=row, sufficient=sufficient)
        overall |= {(metric, threshold): values for metric, values in decided.items()}
        by_group |= {(metric, threshold): of(cells) for metric, of in _RATES.items()}
    return Measures(
        scope=name,
        members=patients.sum(axis=-1).min(axis=0),
        positives=positives.mean(axis=0),
        sufficient=sufficient,
        confusion=confusions,
        overall=overall,
        by_group=by_group,
    )


# --- at a threshold --------------------------------------------------------------------------------------------------

_RATES = {
    "tpr": metrics.true_positive_rate,
    "fpr": metrics.false_positive_rate,
    "ppv": metrics.positive_predictive_value,
    "selection_rate": metrics.selection_rate,
}


def _decided(cells: IntArray, *, row: Row, sufficient: metrics.BoolArray) -> dict[str, FloatArray]:
    """(...) metrics of confusion counts (..., G, 4)."""
    reference, favourable = row.reference, row.favourable
    everyone = metrics.pooled(cells)
    # A group that is compared on one seed is compared on all: an insufficient one has nobody, not fewer than enough.
    compared = np.where((sufficient | reference)[:, None], cells, 0)
    return {
        "worst_tpr": metrics.lowest(metrics.true_positive_rate(cells), among=sufficient).value,
        "disparate_impact": metrics.disparate_impact(cells, reference=reference, favourable=favourable),
        "abs_log_di": metrics.abs_log_di(cells, reference=reference, favourable=favourable),
        "f1": metrics.f1(everyone),
        **{metric: of(everyone) for metric, of in _RATES.items()},
        "demographic_parity_difference": metrics.demographic_parity_difference(compared, reference=reference),
        "equal_opportunity_difference": metrics.equal_opportunity_difference(
            compared, reference=reference, minimum_positives=1
        ),
        "equalised_odds_difference": metrics.equalised_odds_difference(
            compared, reference=reference, minimum_positives=1
        ),
    }


# --- without a threshold ---------------------------------------------------------------------------------------------

_CALIBRATION = {
    "calibration_in_the_large": calibration.in_the_large,
    "expected_calibration_error": calibration.expected_calibration_error,
}


def _ranked(by_site: IntArray, *, sufficient: metrics.BoolArray) -> tuple[dict[Key, FloatArray], dict[Key, FloatArray]]:
    """AUROC within sites of histograms (..., S, G, 2, 200): of everybody, of each group, and of the lowest group."""
    groups = auroc_within(np.moveaxis(by_site, -4, -3))  # (..., G)
    overall = {
        ("auroc_within", NO_THRESHOLD): auroc_within(by_site.sum(axis=-3)),
        ("lowest_group_auroc", NO_THRESHOLD): metrics.lowest(groups, among=sufficient).value,
    }
    return overall, {("auroc_within", NO_THRESHOLD): groups}


def auroc_within(histograms: IntArray) -> FloatArray:
    """(...) chance that a positive outranks a negative *of the same site*, from histograms (..., S, 2, 200).

    The mean of the sites' AUROCs weighted by their pairs: each site has a predictor and a base rate of its own, and
    knowing which site has more positives is no merit. NaN where no site has a pair.
    """
    number = histograms.sum(axis=-1)  # (..., S, 2)
    pairs = number[..., 0] * number[..., 1]
    wins = np.where(pairs > 0, metrics.auroc(histograms) * pairs, 0.0).sum(axis=-1)
    total = pairs.sum(axis=-1)
    return np.where(total > 0, wins / np.maximum(total, 1), np.nan)
