"""Which share of each group lies above the teacher's cut: tried, counted on real patients, chosen.

In:  a function that tries shares (G,) and brings the counts of all sites' real patients.   Out: `Choice`.
Never: held-out patients; a count of one site alone; patients, predictors, messages.

Two things are chosen (docs/augmentation.md). First the operating point: one share for every group. Of the shares tried,
those whose F1 on validation patients is within `F1_TOLERANCE` of the best remain, and the one with the highest worst
TPR is kept. Then the groups' own cuts: a group that the retrained predictor selects less than the others gets a lower
cut, as far as its counts are sure of it; kept if disparate impact comes nearer to 1 and F1 stays within the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairsynth.config import Favourable
from fairsynth.fairness import metrics
from fairsynth.fairness.counts import FP, TP
from fairsynth.fairness.shrinkage import shrunken
from fairsynth.schemas import FloatArray, IntArray

SELECTED = (0.2, 0.3, 0.4)  # shares of a group above the cut that are tried; more of them rank worse
F1_TOLERANCE = 0.01
MOVED = (0.02, 0.98)  # the least and the largest share that a group's own cut may give it
EDGE = 0.01  # selection rates nearer to 0 or 1 are taken as this far from it, so that their log-odds stay finite


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One plan that was tried, and what the predictors trained by it do to real patients of all sites."""

    selected: FloatArray  # (G,) the share of each group's candidates above its cut
    validation: IntArray  # (G, 4) confusion at 0.5
    seen: IntArray  # (G, 4) of training and validation patients: for selection rates, which need no label

    @property
    def f1(self) -> float:
        """Of all validation patients; 0 where nobody is a positive or predicted one."""
        return float(np.nan_to_num(metrics.f1(metrics.pooled(self.validation))))

    def worst_tpr(self, minimum_positives: int) -> float:
        """Of validation patients; of all together where no group has enough positives, 0 where nobody is one."""
        worst = float(metrics.worst_tpr(self.validation, minimum_positives=minimum_positives).value)
        pooled = float(np.nan_to_num(metrics.true_positive_rate(metrics.pooled(self.validation))))
        return worst if np.isfinite(worst) else pooled

    def distance(self, reference: npt.NDArray[np.bool_], *, favourable: Favourable = "positive") -> float:
        """|log DI| of the patients seen against those of the groups `reference` (G,); infinite where undefined."""
        ratio = float(metrics.disparate_impact(self.seen, reference=reference, favourable=favourable))
        return abs(float(np.log(ratio))) if np.isfinite(ratio) and ratio > 0 else float("inf")


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """The trial that was kept, and all of them in order."""

    kept: Trial
    tried: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """How trials are compared."""

    reference: npt.NDArray[np.bool_]  # (G,) the groups that the others are compared to
    minimum_positives: int  # of a group whose TPR counts
    favourable: Favourable = "positive"  # the prediction that disparate impact compares
    shares: tuple[float, ...] = SELECTED
    by_group: bool = True  # whether groups may have cuts of their own

    def choose(self, attempt: Callable[[FloatArray], Trial]) -> Choice:
        """Try shares with `attempt` until nothing more is gained."""
        tried = [attempt(np.full(len(self.reference), share)) for share in self.shares]
        kept = self.operating_point(tried)
        if self.by_group:
            moved = attempt(moved_shares(kept))
            kept = self.nearer(moved, kept, f1=max(trial.f1 for trial in tried))
            tried.append(moved)
        return Choice(kept=kept, tried=tuple(tried))

    def nearer(self, moved: Trial, before: Trial, *, f1: float) -> Trial:
        """`moved`, if its disparate impact is nearer to 1 than that of `before` and its F1 within the tolerance of
        `f1`."""
        now, then = (trial.distance(self.reference, favourable=self.favourable) for trial in (moved, before))
        return moved if now < then and moved.f1 >= f1 - F1_TOLERANCE else before

    def operating_point(self, tried: Sequence[Trial]) -> Trial:
        """Of the trials whose F1 is near the best, the one with the highest worst TPR; the first of equals."""
        best_f1 = max(trial.f1 for trial in tried)
        near = [trial for trial in tried if trial.f1 >= best_f1 - F1_TOLERANCE]
        return max(near, key=lambda trial: trial.worst_tpr(self.minimum_positives))


def moved_shares(trial: Trial) -> FloatArray:
    """(G,) shares above the cut that bring the groups' selection rates together."""
    patients = trial.seen.sum(axis=1).astype(np.float64)
    chosen = (trial.seen[:, TP] + trial.seen[:, FP]).astype(np.float64)
    rates = np.clip(shrunken(chosen, patients, minimum=1), EDGE, 1 - EDGE)
    everyone = np.clip(chosen.sum() / patients.sum(), EDGE, 1 - EDGE)
    log_odds = _logit(trial.selected) + _logit(np.full(len(rates), everyone)) - _logit(rates)
    return np.clip(1 / (1 + np.exp(-log_odds)), *MOVED)


def _logit(chances: FloatArray) -> FloatArray:
    return np.asarray(np.log(chances) - np.log1p(-chances))
