"""A row with several lambdas -> fairness against F1, and the lambda to recommend.

In:  a `RowSummary` with approaches named after a lambda.   Out: `Frontier`.
Never: a recommendation that costs more F1 than allowed. It is read off held-out patients: on other data, choose anew.
"""

from __future__ import annotations

import math

from fairsynth.config import Strict
from fairsynth.experiments.evidence.measures import NO_THRESHOLD
from fairsynth.experiments.evidence.roles import REAL_ONLY, fairness_weight
from fairsynth.experiments.evidence.summary import RowSummary
from fairsynth.experiments.evidence.targets import F1_TOLERANCE
from fairsynth.fairness.paired import Paired


class Point(Strict):
    """One lambda."""

    weight: float
    fairness: Paired
    f1: Paired
    affordable: bool  # F1 stays within the tolerance


class Frontier(Strict):
    """Lambdas upwards, and the one to recommend."""

    predictor: str
    threshold: str
    metric: str
    floor: float | None  # the lowest F1 that is affordable; None: real data alone has none
    points: tuple[Point, ...]
    recommended: float | None
    reason: str


def frontier(
    row: RowSummary,
    *,
    predictor: str,
    threshold: str,
    metric: str = "worst_tpr",
    tolerance: float = F1_TOLERANCE,
) -> Frontier:
    """Recommended is the smallest lambda whose mean of `metric` is within one standard error of the highest one.

    Of those with a mean F1 of real only minus `tolerance`, or more. The one-standard-error rule (Breiman et al. 1984,
    Classification and Regression Trees, 3.4.3): what is not told from chance is not paid for.
    """
    base = row.value("f1", approach=REAL_ONLY, predictor=predictor, threshold=threshold)
    floor = None if base is None or base.mean is None else base.mean - tolerance
    at = NO_THRESHOLD if metric == "lowest_group_auroc" else threshold
    points = []
    for weight, approach in weights(row):
        fairness = row.value(metric, approach=approach, predictor=predictor, threshold=at)
        f1 = row.value("f1", approach=approach, predictor=predictor, threshold=threshold)
        if fairness is not None and f1 is not None:
            affordable = floor is not None and f1.mean is not None and f1.mean >= floor
            points.append(Point(weight=weight, fairness=fairness, f1=f1, affordable=affordable))
    recommended, reason = recommend(points, floor=floor, tolerance=tolerance)
    return Frontier(
        predictor=predictor,
        threshold=threshold,
        metric=metric,
        floor=floor,
        points=tuple(points),
        recommended=recommended,
        reason=reason,
    )


def weights(row: RowSummary) -> list[tuple[float, str]]:
    """The lambdas upwards, each with its approach."""
    found = ((fairness_weight(approach), approach) for approach in row.approaches)
    return sorted((weight, approach) for weight, approach in found if weight is not None)


def recommend(points: list[Point], *, floor: float | None, tolerance: float) -> tuple[float | None, str]:
    """The lambda, None if there is none, and why. `floor` is the lowest F1 that is affordable."""
    if floor is None:
        return None, "no F1 of real data alone to compare with"
    usable = [(one.fairness.mean, one) for one in points if one.affordable and one.fairness.mean is not None]
    if not usable:
        return None, f"no lambda keeps F1 within {tolerance} of real data alone"
    best, there = max(usable, key=lambda each: each[0])
    enough = best - _standard_error(there.fairness)
    chosen = min(one.weight for mean, one in usable if mean >= enough)
    reason = f"within one standard error of the highest mean, {best:.3f}, of those whose F1 is at least {floor:.3f}"
    return chosen, f"the smallest {reason}"


def _standard_error(value: Paired) -> float:
    """Of the mean over seeds; 0 where one seed says nothing of it."""
    return 0.0 if value.sd is None else value.sd / math.sqrt(value.seeds)
