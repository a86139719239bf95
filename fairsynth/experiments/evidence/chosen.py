"""FairSynth's own patients: plan -> choose candidates -> train -> count on real patients -> plan (paper, section 4.3).

In:  a `Bench`, the predictor, the budget.   Out: `Chosen`: what each site adds, and why.
Never: held-out patients; a count of one site alone in a decision.

Two things are planned from counts that the sites add up. First the operating point: which share of every group lies
above the teacher's cut. Of the shares tried, those whose F1 on validation patients is within `F1_TOLERANCE` of the
best remain, and the one with the highest worst TPR is kept. Then the groups' own cuts: a group that the retrained
predictor selects less than the others gets a lower cut, as far as its counts are sure of it; kept if disparate impact
comes nearer to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fairsynth.audit.fitting import Predictor
from fairsynth.augmentation.feedback import shrunken
from fairsynth.augmentation.guided import Guidance, guided
from fairsynth.augmentation.plan import equal_rates
from fairsynth.experiments.evidence.bench import CANDIDATES, Bench, Candidates, Scope
from fairsynth.fairness import metrics
from fairsynth.fairness.counts import FN, FP, TP
from fairsynth.federation.plans import reference_mask
from fairsynth.schemas import FloatArray, IntArray, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.records import Records

SELECTED = (0.2, 0.3, 0.4, 0.5)  # shares of a group above the cut that are tried
F1_TOLERANCE = 0.01
HALF_BIN = 100  # scores of 0.5 and more, of 200 bins


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One plan that was tried: its guidance, and what the predictors trained by it do to real patients of all sites."""

    guidance: Guidance
    validation: IntArray  # (G, 4) confusion at 0.5
    seen: IntArray  # (G, 4) of training and validation patients: for selection rates, which need no label

    @property
    def f1(self) -> float:
        """Of all validation patients; 0 where nobody is a positive or predicted one."""
        return float(np.nan_to_num(metrics.f1(metrics.pooled(self.validation))))

    def worst_tpr(self, minimum_positives: int) -> float:
        """Of validation patients; of all together where no group has enough positives."""
        worst = float(metrics.worst_tpr(self.validation, minimum_positives=minimum_positives).value)
        return worst if np.isfinite(worst) else float(metrics.true_positive_rate(metrics.pooled(self.validation)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """What each site adds, by the last plan that was kept, and all plans that were tried."""

    added: Mapping[SiteId, Records]
    kept: Trial
    tried: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chooser:
    """The loop for one predictor and budget."""

    bench: Bench
    predictor: Predictor
    quotas: Mapping[SiteId, IntArray]
    candidates: Mapping[SiteId, Candidates]
    seed: int
    selected: tuple[float, ...] = SELECTED
    cuts_by_group: bool = True

    def run(self) -> Chosen:
        """Plan until nothing more is gained."""
        groups, least = self.bench.groups, self.bench.plan.audit.minimum_positives
        tried = [self.try_plan(Guidance(selected=np.full(groups, share))) for share in self.selected]
        best_f1 = max(trial.f1 for trial in tried)
        near = [trial for trial in tried if trial.f1 >= best_f1 - F1_TOLERANCE]
        kept = max(near, key=lambda trial: trial.worst_tpr(least))
        if self.cuts_by_group:
            moved = self.try_plan(replace(kept.guidance, selected=self.moved(kept)))
            tried.append(moved)
            if self.distance(moved) < self.distance(kept) and moved.f1 >= best_f1 - F1_TOLERANCE:
                kept = moved
        return Chosen(added=self.choose(kept.guidance), kept=kept, tried=tuple(tried))

    def choose(self, guidance: Guidance) -> dict[SiteId, Records]:
        """What each site adds by `guidance`."""
        return {
            site: guided(
                one.records,
                scores=one.scores,
                cells=self.quotas[site],
                guidance=guidance,
                vocabulary=self.bench.draw.vocabulary,
                seed=stream(self.seed, "guided", site),
            )
            for site, one in self.candidates.items()
        }

    def try_plan(self, guidance: Guidance) -> Trial:
        """Train every site's predictor by `guidance`, and count."""
        validation, seen = [], []
        for site, added in self.choose(guidance).items():
            cohort = self.bench.draw.cohorts[site]
            fitted = self.predictor.fit(
                Records.concatenate([cohort.train, added]),
                vocabulary=self.bench.draw.vocabulary,
                settings=self.bench.settings,
                seed=stream(self.seed, "predictor", site),
            )
            validation.append(at_half(self.bench.count(fitted, cohort.validation)))
            seen.append(validation[-1] + at_half(self.bench.count(fitted, cohort.train)))
        return Trial(guidance=guidance, validation=np.sum(validation, axis=0), seen=np.sum(seen, axis=0))

    def moved(self, trial: Trial) -> FloatArray:
        """(G,) shares above the cut that bring the groups' selection rates together."""
        patients = trial.seen.sum(axis=1).astype(np.float64)
        selected = (trial.seen[:, TP] + trial.seen[:, FP]).astype(np.float64)
        rates = np.clip(shrunken(selected, patients, minimum=1), 0.01, 0.99)
        everyone = np.clip(selected.sum() / patients.sum(), 0.01, 0.99)
        share = trial.guidance.selected
        log_odds = _logit(share) + _logit(np.full(len(rates), everyone)) - _logit(rates)
        return np.clip(1 / (1 + np.exp(-log_odds)), 0.02, 0.98)

    def distance(self, trial: Trial) -> float:
        """|log DI| of the patients seen; infinite where it is not defined."""
        ratio = float(metrics.disparate_impact(trial.seen, reference=reference_mask(self.bench.plan)))
        return abs(float(np.log(ratio))) if np.isfinite(ratio) and ratio > 0 else float("inf")


def plan_quotas(bench: Bench, *, synthetic: int) -> dict[SiteId, IntArray]:
    """(G, 2) of each site: `equal_rates` of its own real patients."""
    return {site: equal_rates(bench.members(site), budget=budget) for site, budget in bench.budgets(synthetic).items()}


def candidates_for(
    bench: Bench, quotas: Mapping[SiteId, IntArray], *, scope: Scope = "federated"
) -> dict[SiteId, Candidates]:
    """Enough candidates for the quotas of each site."""
    return {
        site: bench.candidates(site, number=CANDIDATES * cells.sum(axis=1), scope=scope)
        for site, cells in quotas.items()
    }


def at_half(histogram: IntArray) -> IntArray:
    """(G, 4) TP, FP, FN, TN at 0.5, of a histogram (G, 2, 200)."""
    above, below = histogram[..., HALF_BIN:].sum(axis=-1), histogram[..., :HALF_BIN].sum(axis=-1)
    confusion = np.empty((len(histogram), 4), dtype=np.int64)
    confusion[:, TP], confusion[:, FP] = above[:, 1], above[:, 0]
    confusion[:, FN], confusion[:, 3] = below[:, 1], below[:, 0]
    return confusion


def _logit(chances: FloatArray) -> FloatArray:
    return np.asarray(np.log(chances) - np.log1p(-chances))
