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
from fairsynth.generator.sample import Conditions
from fairsynth.synthesis import synthesise as module
from fairsynth.synthesis.synthesise import check_synthetic, synthesise
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

VOCABULARY = Vocabulary(
    codes=tuple(f"DX//CCS//{number}" for number in range(12)),
    groups=("one", "two", "three"),
    ages=("young", "old"),
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


def patients(cells: list[tuple[int, int]]) -> Records:
    """One visit of code 0 each; the context names group and label."""
    context = [
        [LAYOUT.groups.start + group, *([LAYOUT.label] if label else []), LAYOUT.sexes.start] for group, label in cells
    ]
    ones = np.arange(len(cells) + 1)
    return Records(
        codes=np.zeros(len(cells), dtype=np.int64),
        visit_offsets=ones,
        patient_offsets=ones,
        context=np.concatenate(context),
        context_offsets=np.concatenate([[0], np.cumsum([len(tokens) for tokens in context])]),
        group=np.array([group for group, _ in cells]),
        label=np.array([label for _, label in cells]),
    )


REAL = patients([(0, 0), (1, 1)])
COHORT = Cohort(vocabulary=VOCABULARY, train=REAL, validation=REAL, held_out=REAL)


def make(cells, *, number: int, seed: int = 7) -> Records:
    return synthesise(WEIGHTS, cohort=COHORT, plan=PLAN, cells=cells, number=number, seed=seed)


def test_the_cells_asked_for_are_the_cells_got():
    cells = np.array([[0, 5], [3, 0], [2, 7]])
    records = make(cells, number=17)
    got = np.zeros_like(cells)
    np.add.at(got, (records.group, records.label), 1)
    assert got.tolist() == cells.tolist()


def test_without_cells_the_groups_are_those_of_the_site_and_the_generator_chooses_the_label():
    records = make(None, number=200)
    assert len(records) == 200
    assert set(records.group.tolist()) == set(COHORT.train.group.tolist())
    assert set(records.label.tolist()) == {0, 1}


def test_the_same_seed_gives_the_same_patients_and_another_seed_others():
    same, again, other = make(None, number=20), make(None, number=20), make(None, number=20, seed=8)
    assert np.array_equal(same.codes, again.codes) and np.array_equal(same.context, again.context)
    assert not np.array_equal(same.context, other.context)


@pytest.mark.parametrize(
    ("cells", "number"),
    [
        (np.array([[1, 1], [1, 1]]), 4),  # a group is missing
        (np.array([[1, -1], [1, 1], [1, 1]]), 4),
        (np.array([[1, 1], [1, 1], [1, 1]]), 5),  # does not sum to the number
    ],
)
def test_quotas_that_do_not_fit_are_refused(cells, number):
    with pytest.raises(ConfigError):
        make(cells, number=number)


def wanted(cells: list[tuple[int, int]]) -> Conditions:
    return Conditions(group=np.array([group for group, _ in cells]), label=np.array([label for _, label in cells]))


CELLS = [(0, 1), (1, 0), (2, 1)]


def problems(records: Records, conditions: Conditions | None = None) -> list[str]:
    found = check_synthetic(records, vocabulary=VOCABULARY, conditions=conditions or wanted(CELLS))
    return [problem.what for problem in found]


def test_patients_as_asked_for_have_no_problem():
    assert problems(patients(CELLS)) == []
    assert problems(patients(CELLS), Conditions.free(3)) == []


def test_each_way_to_miss_the_cells_is_told():
    good = patients(CELLS)
    assert problems(good.take(np.array([0, 1]))) == ["number not as asked for"]
    assert problems(patients([(1, 1), (1, 0), (2, 1)])) == ["group not as asked for"]
    assert problems(patients([(0, 0), (1, 0), (2, 1)])) == ["label not as asked for"]


def test_a_label_visit_that_contradicts_the_cell_is_told():
    good, free = patients(CELLS), Conditions.free(3)
    contradiction = ["label visit contradicts the cell"]
    other_group = np.where(good.context == LAYOUT.groups.start, LAYOUT.groups.start + 1, good.context)
    two_groups = np.where(good.context == LAYOUT.sexes.start, LAYOUT.groups.start + 2, good.context)
    label_token = np.where(good.context == LAYOUT.sexes.start, LAYOUT.label, good.context)
    assert problems(replace(good, context=other_group), free) == contradiction
    assert problems(replace(good, context=two_groups), free) == contradiction
    assert problems(replace(good, context=label_token), free) == contradiction
    assert problems(replace(good, label=1 - good.label), free) == contradiction


def test_a_generator_that_ignores_the_condition_is_found_out(monkeypatch):
    monkeypatch.setattr(module, "sample", lambda *_, **__: patients([(0, 0)]))
    with pytest.raises(ArtefactError, match="label not as asked for"):
        make(np.array([[0, 1], [0, 0], [0, 0]]), number=1)
