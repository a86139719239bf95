"""Which part of FairSynth carries the effect: the method, and what is left of it without one of its parts.

In:  a bench, sizes and a seed's number.   Out: a `Cell` whose approaches are the variants below.
Never: a variant that sees other real patients than the others (but for the oracle).

variant             what differs from `fairsynth`
real_only, oracle   nobody is added; fresh real patients by the same quotas
fixed_cut           every group is cut at 0.4: validation plans nothing
same_cut            the operating point is planned, the groups' own cuts are not
site_cuts           the groups' own cuts are each site's, planned from its own counts
common_teacher      the teacher is the sites' common logistic regression alone
own_teacher         the teacher is each site's own forest alone
local_teacher       each site's teacher is taught by its own patients, in both parts
not_at_home         the common generator is used as it is, without passes of each site alone
more_candidates     32 candidates of the generator for a patient of a quota
equal_cells         quotas of the equal-cells plan
steered_lambda      the generator was trained on under L_F with lambda 1.2
steered_zero        the same rounds with lambda 0: the control of `steered_lambda`
prefix              no teacher: the generator is given the quotas' groups and labels
gradient_frozen     `prefix`, of the generator trained on under L_DF of a frozen predictor's scores
training_effect     `prefix`, of the generator trained on under what training on its patients does to L_DF
prefix_ranked       `prefix`, drawn from 8 candidates by the teacher's odds of the label they have
newton_ranked       `prefix`, drawn from the half on which training would lower L_DF of the site's predictor most
quota_feedback      `prefix`, with quotas that validation counts led to
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.teacher import Teacher
from fairsynth.augmentation.guided import CANDIDATES, Guidance
from fairsynth.augmentation.plan import equal_cells
from fairsynth.experiments.evidence import additions
from fairsynth.experiments.evidence.additions import BySite
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.experiments.evidence.chosen import Chooser, Chosen, chooser
from fairsynth.experiments.evidence.counting import Variants
from fairsynth.experiments.evidence.prefixed import by_counts, by_teacher, by_training, prefix_candidates
from fairsynth.experiments.evidence.steering import FEEDBACK_BOUND, LAMBDA, GoneOn, ThroughPredictor, Way, go_on
from fairsynth.fairness.planning import Trial
from fairsynth.schemas import SiteId

CUT = 0.4
MANY = 32  # candidates for each patient of a quota
WITH_LAST_LAYER = ("logistic_regression", "transformer")


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablation(Variants):
    """The variants of one row and seed."""

    _full: dict[str, Chosen] = field(default_factory=dict)  # by predictor
    _benches: dict[str, Bench] = field(default_factory=dict)  # of generators that were trained on, by variant

    def approaches(self, predictor: str) -> Mapping[str, Callable[[], BySite]]:
        """Whom each variant adds for `predictor`, by the variant's name."""
        found: dict[str, Callable[[], BySite]] = {
            "real_only": lambda: additions.nobody(self.bench),
            "oracle": lambda: additions.oracle(self.bench, self.quotas).added,
            "prefix": lambda: self.prefix,
            "fairsynth": lambda: self.full(predictor).added,
            "fixed_cut": partial(self.fixed_cut, predictor),
            "same_cut": partial(self.same_cut, predictor),
            "site_cuts": partial(self.site_cuts, predictor),
            "common_teacher": partial(self.common_teacher, predictor),
            "own_teacher": partial(self.own_teacher, predictor),
            "local_teacher": partial(self.local_teacher, predictor),
            "not_at_home": partial(self.not_at_home, predictor),
            "more_candidates": partial(self.more_candidates, predictor),
            "equal_cells": partial(self.equal_cells, predictor),
            "steered_lambda": partial(self.steered, "steered_lambda", predictor, weight=LAMBDA),
            "steered_zero": partial(self.steered, "steered_zero", predictor, weight=0.0),
            "gradient_frozen": partial(self.through_predictor, "gradient_frozen", "scores"),
            "training_effect": partial(self.through_predictor, "training_effect", "training"),
            "prefix_ranked": lambda: by_teacher(self.bench, self.quotas, candidates=self.prefix_candidates),
            "quota_feedback": partial(self.quota_feedback, predictor),
        }
        if predictor in WITH_LAST_LAYER:
            found["newton_ranked"] = partial(self.newton_ranked, predictor)
        return found

    # --- what several variants share

    @cached_property
    def prefix(self) -> BySite:
        """Patients by prefix, one for each of the quotas."""
        return additions.by_prefix(self.bench, self.quotas)

    @cached_property
    def prefix_candidates(self) -> BySite:
        """More of them, to choose from."""
        return prefix_candidates(self.bench, self.quotas)

    def loop(self, predictor: str, *, bench: Bench | None = None, each: int = CANDIDATES) -> Chooser:
        """FairSynth's loop, perhaps with another bench's generator or more candidates."""
        return chooser(bench or self.bench, predictor=predictor, quotas=self.quotas, each=each)

    def full(self, predictor: str) -> Chosen:
        """FairSynth."""
        if predictor not in self._full:
            self._full[predictor] = self._run("fairsynth", predictor, self.loop(predictor))
        return self._full[predictor]

    def _run(self, approach: str, predictor: str, loop: Chooser) -> Chosen:
        """What the loop chose, noted."""
        chosen = loop.run()
        self.facts[f"selected/{approach}/{predictor}"] = chosen.kept.selected.round(4).tolist()
        return chosen

    # --- one part of the loop less

    def fixed_cut(self, predictor: str) -> BySite:
        """No plan."""
        return self.loop(predictor).choose(Guidance(selected=np.full(self.bench.groups, CUT)))

    def same_cut(self, predictor: str) -> BySite:
        """The plan before the groups got cuts of their own, which FairSynth passes on its way."""
        return self.loop(predictor).choose(Guidance(selected=self._point(predictor).selected))

    def site_cuts(self, predictor: str) -> BySite:
        """The common operating point, then each site's cuts of the groups, by the same rule from its counts alone."""
        loop, point = self.loop(predictor), self._point(predictor)
        cuts = {site: loop.cut_at(site, point) for site in loop.candidates}
        for site, selected in cuts.items():
            self.facts[f"selected/site_cuts/{predictor}/{site}"] = selected.round(4).tolist()
        return {site: loop.choose_at(site, Guidance(selected=selected)) for site, selected in cuts.items()}

    def _point(self, predictor: str) -> Trial:
        """The operating point that FairSynth kept."""
        loop = self.loop(predictor)
        return loop.operating_point(self.full(predictor).tried[: len(loop.selected)])

    def common_teacher(self, predictor: str) -> BySite:
        """Each site's teacher without the site's own forest."""
        teachers = {site: replace(teacher, own=None) for site, teacher in self.bench.teachers().items()}
        return self._taught("common_teacher", predictor, teachers)

    def own_teacher(self, predictor: str) -> BySite:
        """Each site's forest alone; where it has none, what there is."""
        teachers = {
            site: replace(teacher, common=teacher.own or teacher.common, own=None)
            for site, teacher in self.bench.teachers().items()
        }
        return self._taught("own_teacher", predictor, teachers)

    def local_teacher(self, predictor: str) -> BySite:
        """A teacher that knows one site's patients."""
        return self._taught("local_teacher", predictor, self.bench.teachers("local"))

    def _taught(self, approach: str, predictor: str, teachers: Mapping[SiteId, Teacher]) -> BySite:
        """The same candidates, scored by other teachers."""
        loop, vocabulary = self.loop(predictor), self.bench.draw.vocabulary
        rescored = {
            site: replace(one, scores=blind_scores(teachers[site], one.records, vocabulary=vocabulary))
            for site, one in loop.candidates.items()
        }
        return self._run(approach, predictor, replace(loop, candidates=rescored)).added

    # --- other candidates, other quotas

    def more_candidates(self, predictor: str) -> BySite:
        """A longer list to choose from."""
        return self._run("more_candidates", predictor, self.loop(predictor, each=MANY)).added

    def not_at_home(self, predictor: str) -> BySite:
        """Every site's generator is the common one."""
        common = self.bench.generator()
        bench = self.bench.with_weights({site: common.at(site) for site in self.bench.draw.sites})
        return self._run("not_at_home", predictor, self.loop(predictor, bench=bench)).added

    def equal_cells(self, predictor: str) -> BySite:
        """Quotas that make the cells equal."""
        budgets = self.bench.budgets(self.sizes.synthetic)
        quotas = {site: equal_cells(self.bench.members(site), budget=budget) for site, budget in budgets.items()}
        loop = chooser(self.bench, predictor=predictor, quotas=quotas)
        return self._run("equal_cells", predictor, loop).added

    # --- a generator that was trained on

    def steered(self, approach: str, predictor: str, *, weight: float) -> BySite:
        """FairSynth with candidates of the generator trained on under L_F."""
        bench = self._gone_on(approach, lambda: go_on(self.bench, weight=weight))
        return self._run(approach, predictor, self.loop(predictor, bench=bench)).added

    def through_predictor(self, approach: str, way: Way) -> BySite:
        """Patients by prefix, of the generator trained on under L_DF."""
        signal = ThroughPredictor(bench=self.bench, quotas=self.quotas, way=way)
        made = self._gone_on(approach, lambda: go_on(self.bench, weight=LAMBDA, signal=signal, bound=FEEDBACK_BOUND))
        return additions.by_prefix(made, self.quotas)

    def _gone_on(self, approach: str, make: Callable[[], GoneOn]) -> Bench:
        """One generator for all predictors, its validation NLL noted."""
        if approach not in self._benches:
            found = make()
            self._benches[approach] = found.bench
            self.facts[f"nll/{approach}"] = [round(each, 4) for each in found.nll]
        return self._benches[approach]

    # --- labels of the generator's own

    def newton_ranked(self, predictor: str) -> BySite:
        """In-cell choice by what training does."""
        return by_training(
            self.bench, self.quotas, predictor=predictor, first=self.prefix, candidates=self.prefix_candidates
        )

    def quota_feedback(self, predictor: str) -> BySite:
        """Quotas from counts."""
        planned = by_counts(self.bench, predictor=predictor, synthetic=self.sizes.synthetic)
        self.facts[f"tried/quota_feedback/{predictor}"] = [
            {"move": each.plan.move, "patients": int(each.plan.quotas.sum()), "outcome": each.outcome}
            for each in planned.chosen.history
        ]
        return planned.added
