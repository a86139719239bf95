"""FairSynth's own patients: plan -> choose candidates -> train -> count on real patients -> plan (paper, section 4.3).

In:  a `Bench`, the predictor, the budget.   Out: `Chosen`: what each site adds, and why.
Never: held-out patients; a count of one site alone in a decision of all of them.

What is tried and kept is the rule of `fairness.planning`; the guidance that is kept is the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairsynth.audit.fitting import Predictor
from fairsynth.audit.predictors import load_predictor
from fairsynth.augmentation.guided import CANDIDATES, Guidance, guided
from fairsynth.augmentation.plan import equal_rates
from fairsynth.experiments.evidence.bench import Bench, Candidates, Scope
from fairsynth.fairness.counts import FN, FP, TP
from fairsynth.fairness.planning import SELECTED, Rule, Trial, moved_shares
from fairsynth.federation.plans import reference_mask
from fairsynth.schemas import FloatArray, IntArray, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.records import Records

HALF_BIN = 100  # scores of 0.5 and more, of 200 bins


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
        choice = self.rule.choose(self.try_plan)
        added = self.choose(Guidance(selected=choice.kept.selected))
        return Chosen(added=added, kept=choice.kept, tried=choice.tried)

    @property
    def rule(self) -> Rule:
        """How its trials are compared."""
        return Rule(
            reference=reference_mask(self.bench.plan),
            minimum_positives=self.bench.plan.audit.minimum_positives,
            favourable=self.bench.plan.objective.favourable,
            shares=self.selected,
            by_group=self.cuts_by_group,
        )

    def operating_point(self, tried: Sequence[Trial]) -> Trial:
        """Of trials with one share for all groups, the one that the rule keeps."""
        return self.rule.operating_point(tried)

    def choose(self, guidance: Guidance) -> dict[SiteId, Records]:
        """What each site adds by `guidance`."""
        return {site: self.choose_at(site, guidance) for site in self.candidates}

    def choose_at(self, site: SiteId, guidance: Guidance) -> Records:
        """What one site adds by `guidance`."""
        one = self.candidates[site]
        return guided(
            one.records,
            scores=one.scores,
            cells=self.quotas[site],
            guidance=guidance,
            vocabulary=self.bench.draw.vocabulary,
            seed=stream(self.seed, "guided", site),
        )

    def try_plan(self, selected: FloatArray) -> Trial:
        """Train every site's predictor with the shares `selected` (G,) above the groups' cuts, and count."""
        trials = [self.try_at(site, selected) for site in self.candidates]
        return Trial(
            selected=selected,
            validation=np.sum([one.validation for one in trials], axis=0),
            seen=np.sum([one.seen for one in trials], axis=0),
        )

    def try_at(self, site: SiteId, selected: FloatArray) -> Trial:
        """The same at one site: its own counts."""
        cohort = self.bench.draw.cohorts[site]
        fitted = self.predictor.fit(
            Records.concatenate([cohort.train, self.choose_at(site, Guidance(selected=selected))]),
            vocabulary=self.bench.draw.vocabulary,
            settings=self.bench.settings,
            seed=stream(self.seed, "predictor", site),
        )
        validation = at_half(self.bench.count(fitted, cohort.validation))
        seen = validation + at_half(self.bench.count(fitted, cohort.train))
        return Trial(selected=selected, validation=validation, seen=seen)

    def cut_at(self, site: SiteId, point: Trial) -> FloatArray:
        """(G,) The shares that a site would choose by its own counts, from the common operating point `point`."""
        before = self.try_at(site, point.selected)
        moved = self.try_at(site, moved_shares(before))
        return self.rule.nearer(moved, before, f1=before.f1).selected


def chooser(
    bench: Bench,
    *,
    predictor: str,
    quotas: Mapping[SiteId, IntArray],
    scope: Scope = "federated",
    each: int = CANDIDATES,
) -> Chooser:
    """The loop for the predictor of that name, with the bench's seed for it and `each` candidates for a patient."""
    return Chooser(
        bench=bench,
        predictor=load_predictor(predictor),
        quotas=quotas,
        candidates=candidates_for(bench, quotas, scope=scope, each=each),
        seed=stream(bench.seed, "fairsynth", predictor),
    )


def plan_quotas(bench: Bench, *, synthetic: int) -> dict[SiteId, IntArray]:
    """(G, 2) of each site: `equal_rates` of its own real patients."""
    return {site: equal_rates(bench.members(site), budget=budget) for site, budget in bench.budgets(synthetic).items()}


def candidates_for(
    bench: Bench, quotas: Mapping[SiteId, IntArray], *, scope: Scope = "federated", each: int = CANDIDATES
) -> dict[SiteId, Candidates]:
    """`each` candidates for every patient of the quotas of each site."""
    return {
        site: bench.candidates(site, number=each * cells.sum(axis=1), scope=scope) for site, cells in quotas.items()
    }


def at_half(histogram: IntArray) -> IntArray:
    """(G, 4) TP, FP, FN, TN at 0.5, of a histogram (G, 2, 200)."""
    above, below = histogram[..., HALF_BIN:].sum(axis=-1), histogram[..., :HALF_BIN].sum(axis=-1)
    confusion = np.empty((len(histogram), 4), dtype=np.int64)
    confusion[:, TP], confusion[:, FP] = above[:, 1], above[:, 0]
    confusion[:, FN], confusion[:, 3] = below[:, 1], below[:, 0]
    return confusion
