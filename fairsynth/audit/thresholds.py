"""Thresholds by group, chosen on validation patients for a predictor that is already trained.

In:  scores and labels of validation patients.   Out: thresholds; or a model whose scores are chances of being selected.
Never: training or held-out patients, the predictor's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator

from fairsynth.audit.evaluate import HALF, blind_scores, tuned_threshold
from fairsynth.audit.fitting import Fitted
from fairsynth.augmentation.plan import members_of
from fairsynth.errors import ConfigError
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

Constraint = Literal["equalized_odds", "true_positive_rate_parity"]
Objective = Literal["balanced_accuracy_score", "accuracy_score"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupRules:
    """A rule for each group: the chance of a positive prediction as a step function of the score.

    steps     (G, 2) the scores above which a step is climbed
    heights   (G, 2) how high each step is
    floors    (G,) the chance below both steps
    """

    steps: FloatArray
    heights: FloatArray
    floors: FloatArray

    def chances(self, scores: FloatArray, group: IntArray) -> FloatArray:
        """(B,) the chance that each patient is predicted positive."""
        climbed = scores[:, None] > self.steps[group]  # (B, 2)
        chances = self.floors[group] + np.where(climbed, self.heights[group], 0.0).sum(axis=1)
        return np.asarray(np.clip(chances, 0.0, 1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class ByRules:
    """A predictor behind a rule for each group. Its scores are chances of a positive prediction, not risks."""

    fitted: Fitted
    rules: GroupRules

    def scores(self, records: Records) -> FloatArray:
        """(B,) the chance that the patient is predicted positive."""
        return self.rules.chances(self.fitted.scores(records), records.group)


@dataclass(frozen=True, kw_only=True, eq=False)
class ByThresholds:
    """A predictor behind a threshold for each group: (G,) the scores from which a patient is predicted positive."""

    fitted: Fitted
    thresholds: FloatArray

    def scores(self, records: Records) -> FloatArray:
        """(B,) 1 where the patient is predicted positive, else 0."""
        return (self.fitted.scores(records) >= self.thresholds[records.group]).astype(np.float64)


def group_thresholds(
    scores: FloatArray, label: IntArray, group: IntArray, *, groups: int, target: float, minimum_positives: int = 1
) -> FloatArray:
    """(G,) thresholds: the highest from which at least `target` of a group's positives are predicted positive.

    A group with fewer than `minimum_positives` positives gets the threshold that does so for all patients together;
    without a positive at all that is 0.5. Raises ConfigError when `target` is not above 0 and at most 1.
    """
    if not 0 < target <= 1:
        raise ConfigError.of("target cannot be reached", where=f"thresholds: {target}", expected="above 0, at most 1")
    positives = [scores[(label == 1) & (group == each)] for each in range(groups)]
    together = _reaching(scores[label == 1], target=target)
    return np.array(
        [_reaching(own, target=target) if len(own) >= max(minimum_positives, 1) else together for own in positives]
    )


def equal_rates(
    fitted: Fitted, *, validation: Records, vocabulary: Vocabulary, minimum_positives: int = 1
) -> ByThresholds:
    """Thresholds that give each group the TPR which all validation patients have at the threshold of best F1."""
    scores, label = blind_scores(fitted, validation, vocabulary=vocabulary), validation.label
    chosen = scores[label == 1] >= tuned_threshold(scores, label)
    target = float(chosen.mean()) if len(chosen) else 1.0
    thresholds = group_thresholds(
        scores,
        label,
        validation.group,
        groups=len(vocabulary.groups),
        target=target,
        minimum_positives=minimum_positives,
    )
    return ByThresholds(fitted=fitted, thresholds=thresholds)


def optimised(
    fitted: Fitted,
    *,
    validation: Records,
    vocabulary: Vocabulary,
    constraint: Constraint,
    objective: Objective,
    minimum_positives: int = 1,
) -> ByRules:
    """fairlearn's threshold optimiser (Hardt et al. 2016): equal rates on validation patients, best objective.

    It needs both labels in a group. Groups with fewer than `minimum_positives` positives, or without a negative, on
    validation share one threshold: the one with the best balanced accuracy on all validation patients, or 0.5 when
    these have one label only.
    """
    scores = blind_scores(fitted, validation, vocabulary=vocabulary)
    members = members_of(validation.group, validation.label, groups=len(vocabulary.groups))
    whole = (members[:, 0] > 0) & (members[:, 1] >= max(minimum_positives, 1))  # (G,)
    found: dict[int, Any] = {}
    if whole.any():
        rows = whole[validation.group]
        optimiser = ThresholdOptimizer(
            estimator=_Given(), constraints=constraint, objective=objective, prefit=True, predict_method="predict"
        )
        optimiser.fit(scores[rows, None], validation.label[rows], sensitive_features=validation.group[rows])
        found = optimiser.interpolated_thresholder_.interpolation_dict
    together = balanced_threshold(scores, validation.label)
    return ByRules(fitted=fitted, rules=_rules(found, groups=len(whole), together=together))


def balanced_threshold(scores: FloatArray, label: IntArray) -> float:
    """The score above which predicting positive gives the best balanced accuracy; 0.5 where one label is missing.

    It lies halfway between two scores; the highest such place when several tie.
    """
    if len(np.unique(label)) < 2:
        return HALF
    values, inverse = np.unique(scores, return_inverse=True)  # rising
    positives, negatives = (np.bincount(inverse[label == each], minlength=len(values)) for each in (1, 0))
    # (TNR - FNR) times P N, in integers so that ties are ties; above none of the values, the first, the first two ..
    gain = np.concatenate([[0], np.cumsum(negatives) * positives.sum() - np.cumsum(positives) * negatives.sum()])
    best = len(gain) - 1 - int(np.argmax(gain[::-1]))
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    return float(edges[best])


class _Given(BaseEstimator):  # type: ignore[misc]  # scikit-learn leaves it untyped
    """An estimator whose predictions are its only input, so that fairlearn takes scores as they are."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, scores: FloatArray, label: IntArray) -> Self:
        """Nothing to learn; scikit-learn wants the method."""
        return self

    def predict(self, scores: FloatArray) -> FloatArray:
        """(B,) the scores (B, 1)."""
        return scores[:, 0]


def _reaching(positives: FloatArray, *, target: float) -> float:
    """The highest score that at least `target` of `positives` reach; 0.5 when there is none."""
    if not len(positives):
        return HALF
    needed = int(np.ceil(target * len(positives) - 1e-9))  # 0.7 * 10 is a little more than 7
    return float(np.sort(positives)[::-1][needed - 1])


def _rules(found: Mapping[int, Any], *, groups: int, together: float) -> GroupRules:
    """fairlearn's mixtures of two thresholds and a constant; the threshold `together` for a group without one."""
    steps, heights, floors = np.full((groups, 2), together), np.tile([1.0, 0.0], (groups, 1)), np.zeros(groups)
    for group, rule in found.items():
        kept = 1 - rule.get("p_ignore", 0.0)
        floors[group] = (1 - kept) * rule.get("prediction_constant", 0.0)
        steps[group] = rule.operation0.threshold, rule.operation1.threshold
        heights[group] = kept * rule.p0, kept * rule.p1
    return GroupRules(steps=steps, heights=heights, floors=floors)
