"""What a site makes of the common generator at home, and that everything that draws from it draws from that."""

from __future__ import annotations

from dataclasses import replace

import audit_toy as toy
import numpy as np
import pytest

from fairsynth import artefacts
from fairsynth.audit import site as audit
from fairsynth.audit.taught import feedback_site
from fairsynth.config import (
    AuditConfig,
    AugmentationConfig,
    GeneratorConfig,
    GroupsConfig,
    ObjectiveConfig,
    PrivacyConfig,
    SplitConfig,
    StudyPlan,
    TaskConfig,
    TrainingConfig,
    VocabularyConfig,
)
from fairsynth.errors import ArtefactError, ProtocolError
from fairsynth.federation import settling
from fairsynth.federation.settling import HOME_RATE, Common, Home, own_generator, settled
from fairsynth.federation.terms import Guide, Terms, columns
from fairsynth.generator.base_rates import at_home, base_rates, to_share
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import Moments, Study, Totals, measure, train
from fairsynth.seeds import stream

ROUNDS = 2
PLAN = StudyPlan(
    name="toy",
    privacy=PrivacyConfig(),
    seed=3,
    roster=("site-a",),
    quorum=1,
    task=TaskConfig(),
    split=SplitConfig(),
    groups=GroupsConfig(names=toy.VOCABULARY.groups, reference=("majority",)),
    vocabulary=VocabularyConfig(),
    objective=ObjectiveConfig(),
    generator=GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=3),
    training=TrainingConfig(weight_decay=0.1),
    augmentation=AugmentationConfig(synthetic_patients=20, candidates="taught", home_rounds=ROUNDS),
    audit=AuditConfig(predictors=("logistic_regression",), seeds=1),
)
COHORT = toy.cohort(toy.draw([[60, 20], [15, 5]], seed=1))
SHARED = initial_weights(toy.VOCABULARY, PLAN.generator, seed=1)
RATES = base_rates(COHORT.train, vocabulary=toy.VOCABULARY)
HOME = Home(site="site-a", cohort=COHORT, rates=RATES, plan=PLAN)
GUIDE = Guide(teacher=np.zeros(columns(toy.VOCABULARY) + 1), selected=np.array([0.3, 0.4]))
POSITIONS = COHORT.train.visits / 100 + 1
STUDY = Study(vocabulary=toy.VOCABULARY, plan=PLAN, totals=Totals(patients=100, positions=POSITIONS))


@pytest.fixture
def root(tmp_path):
    """A site's folder with the cohort as `load_cohort` reads it."""
    facts = {"vocabulary_sha256": toy.VOCABULARY.sha256}
    with artefacts.new(tmp_path, kind="cohort", inputs={}, facts=facts) as folder:
        for name in ("train", "validation", "held_out"):
            getattr(COHORT, name).save(folder / f"{name}.safetensors")
        words = {name: getattr(toy.VOCABULARY, name) for name in ("codes", "groups", "ages", "phenotypes")}
        artefacts.write_json(folder / "vocabulary.json", words)
    return tmp_path


def same(one, other):
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


def one_pass(weights, moments, *, rate, number, seed=9):
    """A pass of the site alone, by the generator's own training: (shared weights, moments)."""
    study = replace(STUDY, learning_rate=rate, moments=moments)
    trained = train(
        at_home(weights, RATES),
        records=COHORT.train,
        study=study,
        coefficients=None,
        epochs=1,
        seed=stream(seed, "train", "site-a", number),
    )
    return to_share(trained.weights, RATES), trained.moments


def by_hand(moments, *, seed=9):
    """Two rounds: the whole rate, then its last share; where moments are not known, a pass at rate 0 finds them."""
    weights = SHARED
    if moments is None:
        _, moments = one_pass(SHARED, None, rate=0.0, number=ROUNDS, seed=seed)
    last = PLAN.training.final_learning_rate_share
    for number, rate in enumerate((HOME_RATE, HOME_RATE * last)):
        weights, moments = one_pass(weights, moments, rate=rate, number=number, seed=seed)
    return weights


KNOWN = Moments(
    first={name: np.zeros_like(array) for name, array in SHARED.items()},
    second={name: np.full_like(array, 1e-4) for name, array in SHARED.items()},
)


