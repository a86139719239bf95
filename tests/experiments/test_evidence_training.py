from __future__ import annotations

from dataclasses import replace

import evidence_toys as toy
import numpy as np
import pytest

from fairsynth import seeds
from fairsynth.experiments.evidence import training
from fairsynth.experiments.evidence.drawing import draw
from fairsynth.experiments.evidence.training import Trained, generator, steered
from fairsynth.fairness.coefficients import coefficients
from fairsynth.federation.aggregate import average
from fairsynth.federation.plans import learning_rate
from fairsynth.federation.settling import HOME_RATE
from fairsynth.generator.base_rates import at_home, base_rates, to_share
from fairsynth.generator.model import build, initial_weights, weights_of
from fairsynth.generator.priming import Shown, exclusive, home_rates, prime
from fairsynth.generator.train import Moments, Study, Totals, measure, train
from fairsynth.schemas import SiteId
from fairsynth.visits.records import Records

SEED = 7
COHORTS = draw(toy.pool(), real=90, seed=2).cohorts
WORDS = COHORTS[SiteId("a")].vocabulary


def plan(*, rounds: int = 1, weight: float = 0.0, **changed):
    made = toy.study(rounds=rounds, weight=weight).plan()
    return made.model_copy(update={"training": made.training.model_copy(update=changed)})


def same(one, other) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one) and set(one) == set(other)


def far_apart(one, other) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def begun(cohorts, *, of, seed=SEED):
    """Primed weights of all sites, and each site's base rates."""
    everybody = Records.concatenate([one.train for one in cohorts.values()])
    together = Shown.by(everybody, vocabulary=WORDS)
    first = initial_weights(WORDS, of.generator, seed=seeds.stream(seed, "initial-weights"))
    model = build(first, vocabulary=WORDS, config=of.generator)
    prime(model, together, vocabulary=WORDS)
    blocks = exclusive(together, vocabulary=WORDS)
    rates = {
        site: home_rates(
            base_rates(one.train, vocabulary=WORDS),
            Shown.by(one.train, vocabulary=WORDS),
            blocks=blocks,
            vocabulary=WORDS,
        )
        for site, one in cohorts.items()
    }
    return weights_of(model), rates


def studied(cohorts, *, of, **changed) -> Study:
    everybody = Records.concatenate([one.train for one in cohorts.values()])
    totals = Totals(patients=len(everybody), positions=float(everybody.visit_counts.mean()) + 1)
    return replace(Study(vocabulary=WORDS, plan=of, totals=totals), **changed)


def round_by_hand(shared, rates, cohorts, *, of, number, moments, seed=SEED):
    """What one round makes of the shared weights: (weights, moments)."""
    study = studied(cohorts, of=of, learning_rate=learning_rate(of, round_number=number), moments=moments)
    trained = {
        site: train(
            at_home(shared, rates[site]),
            records=one.train,
            study=study,
            coefficients=None,
            epochs=of.training.local_epochs,
            seed=seeds.stream(seed, "train", site, number),
        )
        for site, one in cohorts.items()
    }
    patients = {site: len(one.train) for site, one in cohorts.items()}
    shares = {site: to_share(one.weights, rates[site]) for site, one in trained.items()}
    kept = Moments(
        first=average({site: one.moments.first for site, one in trained.items()}, patients=patients),
        second=average({site: one.moments.second for site, one in trained.items()}, patients=patients),
    )
    return average(shares, patients=patients), kept


def validation_nll(shared, rates, cohorts, *, of) -> float:
    found = [
        measure(at_home(shared, rates[site]), records=one.validation, study=studied(cohorts, of=of))
        for site, one in cohorts.items()
    ]
    return sum(one.nll for one in found) / sum(one.cells for one in found)


def test_a_round_is_each_site_s_own_training_and_the_mean_weighted_by_patients():
    of = plan()
    shared, rates = begun(COHORTS, of=of)
    weights, moments = round_by_hand(shared, rates, COHORTS, of=of, number=0, moments=None)
    found = generator(COHORTS, plan=of, seed=SEED)
    assert same(found.shared, weights)
    assert same(found.moments.first, moments.first)
    assert same(found.moments.second, moments.second)
    assert found.nll == pytest.approx([validation_nll(weights, rates, COHORTS, of=of)], rel=1e-12)
    for site in COHORTS:
        assert np.array_equal(found.rates[site], rates[site])
        assert same(found.at(site), at_home(weights, rates[site]))


def test_later_rounds_go_on_with_the_moments_and_a_lower_learning_rate():
    of = plan(rounds=3)
    shared, rates = begun(COHORTS, of=of)
    moments, kept = None, []
    for number in range(3):
        shared, moments = round_by_hand(shared, rates, COHORTS, of=of, number=number, moments=moments)
        kept.append((validation_nll(shared, rates, COHORTS, of=of), shared))
    found = generator(COHORTS, plan=of, seed=SEED)
    assert found.nll == pytest.approx([nll for nll, _ in kept], rel=1e-12)
    assert same(found.shared, min(kept, key=lambda one: one[0])[1])


