"""A row with several lambdas -> fairness against F1, and the lambda to recommend.

In:  a `RowSummary` with approaches named after a lambda.   Out: `Frontier`.
Never: a recommendation that costs more F1 than allowed. It is read off held-out patients: on other data, choose anew.
"""

from __future__ import annotations

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
    """Recommended is the highest mean of `metric` with a mean F1 of real only minus `tolerance`, or more.

    The smaller lambda at a tie.
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
    recommended, reason = _recommended(points, floor=floor, tolerance=tolerance)
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


def _recommended(points: list[Point], *, floor: float | None, tolerance: float) -> tuple[float | None, str]:
    """The lambda and why."""
    if floor is None:
        return None, "no F1 of real data alone to compare with"
    usable = [(one.fairness.mean, -one.weight) for one in points if one.affordable and one.fairness.mean is not None]
    if not usable:
        return None, f"no lambda keeps F1 within {tolerance} of real data alone"
    best, negative = max(usable)
    return abs(negative), f"the highest mean, {best:.3f}, of those whose F1 is at least {floor:.3f}"