@pytest.mark.parametrize("moments", [None, KNOWN])
def test_settling_is_rounds_over_the_sites_own_patients_at_a_falling_rate(moments):
    found = settled(Common(weights=SHARED, moments=moments), HOME, rounds=ROUNDS, seed=9)
    assert same(found.weights, by_hand(moments))
    assert not same(found.weights, SHARED)


def test_no_weight_moves_while_the_moments_are_looked_for():
    weights, _ = one_pass(SHARED, None, rate=0.0, number=ROUNDS)
    home, before = at_home(weights, RATES), at_home(SHARED, RATES)
    assert all(np.abs(home[name] - before[name]).max() < 1e-6 for name in home)  # but for the rounding of the rates


def test_without_rounds_the_common_generator_is_used_as_it_is(root):
    common = Common(weights=SHARED)
    assert settled(common, HOME, rounds=0, seed=9) is common
    plan = PLAN.model_copy(update={"augmentation": AugmentationConfig()})
    assert same(own_generator(root, replace(HOME, plan=plan), weights=SHARED), at_home(SHARED, RATES))
    assert not (root / "home").exists()


def test_a_site_likes_its_own_patients_better_after_it_settled():
    many = settled(Common(weights=SHARED), HOME, rounds=20, seed=9)
    before, after = (
        measure(at_home(weights, RATES), records=COHORT.validation, study=STUDY).nll
        for weights in (SHARED, many.weights)
    )
    assert after < before


def refuse(*args, **kwargs):
    raise AssertionError("settled again")


def test_the_settled_generator_is_made_once_and_kept_at_the_site(root, monkeypatch):
    found = own_generator(root, HOME, weights=SHARED)
    assert same(found, at_home(by_hand(None, seed=stream(PLAN.seed, "home")), RATES))
    assert artefacts.read_manifest(root / "home", kind="home")["facts"]["release"] == "none: stays at the site"
    monkeypatch.setattr(settling, "settled", refuse)
    assert same(own_generator(root, HOME, weights=SHARED), found)


def changed(name):
    """The arguments of `own_generator`, one of them another."""
    moved = {**SHARED, "head.output_bias": SHARED["head.output_bias"] + 1}
    rates = RATES + 0.5
    plan = PLAN.model_copy(update={"seed": 4})
    return {
        "weights": (HOME, moved),
        "rates": (replace(HOME, rates=rates), SHARED),
        "plan": (replace(HOME, plan=plan), SHARED),
    }[name]


@pytest.mark.parametrize("name", ["weights", "rates", "plan"])
def test_other_weights_rates_or_another_plan_settle_anew(root, name, monkeypatch):
    own_generator(root, HOME, weights=SHARED)
    monkeypatch.setattr(settling, "settled", refuse)
    home, weights = changed(name)
    with pytest.raises(AssertionError, match="settled again"):
        own_generator(root, home, weights=weights)


def test_what_was_kept_and_is_damaged_is_made_anew_and_without_a_cohort_there_is_nothing(root, tmp_path_factory):
    found = own_generator(root, HOME, weights=SHARED)
    kept = root / "home" / "weights.safetensors"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert same(own_generator(root, HOME, weights=SHARED), found)
    assert kept.read_bytes() == whole
    with pytest.raises(ArtefactError, match="no cohort"):
        own_generator(tmp_path_factory.mktemp("empty"), HOME, weights=SHARED)


def test_weights_of_another_study_are_refused_and_nothing_is_kept(root):
    with pytest.raises(ProtocolError):
        own_generator(root, HOME, weights={"head.output_bias": SHARED["head.output_bias"]})
    assert not (root / "home").exists()


def test_trials_draw_candidates_from_the_settled_generator(root, monkeypatch):
    asked = []
    monkeypatch.setattr("fairsynth.audit.taught.synthesise_groups", lambda weights, **_: asked.append(weights) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        feedback_site(root, site="site-a", plan=PLAN, weights=SHARED, terms=Terms(guide=GUIDE))
    assert same(asked[0], own_generator(root, HOME, weights=SHARED))


def test_the_audit_draws_fairsynths_patients_from_the_settled_generator_and_plain_ones_from_the_common(root):
    here = audit.Site(root=root, site="site-a", plan=PLAN, cohort=COHORT)
    other = {name: array + 1 for name, array in SHARED.items()}
    found = audit._at_home(here, {"plain": other, "fairsynth": SHARED}, Terms(guide=GUIDE))
    assert same(found["plain"], at_home(other, RATES))
    assert same(found["fairsynth"], own_generator(root, HOME, weights=SHARED))