def test_a_site_alone_trains_as_it_would_for_itself():
    of, site = plan(rounds=2), SiteId("b")
    alone = {site: COHORTS[site]}
    weights, rates = begun(alone, of=of)
    moments = None
    for number in range(2):
        study = studied(alone, of=of, learning_rate=learning_rate(of, round_number=number), moments=moments)
        local = train(
            at_home(weights, rates[site]),
            records=alone[site].train,
            study=study,
            coefficients=None,
            epochs=1,
            seed=seeds.stream(SEED, "train", site, number),
        )
        weights, moments = to_share(local.weights, rates[site]), local.moments
    found = generator(alone, plan=of, seed=SEED)
    assert found.nll[1] < found.nll[0]
    assert far_apart(found.shared, weights) < 1e-6


def test_the_order_of_sites_changes_no_bit():
    of = plan(rounds=2, weight=1.0)
    backwards = dict(reversed(COHORTS.items()))
    one, other = (generator(cohorts, plan=of, seed=SEED) for cohorts in (COHORTS, backwards))
    assert same(one.shared, other.shared)
    assert one.nll == other.nll
    on, off = (steered(one, cohorts, plan=of, seed=SEED) for cohorts in (COHORTS, backwards))
    assert same(on.shared, off.shared)
    assert on.nll == off.nll


def test_the_same_seed_gives_the_same_generator_and_another_one_another():
    one, again, other = (generator(COHORTS, plan=plan(), seed=seed) for seed in (1, 1, 2))
    assert same(one.shared, again.shared)
    assert not same(one.shared, other.shared)


@pytest.mark.parametrize("nll", [(3.0, 1.0, 2.0), (1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (2.0, 1.0, 1.0)])
def test_the_round_with_the_lowest_validation_nll_is_kept_the_first_of_equals(nll, monkeypatch):
    shown, said = [], iter(nll)

    def validation(shared, *_, **__):
        shown.append(shared)
        return next(said)

    monkeypatch.setattr(training, "_validation", validation)
    found = generator(COHORTS, plan=plan(rounds=3), seed=SEED)
    assert found.nll == nll
    assert same(found.shared, shown[int(np.argmin(nll))])
    assert far_apart(shown[0], shown[1]) > 1e-4


def before() -> Trained:
    return generator(COHORTS, plan=plan(), seed=SEED)


def test_steering_with_lambda_0_is_plain_rounds_from_where_training_ended_bit_for_bit():
    start, of = before(), plan(rounds=2, weight=0.0)
    shared, moments = start.shared, start.moments
    for number in range(2):
        shared, moments = round_by_hand(shared, start.rates, COHORTS, of=of, number=number, moments=moments, seed=9)
    found = steered(start, COHORTS, plan=of, seed=9)
    assert same(found.shared, shared)
    assert same(found.moments.second, moments.second)
    assert found.rates is start.rates


def test_steering_with_lambda_above_0_is_not():
    start = before()
    plain, fair = (steered(start, COHORTS, plan=plan(weight=weight), seed=9) for weight in (0.0, 1.0))
    assert far_apart(plain.shared, fair.shared) > 1e-5


def test_a_steered_run_keeps_its_last_round_whatever_its_likelihood(monkeypatch):
    start = before()
    shown, said = [], iter((1.0, 2.0))

    def validation(shared, *_, **__):
        shown.append(shared)
        return next(said)

    monkeypatch.setattr(training, "_validation", validation)
    assert same(steered(start, COHORTS, plan=plan(rounds=2, weight=1.0), seed=9).shared, shown[-1])


def test_steering_looks_at_counts_that_all_sites_add_up(monkeypatch):
    start, of = before(), plan(weight=1.0)
    seen = []

    def recorded(objective, counts, *, reference):
        seen.append((counts, reference))
        return coefficients(objective, counts, reference=reference)

    monkeypatch.setattr(training, "coefficients", recorded)
    steered(start, COHORTS, plan=of, seed=9)
    ((counts, reference),) = seen
    by_site = [
        measure(start.at(site), records=one.train, study=studied(COHORTS, of=of)).soft for site, one in COHORTS.items()
    ]
    np.testing.assert_allclose(counts, np.sum(by_site, axis=0), rtol=1e-12)
    assert counts[:, 0].sum() == sum(len(one.train) for one in COHORTS.values())
    assert reference.tolist() == [True, False]


def test_held_out_patients_are_never_looked_at():
    def blindfolded(cohort):
        return replace(cohort, held_out=None)

    of = plan(weight=1.0)
    cohorts = {site: blindfolded(one) for site, one in COHORTS.items()}
    found = generator(cohorts, plan=of, seed=SEED)
    assert same(found.shared, generator(COHORTS, plan=of, seed=SEED).shared)
    assert steered(found, cohorts, plan=of, seed=SEED).nll


def test_a_site_settles_by_passes_over_its_own_patients_alone():
    start, site = before(), next(iter(COHORTS))
    alone, of = {site: COHORTS[site]}, plan(rounds=2, learning_rate=HOME_RATE)
    shared, moments = start.shared, start.moments
    for number in range(2):
        shared, moments = round_by_hand(shared, start.rates, alone, of=of, number=number, moments=moments, seed=3)
    found = start.settled(site, COHORTS[site], plan=plan(), rounds=2, seed=3)
    assert same(found, at_home(shared, start.rates[site]))
    assert far_apart(found, start.at(site)) > 1e-5


def test_without_a_pass_at_home_the_common_generator_stays_as_it_is():
    start, site = before(), next(iter(COHORTS))
    assert same(start.settled(site, COHORTS[site], plan=plan(), rounds=0, seed=3), start.at(site))
