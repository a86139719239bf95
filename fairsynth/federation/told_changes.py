"""What a site says FairSynth's patients changed, held to the counts that it sends beside it.

In:  the changes of an audit reply, its confusion counts, the plan.   Out: rules, and whether each holds.
Never: a value of the reply in a rule. The limits are the site's own word: they rest on its patients, whom nobody sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairsynth.config import StudyPlan
from fairsynth.fairness import metrics
from fairsynth.fairness.verdict import MINIMUM_GROUPS, Bounds, SiteChange
from fairsynth.federation.plans import APPROACHES, FAIRSYNTH, THRESHOLDS, reference_mask
from fairsynth.schemas import FloatArray, IntArray

_ROUNDING = 1e-9


def rules_of_changes(changes: Sequence[SiteChange], *, plan: StudyPlan) -> dict[str, bool]:
    """One for each predictor and threshold, of no more seeds than there are; what can be seen without counts."""
    axes = [(predictor, threshold) for predictor in plan.audit.predictors for threshold in THRESHOLDS]
    every = [bounds for change in changes for bounds in (change.gain, change.f1, change.abs_log_di)]
    return {
        "changes: one for each predictor and threshold": [(one.predictor, one.threshold) for one in changes] == axes,
        "changes: of at most the planned seeds": all(bounds.seeds <= plan.audit.seeds for bounds in every),
        "changes: no limit without a mean, the lower one first": all(map(_are_limits, every)),
    }


def rules_of_means(changes: Sequence[SiteChange], confusion: IntArray, *, plan: StudyPlan) -> dict[str, bool]:
    """The means are those of the counts `confusion` (A, P, K, H, G, 4) of the same reply."""
    before, after = confusion[APPROACHES.index("real_only")], confusion[APPROACHES.index(FAIRSYNTH)]  # (P, K, H, G, 4)
    differences = [
        [after_of - before_of for before_of, after_of in zip(_metrics(one, plan), _metrics(other, plan), strict=True)]
        for p in range(len(plan.audit.predictors))
        for h in range(len(THRESHOLDS))
        for one, other in [(before[p, :, h], after[p, :, h])]
    ]
    told = [(change.gain, change.f1, change.abs_log_di) for change in changes]
    return {
        "changes: means as the counts have them": all(
            _is_mean(bounds, values)
            for row, found in zip(told, differences, strict=True)
            for bounds, values in zip(row, found, strict=True)
        )
    }


def _metrics(confusion: IntArray, plan: StudyPlan) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(K,) worst TPR (undefined for fewer than two groups), F1 and |log DI| of counts (K, G, 4)."""
    minimum = plan.audit.minimum_positives
    fair = metrics.sufficient(confusion, minimum_positives=minimum).sum(axis=-1) >= MINIMUM_GROUPS
    worst = np.where(fair, metrics.worst_tpr(confusion, minimum_positives=minimum).value, np.nan)
    parity = metrics.abs_log_di(confusion, reference=reference_mask(plan), favourable=plan.objective.favourable)
    return worst, metrics.f1(metrics.pooled(confusion)), np.where(np.isfinite(parity), parity, np.nan)


def _is_mean(bounds: Bounds, values: FloatArray) -> bool:
    """Whether `bounds` is of the mean of the values (K,) that are numbers, and of as many seeds."""
    defined = values[np.isfinite(values)]
    if bounds.mean is None or not len(defined):
        return bounds.mean is None and not len(defined)
    return bounds.seeds == len(defined) and abs(bounds.mean - float(defined.mean())) <= _ROUNDING


def _are_limits(bounds: Bounds) -> bool:
    """Whether both limits are there, with a mean, or neither is; a mean is of at least one seed."""
    if (bounds.mean is None) != (bounds.seeds == 0):
        return False
    if bounds.low is None or bounds.high is None:
        return bounds.low is bounds.high
    return bounds.mean is not None and bounds.low <= bounds.high
