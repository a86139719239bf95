"""Patients whose label the generator drew itself, and three ways to better them: ranked by a teacher or by what
training on them does, or with quotas from counts.

In:  a `Bench`, quotas or a budget.   Out: `Records` by site.
Never: held-out patients; a label that the generator did not draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.fitting import Fitted
from fairsynth.audit.relaxed import last_layer
from fairsynth.augmentation.feedback import ValidationCounts
from fairsynth.augmentation.guided import CANDIDATES, CLIP
from fairsynth.augmentation.iteration import Chosen, Criterion, Plan, Search, iterate
from fairsynth.augmentation.ranking import alignment, best_of, with_constant
from fairsynth.experiments.evidence.additions import BySite, by_prefix, nobody
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.experiments.evidence.chosen import at_half
from fairsynth.experiments.evidence.counting import Models, fit
from fairsynth.experiments.evidence.steering import newton, validation_counts
from fairsynth.fairness.coefficients import coefficients
from fairsynth.federation.plans import reference_mask
from fairsynth.schemas import FloatArray, IntArray, SiteId
from fairsynth.seeds import numpy_stream, stream
from fairsynth.synthesis.synthesise import synthesise
from fairsynth.visits.records import Records

STRENGTH = 1.0  # of the teacher's log-odds: a candidate is drawn in proportion to its odds
BEST_SHARE = 0.5  # of a cell's candidates, from which its quota is drawn: fewer resemble each other
F1_LOSS = 0.02  # that a plan from counts may cost

Quotas = Mapping[SiteId, IntArray]


def prefix_candidates(bench: Bench, quotas: Quotas) -> BySite:
    """`CANDIDATES` patients for each of a quota, with its group and label as their prefix."""
    return {
        site: synthesise(
            bench.weights()[site],
            cohort=bench.draw.cohorts[site],
            plan=bench.plan,
            cells=CANDIDATES * cells,
            number=int(CANDIDATES * cells.sum()),
            seed=stream(bench.seed, "prefix candidates", site),
        )
        for site, cells in quotas.items()
    }


def by_teacher(bench: Bench, quotas: Quotas, *, candidates: BySite) -> BySite:
    """The quotas, drawn from each cell's candidates by the teacher's log-odds of the cell's label."""
    return {
        site: candidates[site].take(
            likely(
                candidates[site],
                scores=blind_scores(bench.teachers()[site], candidates[site], vocabulary=bench.draw.vocabulary),
                quotas=cells,
                seed=stream(bench.seed, "by teacher", site),
            )
        )
        for site, cells in quotas.items()
    }


def likely(candidates: Records, *, scores: FloatArray, quotas: IntArray, seed: int) -> IntArray:
    """Indices of `quotas[g, y]` candidates of each cell, drawn without replacement in proportion to the odds of y.

    By the largest log-weight plus Gumbel noise (Efraimidis and Spirakis 2006).
    """
    inside = np.clip(scores, CLIP, 1 - CLIP)
    agrees = (2 * candidates.label - 1) * (np.log(inside) - np.log1p(-inside))
    noisy = STRENGTH * agrees + numpy_stream(seed, "gumbel").gumbel(size=len(candidates))
    return best_of(noisy, group=candidates.group, label=candidates.label, quotas=quotas, share=0.0, seed=seed)


def by_training(bench: Bench, quotas: Quotas, *, predictor: str, first: BySite, candidates: BySite) -> BySite:
    """The quotas, of the candidates on which training would lower L_DF of each site's own predictor most.

    That predictor is trained on the real patients and `first`. Raises ConfigError for one without a linear last layer.
    """
    models = fit(bench, predictor=predictor, added=first)
    of_label = bench.plan.objective.model_copy(update={"target": "label"})
    slopes = coefficients(of_label, validation_counts(bench, models), reference=reference_mask(bench.plan)).values
    kept = {}
    for site, cells in quotas.items():
        cohort, own, fitted = bench.draw.cohorts[site], candidates[site], models[site]
        direction = newton(
            fitted,
            validation=cohort.validation,
            train=Records.concatenate([cohort.train, first[site]]),
            coefficients=slopes,
            vocabulary=bench.draw.vocabulary,
        )
        kept[site] = own.take(
            best_of(
                _alignment(bench, fitted, own, direction=direction),
                group=own.group,
                label=own.label,
                quotas=cells,
                share=BEST_SHARE,
                seed=stream(bench.seed, "by training", predictor, site),
            )
        )
    return kept


def _alignment(bench: Bench, fitted: Fitted, candidates: Records, *, direction: FloatArray) -> FloatArray:
    return alignment(
        with_constant(last_layer(fitted, candidates)),
        scores=blind_scores(fitted, candidates, vocabulary=bench.draw.vocabulary),
        labels=candidates.label,
        direction=direction,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """What each site adds by the plan that validation counts led to (nobody if none was a gain), and how."""

    added: BySite
    chosen: Chosen


def by_counts(bench: Bench, *, predictor: str, synthetic: int) -> Planned:
    """Quotas from what the predictor does on validation patients, raised until its worst TPR gains no more."""
    sites = bench.draw.sites

    def patients(plan: Plan) -> BySite:
        return by_prefix(bench, dict(zip(sites, plan.quotas, strict=True)))

    def try_plan(plan: Plan) -> ValidationCounts:
        return _counts(bench, fit(bench, predictor=predictor, added=patients(plan)))

    chosen = iterate(
        try_plan,
        real_only=_counts(bench, fit(bench, predictor=predictor, added=nobody(bench))),
        members=np.stack([bench.members(site) for site in sites]),
        budget=np.array([bench.budgets(synthetic)[site] for site in sites]),
        criterion=Criterion(
            of="worst_tpr",
            reference=reference_mask(bench.plan),
            f1_loss=F1_LOSS,
            minimum_positives=bench.plan.audit.minimum_positives,
        ),
        search=Search(),
    )
    return Planned(added=nobody(bench) if chosen.best is None else patients(chosen.best.plan), chosen=chosen)


def _counts(bench: Bench, models: Models) -> ValidationCounts:
    """At 0.5, of all sites' validation patients."""
    parts = [bench.count(models[site], one.validation) for site, one in bench.draw.cohorts.items()]
    scores = np.sum(parts, axis=0)
    return ValidationCounts(confusion=at_half(scores), scores=scores)
