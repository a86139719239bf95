"""What a trained predictor does on real validation patients -> which synthetic patients come next.

In:  confusion counts and score histograms by group, added up over the sites; the sites' training patients by cell.
Out: a policy (odds by group, most positives, share of the budget), and the quotas that it gives each site.
Never: patients, a predictor, randomness, held-out patients.

The start is `equal_rates`. A group whose true-positive rate lies below that of all groups together gets higher odds of
label 1 than the others, a group above it lower ones. Rates are shrunk first: groups that differ by no more than chance
would make them differ do not move, and a group with too few positives moves as the average group does
(docs/feedback.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fairsynth.augmentation.plan import HALF, LABELS, weighted_rates
from fairsynth.fairness.counts import MEMBERS, POSITIVES, PREDICTED, TRUE_POSITIVES, from_confusion
from fairsynth.fairness.metrics import SCORE_BINS
from fairsynth.fairness.shrinkage import shrunken
from fairsynth.schemas import FloatArray, IntArray

Signal = Literal["tpr", "selection"]  # which rate of the groups is brought together
_SIGNALS = {"tpr": (TRUE_POSITIVES, POSITIVES), "selection": (PREDICTED, MEMBERS)}  # columns: successes, trials

LARGEST_STEP = np.log(2.0)  # of a weight, up or down, in one move
WEIGHTS = (1 / 8, 8.0)
EDGE = 0.01  # rates nearer to 0 or 1 are taken as this far from it, so that their log-odds stay finite


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidationCounts:
    """Of real validation patients, at one threshold; sites' counts add.

    confusion (G, 4) TP, FP, FN, TN
    scores    (G, 2, 200) patients by group, label and score bin
    """

    confusion: IntArray
    scores: IntArray


def pool(parts: Sequence[ValidationCounts]) -> ValidationCounts:
    """The counts of all sites together. Raises ValueError when there are none or their shapes differ."""
    return ValidationCounts(
        confusion=np.stack([part.confusion for part in parts]).sum(axis=0),
        scores=np.stack([part.scores for part in parts]).sum(axis=0),
    )


def soft_counts(scores: IntArray) -> FloatArray:
    """(G, 4) N_g, P_g, S_g, TP_g with the score as the prediction, from histograms (G, 2, 200).

    A score counts as the middle of its bin, which is off by at most 1/400 a patient.
    """
    middle = (np.arange(SCORE_BINS) + 0.5) / SCORE_BINS
    patients, predicted = scores.sum(axis=-1), scores @ middle  # (G, 2) each
    return np.stack([patients.sum(axis=1), patients[:, 1], predicted.sum(axis=1), predicted[:, 1]], axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """What the sites are told; each makes its own quotas of it, so that no site needs another's cells.

    weights        (G,) odds of label 1 of a group, relative to one of weight 1
    positive_share most positives among the patients of a group of weight 1, at most one half
    budget_share   how much of the budget is spent
    """

    weights: FloatArray
    positive_share: float = HALF
    budget_share: float = 1.0


def quotas(members: IntArray, *, policy: Policy, budget: int | IntArray) -> IntArray:
    """(S, G, 2) synthetic patients by site and cell; nobody of a group that a site lacks.

    `budget` is the most that a site adds: one number for all, or (S,) each site's own.

    `members` (S, G, 2) are the sites' real training patients. Raises ConfigError when the policy or the budget does
    not fit (see `weighted_rates`).
    """
    spend = np.floor(np.broadcast_to(budget, len(members)) * policy.budget_share).astype(np.int64)
    found = np.zeros_like(members)
    for site in np.flatnonzero(members.sum(axis=(1, 2)) > 0):
        found[site] = weighted_rates(
            members[site], budget=int(spend[site]), weights=policy.weights, most=policy.positive_share
        )
    return found


def rates(counts: FloatArray, *, signal: Signal, minimum: int) -> FloatArray:
    """(G,) shrunken true-positive rates, or selection rates, of counts (G, 4)."""
    hits, tries = _SIGNALS[signal]
    return shrunken(counts[:, hits], counts[:, tries], minimum=minimum)


def next_weights(
    weights: FloatArray, *, counts: FloatArray, signal: Signal, minimum: int, damping: float
) -> FloatArray:
    """(G,) weights after one step: each is multiplied by (common odds / own odds)^damping of the shrunken rates.

    Only the ratios of weights matter, so that the best group as the target in place of all groups together would give
    the same. A step is at most a factor of two, a weight stays in `WEIGHTS`, and the weights' geometric mean is 1.
    `counts` (G, 4) are pooled over the sites, with hard predictions. Where nobody has enough trials, nothing moves.
    """
    found = rates(counts, signal=signal, minimum=minimum)
    if np.isnan(found).any():
        return weights
    hits, tries = _SIGNALS[signal]
    kept = counts[:, tries] >= max(minimum, 1)
    common = counts[kept, hits].sum() / counts[kept, tries].sum()
    step = np.clip(damping * (_log_odds(common) - _log_odds(found)), -LARGEST_STEP, LARGEST_STEP)
    moved = np.log(weights) + step
    return np.asarray(np.clip(np.exp(moved - moved.mean()), *WEIGHTS))


def next_positive_share(mixed: IntArray, *, lower: bool, factor: float) -> float:
    """The share of positives of `mixed` patients (..., 2) after their odds are divided (or multiplied) by `factor`.

    Counted from what the sites now train on, since a budget may end before a share that is allowed is reached; never
    above one half.
    """
    negatives, positives = mixed.reshape(-1, LABELS).sum(axis=0)
    odds = max(positives, 1) / max(negatives, 1) * (1 / factor if lower else factor)
    return float(min(odds / (1 + odds), HALF))


def overpredicts(confusion: IntArray) -> bool:
    """Whether more patients are predicted positive than are, all groups together; `confusion` (G, 4)."""
    counts = from_confusion(confusion).sum(axis=0)
    return bool(counts[PREDICTED] > counts[POSITIVES])


def _log_odds(rate: FloatArray) -> FloatArray:
    kept = np.clip(rate, EDGE, 1 - EDGE)
    return np.asarray(np.log(kept / (1 - kept)))
