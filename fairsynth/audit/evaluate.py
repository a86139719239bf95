"""Fitted predictor -> counts by group, on a site's real held-out patients.

In:  a fitted predictor, the site's `Cohort`.   Out: integers: confusion by threshold, histogram of scores; beside them
the scores themselves, for what only the site can work out (audit/harm.py).
Never: synthetic patients (the held-out patients are taken from the cohort here, so no caller can pass others); the
label (removed before a predictor sees a patient).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairsynth.audit.features import blind
from fairsynth.audit.predictors import Fitted
from fairsynth.errors import ConfigError, Problem
from fairsynth.federation.plans import SCORE_BINS, THRESHOLDS
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

HALF = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Counts of held-out real patients.

    confusion    (H, G, 4) TP, FP, FN, TN at the thresholds "half" and "tuned"
    scores       (G, 2, 200) patients by group, label and score bin: bin b holds scores in [b / 200, (b + 1) / 200)
    thresholds   (H,) the scores from which a patient is predicted positive
    single       (B,) the score of each held-out patient
    """

    confusion: IntArray
    scores: IntArray
    thresholds: FloatArray
    single: FloatArray


def evaluate(fitted: Fitted, *, cohort: Cohort) -> Evaluation:
    """Counts on `cohort.held_out`; the threshold "tuned" has the best F1 on `cohort.validation`.

    Raises ConfigError when a score is outside [0, 1].
    """
    vocabulary, held_out = cohort.vocabulary, cohort.held_out
    groups = len(vocabulary.groups)
    tuned = tuned_threshold(blind_scores(fitted, cohort.validation, vocabulary=vocabulary), cohort.validation.label)
    by_name = {"half": HALF, "tuned": tuned}
    thresholds = np.array([by_name[name] for name in THRESHOLDS])
    scores = blind_scores(fitted, held_out, vocabulary=vocabulary)
    predicted = scores >= thresholds[:, None]  # (H, B)
    return Evaluation(
        confusion=np.stack(
            [confusion(row, label=held_out.label, group=held_out.group, groups=groups) for row in predicted]
        ),
        scores=histogram(scores, label=held_out.label, group=held_out.group, groups=groups),
        thresholds=thresholds,
        single=scores,
    )


def blind_scores(fitted: Fitted, records: Records, *, vocabulary: Vocabulary) -> FloatArray:
    """(B,) scores of patients whose label was removed first. Raises ConfigError when one is outside [0, 1]."""
    scores = fitted.scores(blind(records, vocabulary=vocabulary))
    if scores.shape != (len(records),) or not ((scores >= 0) & (scores <= 1)).all():
        problem = Problem(what="predictor's scores do not fit", where="audit", expected="one in [0, 1] a patient")
        raise ConfigError(problem)
    return scores


def confusion(predicted: npt.NDArray[np.bool_], *, label: IntArray, group: IntArray, groups: int) -> IntArray:
    """(G, 4) TP, FP, FN, TN."""
    column = np.where(label == 1, np.where(predicted, 0, 2), np.where(predicted, 1, 3))
    return np.bincount(group * 4 + column, minlength=groups * 4).astype(np.int64).reshape(groups, 4)


def histogram(scores: FloatArray, *, label: IntArray, group: IntArray, groups: int) -> IntArray:
    """(G, 2, 200) patients by group, label and score bin; a score of 1 is in the last bin."""
    bins = np.minimum((scores * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
    cells = np.bincount((group * 2 + label) * SCORE_BINS + bins, minlength=groups * 2 * SCORE_BINS)
    return cells.astype(np.int64).reshape(groups, 2, SCORE_BINS)


def tuned_threshold(scores: FloatArray, label: IntArray) -> float:
    """The score from which predicting positive gives the best F1; the highest such score when several tie.

    Without a positive patient there is nothing to tune on, and the threshold is 0.5.
    """
    if not label.any():
        return HALF
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    true_positives = np.cumsum(label[order])
    f1 = 2 * true_positives / (np.arange(1, len(ranked) + 1) + label.sum())  # 2 TP / (predicted + positives)
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    return float(ranked[np.argmax(np.where(last_of_tie, f1, -1.0))])


def balanced_accuracy(confusion: IntArray) -> float:
    """Mean over groups of (TPR + TNR) / 2, over the groups that have both labels; 0.5 when none has. (G, 4) counts."""
    tp, fp, fn, tn = confusion.T.astype(np.float64)
    both = (tp + fn > 0) & (fp + tn > 0)
    if not both.any():
        return 0.5
    return float(np.mean((tp[both] / (tp + fn)[both] + tn[both] / (fp + tn)[both]) / 2))
