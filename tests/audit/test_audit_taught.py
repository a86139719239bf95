"""What a site adds when a teacher chooses, and what it counts of a trial."""

from __future__ import annotations

from dataclasses import replace

import audit_toy as toy
import numpy as np
import pytest
from scipy.special import logit

from fairsynth import artefacts
from fairsynth.audit import taught
from fairsynth.audit.evaluate import blind_scores, confusion
from fairsynth.audit.forest import RandomForest
from fairsynth.audit.place import Site
from fairsynth.audit.predictors import FittedLogisticRegression, LogisticRegression
from fairsynth.audit.site import audit_site
from fairsynth.augmentation.guided import Guidance, guided
from fairsynth.augmentation.plan import members_of
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
from fairsynth.errors import ProtocolError
from fairsynth.federation.terms import Guide, Terms, columns
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.model import initial_weights
from fairsynth.seeds import stream
from fairsynth.synthesis.synthesise import synthesise_groups
from fairsynth.visits.records import Records

BUDGET = 60
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
    training=TrainingConfig(),
    augmentation=AugmentationConfig(synthetic_patients=BUDGET, candidates="taught"),
    audit=AuditConfig(predictors=("logistic_regression",), seeds=1),
)
COHORT = toy.cohort(toy.draw([[40, 20], [15, 4]], seed=1), validation=toy.draw([[40, 9], [21, 5]], seed=2))
SHARED = initial_weights(toy.VOCABULARY, PLAN.generator, seed=1)
HOME = at_home(SHARED, base_rates(COHORT.train, vocabulary=toy.VOCABULARY))
TEACHER = np.concatenate([np.full(10, 2.0), np.zeros(columns(toy.VOCABULARY) - 10), [-3.0]])  # the positives' codes
GUIDE = Guide(teacher=TEACHER, selected=np.array([0.3, 0.4]))


@pytest.fixture
def here(tmp_path):
    """A site whose folder holds the cohort as `load_cohort` reads it."""
    facts = {"vocabulary_sha256": toy.VOCABULARY.sha256}
    with artefacts.new(tmp_path, kind="cohort", inputs={}, facts=facts) as folder:
        for name in ("train", "validation", "held_out"):
            getattr(COHORT, name).save(folder / f"{name}.safetensors")
        words = {name: getattr(toy.VOCABULARY, name) for name in ("codes", "groups", "ages", "phenotypes")}
        artefacts.write_json(folder / "vocabulary.json", words)
    return Site(root=tmp_path, site="site-a", plan=PLAN, cohort=COHORT)


def scores(records):
    """(B,) the teacher's log-odds, from its first ten weights: which of the positives' codes a patient ever has."""
    has = np.zeros((len(records), toy.CODES))
    has[records.visit_patient[np.repeat(np.arange(records.visits), np.diff(records.visit_offsets))], records.codes] = 1
    return has[:, :10].sum(axis=1)


def test_a_site_adds_the_plans_quotas(here):
    added = taught.taught_patients(here, HOME, guide=GUIDE, repeat=0)
    assert members_of(added.group, added.label, groups=2).tolist() == here.quotas.tolist()
    assert here.quotas.sum() == BUDGET


def test_the_patients_are_those_that_both_models_ranking_gives_of_eight_candidates_a_quota(here):
    number = 8 * here.quotas.sum(axis=1)
    seed = stream(3, "audit", "site-a", "synthesise", "candidates", 0)
    candidates = synthesise_groups(HOME, cohort=COHORT, plan=PLAN, number=number, seed=seed)
    seed = stream(3, "audit", "site-a", "own teacher")
    forest = RandomForest().fit(COHORT.train, vocabulary=toy.VOCABULARY, settings=here.settings, seed=seed)
    log_odds = (2.0 * scores(candidates) - 3 + logit(forest.scores(candidates))) / 2
    expected = guided(
        candidates,
        scores=1 / (1 + np.exp(-log_odds)),
        cells=here.quotas,
        guidance=Guidance(selected=GUIDE.selected),
        vocabulary=toy.VOCABULARY,
        seed=stream(3, "audit", "site-a", "guided", 0),
    )
    found = taught.taught_patients(here, HOME, guide=GUIDE, repeat=0)
    for name in ("codes", "context", "label", "group", "visit_offsets"):
        assert (getattr(found, name) == getattr(expected, name)).all()


