"""The generators of a draw: federated, of one site alone, or of all patients pooled. In one process, without messages.

In:  cohorts by site, the plan, a seed.   Out: `Trained`: each site's weights as it uses them.
Never: a record of one site in what another one trains on (but for "pooled", which stands for what no consortium may
do).

The arithmetic of a round is the protocol's own: `generator.train`, base rates at home, shared moments, weights
averaged by patients, the learning rate of `federation.plans`. Two things are added: sites begin alike from sums of
what their patients show (`generator.priming`), and the round whose validation NLL, added up over sites, is lowest is
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fairsynth.config import StudyPlan
from fairsynth.errors import ConfigError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.damping import Steering, steer
from fairsynth.federation.aggregate import average, pool
from fairsynth.federation.plans import learning_rate, reference_mask
from fairsynth.federation.settling import Common, Home, settled
from fairsynth.generator.base_rates import at_home, to_share
from fairsynth.generator.downstream import Feedback
from fairsynth.generator.priming import Shown, exclusive, primed_weights, rates_at_home
from fairsynth.generator.train import Moments, Study, Totals, measure, train
from fairsynth.schemas import Arrays, FloatArray, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.cohort import Cohort

Cohorts = Mapping[SiteId, Cohort]
Signal = Callable[[Mapping[SiteId, Arrays], Study], FloatArray | Feedback]  # sites' weights -> what steers the round


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """`shared` weights of the best round, each site's `rates`, and what the rounds' validation NLL was."""

    shared: Arrays
    rates: Mapping[SiteId, FloatArray]
    moments: Moments
    nll: tuple[float, ...]  # nats a predicted visit, by round

    def at(self, site: SiteId) -> Arrays:
        """The weights as `site` uses them."""
        return at_home(self.shared, self.rates[site])

    def settled(self, site: SiteId, cohort: Cohort, *, plan: StudyPlan, rounds: int, seed: int) -> Arrays:
        """The weights as `site` uses them after some `rounds` at home (`federation.settling`)."""
        home = Home(site=site, cohort=cohort, rates=self.rates[site], plan=plan)
        common = Common(weights=self.shared, moments=self.moments)
        return at_home(settled(common, home, rounds=rounds, seed=seed).weights, home.rates)


def generator(cohorts: Cohorts, *, plan: StudyPlan, seed: int) -> Trained:
    """Train from the start, plain; one cohort is a site alone."""
    vocabulary = next(iter(cohorts.values())).vocabulary
    shown = {site: Shown.by(one.train, vocabulary=vocabulary) for site, one in cohorts.items()}
    first, *others = (shown[site] for site in sorted(shown))
    together = sum(others, start=first)
    blocks = exclusive(together, vocabulary=vocabulary)
    shared = primed_weights(
        together, vocabulary=vocabulary, config=plan.generator, seed=stream(seed, "initial-weights")
    )
    rates = {site: rates_at_home(one.train, vocabulary=vocabulary, blocks=blocks) for site, one in cohorts.items()}
    return _rounds(cohorts, plan=plan, seed=seed, shared=shared, rates=rates, moments=None)


def steered(before: Trained, cohorts: Cohorts, *, plan: StudyPlan, seed: int, signal: Signal | None = None) -> Trained:
    """Go on for the plan's rounds, each steered by `signal`: by L_F of the plan's objective (Eq. 4) unless told
    otherwise.

    With lambda = 0 nobody is asked, and the rounds are plain.
    """
    by = ByObjective(cohorts) if signal is None else signal
    return _rounds(
        cohorts,
        plan=plan,
        seed=seed,
        shared=before.shared,
        rates=before.rates,
        moments=before.moments,
        signal=by,
        last=True,
    )


@dataclass(eq=False)
class ByObjective:
    """L_F at the generator's own soft counts of the sites' training patients, damped from round to round."""

    cohorts: Cohorts
    last: Steering | None = None

    def __call__(self, weights: Mapping[SiteId, Arrays], study: Study, /) -> FloatArray:
        """(G, 2) the coefficients of the pooled counts of the model that the round starts from."""
        counts = generator_counts(weights, self.cohorts, study=study)
        slopes = coefficients(study.plan.objective, counts, reference=reference_mask(study.plan)).values
        self.last = steer(slopes, before=self.last)
        return self.last.coefficients


def generator_counts(weights: Mapping[SiteId, Arrays], cohorts: Cohorts, *, study: Study) -> FloatArray:
    """(G, 4) the generator's soft counts of training patients, pooled; `weights` are each site's own."""
    return pool({site: measure(weights[site], records=one.train, study=study).soft for site, one in cohorts.items()})


def _rounds(
    cohorts: Cohorts,
    *,
    plan: StudyPlan,
    seed: int,
    shared: Arrays,
    rates: Mapping[SiteId, FloatArray],
    moments: Moments | None,
    signal: Signal | None = None,
    last: bool = False,
) -> Trained:
    """All rounds. The one with the best validation NLL is kept, or the `last`, where likelihood is not the aim."""
    study = _study(cohorts, plan)
    patients = {site: len(one.train) for site, one in cohorts.items()}
    history: list[float] = []
    best: tuple[float, Arrays, Moments] | None = None
    for number in range(plan.training.rounds):
        now = replace(study, learning_rate=learning_rate(plan, round_number=number), moments=moments)
        home = {site: at_home(shared, rates[site]) for site in cohorts}
        by = signal(home, now) if signal is not None and plan.objective.weight > 0 else None
        trained = {
            site: train(
                home[site],
                records=one.train,
                study=now,
                coefficients=by,
                epochs=plan.training.local_epochs,
                seed=stream(seed, "train", site, number),
            )
            for site, one in cohorts.items()
        }
        shared = average({site: to_share(one.weights, rates[site]) for site, one in trained.items()}, patients=patients)
        moments = Moments(
            first=average({site: one.moments.first for site, one in trained.items()}, patients=patients),
            second=average({site: one.moments.second for site, one in trained.items()}, patients=patients),
        )
        history.append(_validation(shared, cohorts, rates=rates, study=study))
        if last or best is None or history[-1] < best[0]:
            best = (history[-1], shared, moments)
    if best is None:
        raise ConfigError.of("no round", where="training.rounds", expected="at least one")
    return Trained(shared=best[1], rates=rates, moments=best[2], nll=tuple(history))


def _validation(shared: Arrays, cohorts: Cohorts, *, rates: Mapping[SiteId, FloatArray], study: Study) -> float:
    measured = [
        measure(at_home(shared, rates[site]), records=cohorts[site].validation, study=study) for site in sorted(cohorts)
    ]
    return sum(one.nll for one in measured) / sum(one.cells for one in measured)


def _study(cohorts: Cohorts, plan: StudyPlan) -> Study:
    patients = sum(len(one.train) for one in cohorts.values())
    visits = sum(one.train.visits for one in cohorts.values())
    totals = Totals(patients=patients, positions=(visits + patients) / patients)
    return Study(vocabulary=next(iter(cohorts.values())).vocabulary, plan=plan, totals=totals)
