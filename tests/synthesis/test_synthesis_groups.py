"""Synthetic patients of given groups whose labels are left to the generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

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
from fairsynth.errors import ArtefactError, ConfigError
from fairsynth.generator.model import initial_weights
from fairsynth.synthesis import synthesise as module
from fairsynth.synthesis.synthesise import synthesise_groups
from fairsynth.visits.cohort import Cohort, fits
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

VOCABULARY = Vocabulary(
    codes=tuple(f"DX//CCS//{number}" for number in range(12)),
    groups=("one", "two", "three"),
    ages=("young", "middle", "old"),
    phenotypes=("shock",),
)
LAYOUT = VOCABULARY.layout
GENERATOR = GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=3)
PLAN = StudyPlan(
    name="toy",
    privacy=PrivacyConfig(),
    seed=1,
    roster=("site-a",),
    quorum=1,
    task=TaskConfig(),
    split=SplitConfig(),
    groups=GroupsConfig(names=VOCABULARY.groups, reference=("one",)),
    vocabulary=VocabularyConfig(),
    objective=ObjectiveConfig(),
    generator=GENERATOR,
    training=TrainingConfig(),
    augmentation=AugmentationConfig(),
    audit=AuditConfig(),
)
WEIGHTS = initial_weights(VOCABULARY, GENERATOR, seed=1)
WEIGHTS["head.output_bias"][LAYOUT.label] = 0.0  # as many patients of one label as of the other, about
NUMBER = np.array([40, 25, 8])


def patients(rows: list[tuple[int, int, int, int]]) -> Records:
    """One visit of code 0 each, of (group, label, sex, age)."""
    context = [
        [
            LAYOUT.groups.start + group,
            *([LAYOUT.label] if label else []),
            LAYOUT.sexes.start + sex,
            LAYOUT.ages.start + age,
        ]
        for group, label, sex, age in rows
    ]
    ones = np.arange(len(rows) + 1)
    return Records(
        codes=np.zeros(len(rows), dtype=np.int64),
        visit_offsets=ones,
        patient_offsets=ones,
        context=np.concatenate(context),
        context_offsets=np.cumsum([0, *map(len, context)]),
        group=np.array([row[0] for row in rows]),
        label=np.array([row[1] for row in rows]),
    )


TRAIN = patients([(0, 0, 0, 0), (0, 0, 0, 0), (0, 1, 1, 2), (1, 0, 1, 1), (1, 0, 0, 2)])  # nobody of the third group
COHORT = Cohort(vocabulary=VOCABULARY, train=TRAIN, validation=TRAIN, held_out=TRAIN)


def drawn(number=NUMBER, *, seed: int = 4, cohort=COHORT) -> Records:
    return synthesise_groups(WEIGHTS, cohort=cohort, plan=PLAN, number=number, seed=seed)


def people(records: Records) -> list[tuple[int, int, int]]:
    """(group, sex, age) of each patient, -1 where not known."""
    found = []
    for patient in range(len(records)):
        own = records.context[records.context_offsets[patient] : records.context_offsets[patient + 1]]
        one = [records.group[patient]]
        for part in (LAYOUT.sexes, LAYOUT.ages):
            inside = own[(own >= part.start) & (own < part.stop)] - part.start
            one.append(int(inside[0]) if len(inside) else -1)
        found.append(tuple(one))
    return found


def test_as_many_patients_of_each_group_as_asked_for():
    found = drawn()
    assert np.bincount(found.group).tolist() == NUMBER.tolist()
    assert fits(found, vocabulary=VOCABULARY)


def test_the_label_is_the_generator_s():
    share = drawn(np.array([200, 200, 0])).label.mean()
    assert 0.3 < share < 0.7
    certain = {**WEIGHTS, "head.output_bias": WEIGHTS["head.output_bias"].copy()}
    certain["head.output_bias"][LAYOUT.label] = 30.0
    found = synthesise_groups(certain, cohort=COHORT, plan=PLAN, number=NUMBER, seed=4)
    assert found.label.all()


def test_sex_and_age_come_together_and_as_often_as_in_the_group_at_home():
    found = people(drawn(np.array([300, 300, 0])))
    home = people(TRAIN)
    assert set(found) == set(home)
    share = found.count((0, 0, 0)) / 300  # two of the group's three
    assert share == pytest.approx(2 / 3, abs=4 * np.sqrt(2 / 9 / 300))


def test_a_group_without_a_training_patient_can_be_asked_for():
    assert np.bincount(drawn(np.array([0, 0, 20])).group).tolist() == [0, 0, 20]


def test_the_label_of_training_patients_is_not_looked_at():
    survivors = patients([(0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 1, 2), (1, 0, 1, 1), (1, 0, 0, 2)])
    assert people(drawn()) == people(drawn(cohort=replace(COHORT, train=survivors)))


def test_the_same_seed_gives_the_same_patients_and_another_one_others():
    one, again, other = drawn(), drawn(), drawn(seed=5)
    assert all(np.array_equal(getattr(one, name), getattr(again, name)) for name in ("codes", "context", "label"))
    assert not np.array_equal(one.context, other.context)


def test_nobody_is_an_answer_too():
    assert len(drawn(np.zeros(3, dtype=np.int64))) == 0


@pytest.mark.parametrize("number", [np.array([1, 2]), np.array([1, -1, 0]), np.ones((3, 2), dtype=np.int64)])
def test_numbers_that_do_not_fit_are_refused(number):
    with pytest.raises(ConfigError, match="numbers do not fit"):
        drawn(number)


def test_a_generator_that_gives_other_groups_is_refused(monkeypatch):
    honest = module.sample

    def turned(*arguments, **named):
        records = honest(*arguments, **named)
        return replace(records, group=np.roll(records.group, 1))

    monkeypatch.setattr(module, "sample", turned)
    with pytest.raises(ArtefactError, match="group not as asked for"):
        drawn()