def test_positives_have_more_of_what_the_teacher_knows_than_negatives(here):
    added = taught.taught_patients(here, HOME, guide=GUIDE, repeat=0)
    other = taught.taught_patients(here, HOME, guide=replace(GUIDE, teacher=-TEACHER), repeat=0)
    difference = [
        scores(each)[each.label == 1].mean() - scores(each)[each.label == 0].mean() for each in (added, other)
    ]
    assert difference[0] > 0.5 > -0.5 > difference[1]


def refuse_to_draw(*args, **kwargs):
    raise AssertionError("candidates were drawn")


def same(one, other):
    return one.codes.tolist() == other.codes.tolist() and one.label.tolist() == other.label.tolist()


def test_trials_share_candidates_that_are_drawn_once_and_give_the_same_patients_again(here, monkeypatch):
    first = taught.taught_patients(here, HOME, guide=GUIDE, repeat=0)
    monkeypatch.setattr(taught, "synthesise_groups", refuse_to_draw)
    assert same(taught.taught_patients(here, HOME, guide=GUIDE, repeat=0), first)
    assert not same(
        taught.taught_patients(here, HOME, guide=replace(GUIDE, selected=np.array([0.9, 0.1])), repeat=0), first
    )


def test_another_generator_seed_or_damage_draws_candidates_anew(here, monkeypatch):
    first = taught.taught_patients(here, HOME, guide=GUIDE, repeat=0)
    assert not same(taught.taught_patients(here, HOME, guide=GUIDE, repeat=1), first)
    kept = here.root / taught.KIND / taught.RECORDS
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert same(taught.taught_patients(here, HOME, guide=GUIDE, repeat=0), first)
    monkeypatch.setattr(taught, "synthesise_groups", refuse_to_draw)
    with pytest.raises(AssertionError, match="drawn"):
        taught.taught_patients(here, {**HOME, "head.output_bias": HOME["head.output_bias"] + 1}, guide=GUIDE, repeat=0)


def test_a_teacher_that_is_at_hand_is_not_made_again_and_chooses_the_same(here, monkeypatch):
    first, teacher = taught.taught_patients(here, HOME, guide=GUIDE, repeat=0), taught.teacher_of(here, GUIDE)
    monkeypatch.setattr(taught, "own_model", refuse_to_draw)
    assert same(taught.taught_patients(here, HOME, guide=GUIDE, repeat=0, teacher=teacher), first)
    with pytest.raises(AssertionError):
        taught.taught_patients(here, HOME, guide=GUIDE, repeat=0)


def test_a_trial_counts_real_training_and_validation_patients_of_the_plans_first_predictor(here):
    counts = taught.feedback_site(here.root, site="site-a", plan=PLAN, weights=SHARED, terms=Terms(guide=GUIDE))
    added = taught.taught_patients(here, HOME, guide=GUIDE, repeat=0)
    mixed = Records.concatenate([COHORT.train, added])
    fitted = LogisticRegression().fit(mixed, vocabulary=toy.VOCABULARY, settings=here.settings, seed=0)
    expected = [
        confusion(
            blind_scores(fitted, part, vocabulary=toy.VOCABULARY) >= 0.5, label=part.label, group=part.group, groups=2
        )
        for part in (COHORT.validation, COHORT.train)
    ]
    assert counts["validation"].tolist() == expected[0].tolist()
    assert counts["seen"].tolist() == sum(expected).tolist()
    assert isinstance(fitted, FittedLogisticRegression)
    assert counts["seen"].sum() == 40 + 20 + 15 + 4 + 40 + 9 + 21 + 5


def test_a_trial_without_a_guide_is_refused(here):
    with pytest.raises(ProtocolError, match="no guide"):
        taught.feedback_site(here.root, site="site-a", plan=PLAN, weights=SHARED, terms=Terms())


@pytest.mark.parametrize("guide, candidates", [(None, "taught"), (GUIDE, "prefix")])
def test_an_audit_whose_guide_is_not_as_planned_writes_nothing(here, guide, candidates):
    plan = PLAN.model_copy(
        update={"augmentation": AugmentationConfig(synthetic_patients=BUDGET, candidates=candidates)}
    )
    weights = {"plain": SHARED, "fairsynth": SHARED}
    with pytest.raises(ProtocolError, match="guide not as planned"):
        audit_site(here.root, site="site-a", plan=plan, weights=weights, terms=Terms(guide=guide))
    assert not (here.root / "synthetic").exists()
