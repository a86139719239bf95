"""The federated generator, trained on for a few rounds: plain, under L_F, or under what a predictor does (Eq. 5).

In:  a `Bench`, lambda, perhaps what steers.   Out: `GoneOn`: the bench with the generator that came out.
Never: held-out patients; a change to the bench that was given.

The predictor that is frozen is the exact federated logistic regression, whatever predictor is trained on the patients
later: the sites can train it together in a second, and its weights are the pooled optimum. It is trained anew before
each round on the real patients and those of the generator as it then is, and stays as it is inside a round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.federated_logistic import federated_logistic
from fairsynth.audit.fitting import Fitted
from fairsynth.audit.predictors import FittedLogisticRegression, LogisticRegression
from fairsynth.audit.relaxed import last_layer, relaxed, training_feedback
from fairsynth.augmentation.feedback import soft_counts
from fairsynth.augmentation.ranking import gradient, loss_slopes, newton_direction, soft_predictions, with_constant
from fairsynth.config import StudyPlan
from fairsynth.experiments.evidence.additions import by_prefix
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.experiments.evidence.training import Signal, generator_counts, steered
from fairsynth.federation.plans import reference_mask
from fairsynth.generator.downstream import Feedback, Switched, switch
from fairsynth.generator.train import Study
from fairsynth.schemas import Arrays, FloatArray, IntArray, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

Way = Literal["scores", "training"]  # what of a predictor steers the generator
ROUNDS = 6
LAMBDA = 1.2  # the paper's
FEEDBACK_BOUND = 100.0  # of n c by rates, which is in the tens: the plan's bound of 1 would cut all of it
PENALTY = 1 / LogisticRegression.inverse_strength  # of the downstream logistic regression, and of the federated one


@dataclass(frozen=True, kw_only=True, eq=False)
class GoneOn:
    """A bench whose generator was trained on, and the rounds' validation NLL in nats a predicted visit."""

    bench: Bench
    nll: tuple[float, ...]


def go_on(bench: Bench, *, weight: float, signal: Signal | None = None, bound: float | None = None) -> GoneOn:
    """Train the bench's federated generator for `ROUNDS` more with lambda = `weight`.

    L_F of the plan's objective steers unless there is a `signal`; all runs draw batches alike. `bound` replaces the
    plan's bound on coefficients.
    """
    plan = _plan(bench.plan, weight=weight, bound=bound)
    cohorts = bench.draw.cohorts
    trained = steered(bench.generator(), cohorts, plan=plan, seed=stream(bench.seed, "steered"), signal=signal)
    return GoneOn(bench=bench.with_weights(bench.at_home(trained)), nll=trained.nll)


def _plan(plan: StudyPlan, *, weight: float, bound: float | None) -> StudyPlan:
    objective = {"weight": weight, "maximum_coefficient": bound or plan.objective.maximum_coefficient}
    return plan.model_copy(
        update={
            "objective": plan.objective.model_copy(update=objective),
            "training": plan.training.model_copy(update={"rounds": ROUNDS}),
        }
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class ThroughPredictor:
    """A signal: L_DF of the sites' logistic regression while it is above 0, else L_F.

    way  "scores": the generator's patients are to be scored so that L_DF falls; "training": training on them is to let
         L_DF fall, to first order
    """

    bench: Bench
    quotas: Mapping[SiteId, IntArray]
    way: Way

    def __call__(self, weights: Mapping[SiteId, Arrays], study: Study, /) -> FloatArray | Feedback:
        """What steers the round that starts from each site's `weights`."""
        mixed = self._mixed(weights)
        fitted = federated_logistic(mixed, vocabulary=study.vocabulary, inverse_strength=1 / PENALTY)
        found = self._switched(fitted, weights, study)
        if found.by == "generator":
            return found.coefficients.values
        if self.way == "scores":
            values = found.coefficients.values
            return Feedback(predictor=relaxed(fitted), coefficients=values, patients=found.patients)
        return self._training(fitted, found, mixed)

    def _mixed(self, weights: Mapping[SiteId, Arrays]) -> dict[SiteId, Records]:
        """R + R' of each site."""
        added = by_prefix(self.bench.with_weights(weights), self.quotas)
        return {site: Records.concatenate([one.train, added[site]]) for site, one in self.bench.draw.cohorts.items()}

    def _switched(self, fitted: Fitted, weights: Mapping[SiteId, Arrays], study: Study) -> Switched:
        cohorts = self.bench.draw.cohorts
        return switch(
            study.plan.objective,
            validation=validation_counts(self.bench, dict.fromkeys(cohorts, fitted)),
            generator=generator_counts(weights, cohorts, study=study),
            reference=reference_mask(study.plan),
        )

    def _training(self, fitted: FittedLogisticRegression, found: Switched, mixed: Mapping[SiteId, Records]) -> Feedback:
        cohorts = self.bench.draw.cohorts
        direction = newton(
            fitted,
            validation=Records.concatenate([one.validation for one in cohorts.values()]),
            train=Records.concatenate(list(mixed.values())),
            coefficients=found.coefficients.values,
            vocabulary=self.bench.draw.vocabulary,
        )
        quotas = np.sum([self.quotas[site] for site in cohorts], axis=0)
        members = np.sum([self.bench.members(site) for site in cohorts], axis=0)
        return training_feedback(fitted, direction=direction, quotas=quotas, members=members)


def validation_counts(bench: Bench, models: Mapping[SiteId, Fitted]) -> FloatArray:
    """(G, 4) soft counts of all sites' validation patients, each scored by their own site's model."""
    cohorts = bench.draw.cohorts
    return soft_counts(np.sum([bench.count(models[site], one.validation) for site, one in cohorts.items()], axis=0))


def newton(
    fitted: Fitted, *, validation: Records, train: Records, coefficients: FloatArray, vocabulary: Vocabulary
) -> FloatArray:
    """(D + 1,) the direction along which a candidate's training gradient lowers L_DF (docs/feedback.md).

    `coefficients` (G, 2) are L_DF's at the pooled soft counts, `train` is what the predictor was trained on; only its
    last, linear layer is looked at.
    """
    _, steepness = soft_predictions(blind_scores(fitted, validation, vocabulary=vocabulary))
    slopes = loss_slopes(steepness, labels=validation.label, group=validation.group, coefficients=coefficients)
    return newton_direction(
        gradient(with_constant(last_layer(fitted, validation)), slopes=slopes),
        inputs=with_constant(last_layer(fitted, train)),
        scores=blind_scores(fitted, train, vocabulary=vocabulary),
        penalty=PENALTY,
    )
