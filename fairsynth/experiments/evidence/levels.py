"""Measures of a row -> fairness at both levels: all sites together, and site by site.

In:  `Row` and its `Measures`.   Out: a `Level` for each approach, predictor, threshold and metric.
Never: a distance without its sign, which alone tells that two sites do opposite things to a group.

log_di    log of disparate impact: below 0, the protected groups are favoured less often than the reference groups
tpr_gap   TPR of the protected groups together minus that of the reference groups together, INSUFFICIENT groups left out
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from fairsynth.config import Strict
from fairsynth.experiments.evidence.counted import THRESHOLDS, Row
from fairsynth.experiments.evidence.measures import Measures
from fairsynth.fairness import metrics
from fairsynth.fairness.paired import Paired, paired
from fairsynth.schemas import FloatArray, IntArray, SiteId

LOOKS_FAIR = 0.05  # all sites together are within it of parity
BEYOND = 0.2  # and a site is as far from it, or further

Metric = Literal["log_di", "tpr_gap"]
METRICS: tuple[Metric, ...] = ("log_di", "tpr_gap")
TITLES = {"log_di": "log DI", "tpr_gap": "TPR gap"}


class Level(Strict):
    """One approach and predictor at one threshold: how far from parity, 0, over seeds, with the sign."""

    approach: str
    predictor: str
    threshold: str
    metric: Metric
    all_sites: Paired
    sites: dict[SiteId, Paired]
    hidden_by_the_global_figure: bool  # all sites together look fair, and a site does not; by means over seeds
    furthest: SiteId | None  # the site that is furthest from parity; None where nothing is defined at any
    shown: bool | None  # whether that site's interval excludes parity; None where it has none, or is infinitely far
    nobody_favoured: tuple[SiteId, ...]  # sites where on a seed no protected patient is favoured: infinitely far


def levels(row: Row, measures: Sequence[Measures]) -> list[Level]:
    """All of them, in the order of the row's approaches; `measures` are of all sites together first."""
    return [
        _level([values[:, a, p] for values in scopes], row=row, at=(a, p), threshold=threshold, metric=metric)
        for threshold in THRESHOLDS
        for metric, scopes in zip(METRICS, _by_scope(row, measures, threshold), strict=True)
        for a, p in np.argwhere(row.present)
    ]


def _by_scope(row: Row, measures: Sequence[Measures], threshold: str) -> Iterator[list[FloatArray]]:
    """For each of `METRICS`, its values (K, A, P) in each scope."""
    yield [log_di(one.overall["disparate_impact", threshold]) for one in measures]
    yield [tpr_gap(one.confusion[threshold], reference=row.reference, among=one.sufficient) for one in measures]


def _level(values: Sequence[FloatArray], *, row: Row, at: tuple[int, int], threshold: str, metric: Metric) -> Level:
    """The level of `values` (K,) in each scope, all sites together first."""
    everywhere, *at_sites = values
    distances = {SiteId(name): _distance(one) for name, one in zip(row.sites, at_sites, strict=True)}
    sites = {SiteId(name): paired(one) for name, one in zip(row.sites, at_sites, strict=True)}
    known = [site for site, distance in distances.items() if not np.isnan(distance)]
    furthest = max(known, key=lambda site: distances[site], default=None)
    beyond = furthest is not None and distances[furthest] >= BEYOND
    endless = tuple(site for site, distance in distances.items() if np.isinf(distance))
    interval = None if furthest is None or furthest in endless else sites[furthest]
    return Level(
        approach=row.approaches[at[0]],
        predictor=row.predictors[at[1]],
        threshold=threshold,
        metric=metric,
        all_sites=paired(everywhere),
        sites=sites,
        hidden_by_the_global_figure=bool(_distance(everywhere) <= LOOKS_FAIR and beyond),
        furthest=furthest,
        shown=None if interval is None or interval.low is None else interval.excludes_zero,
        nobody_favoured=endless,
    )


def _distance(values: FloatArray) -> float:
    """|mean| of `values` (K,) over the seeds where they are defined, infinite where one is; NaN where none is defined.

    The mean keeps the sign: what misses parity on one side as often as on the other has no direction.
    """
    if np.isinf(values).any():
        return float("inf")
    defined = values[~np.isnan(values)]
    return abs(float(defined.mean())) if len(defined) else float("nan")


def log_di(ratios: FloatArray) -> FloatArray:
    """(...) logs of disparate impacts; minus infinity where no protected patient is favoured."""
    with np.errstate(divide="ignore"):
        return np.log(ratios)


def tpr_gap(confusion: IntArray, *, reference: metrics.BoolArray, among: metrics.BoolArray) -> FloatArray:
    """(...) TPR of the protected groups of `among` (G,) minus that of its reference groups, of counts (..., G, 4).

    NaN where one side has no positive.
    """
    protected, base = (
        metrics.true_positive_rate(metrics.pooled(confusion[..., among & side, :])) for side in (~reference, reference)
    )
    return protected - base
