from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fairsynth.augmentation.baselines import cell_balanced, copies_to, copy_plan, copy_rows, double_prioritised
from fairsynth.augmentation.mixing import mix
from fairsynth.augmentation.plan import equal_cells, members_of
from fairsynth.federation.plans import APPROACHES
from fairsynth.visits.records import Records

members_strategy = st.integers(2, 5).flatmap(lambda g: arrays(np.int64, (g, 2), elements=st.integers(0, 40)))


def patients(cells: list[list[int]], *, mark: int = 0) -> Records:
    """`cells[g][y]` patients, each with one visit of one code: its own number, after `mark`."""
    group, label = (np.repeat(axis.ravel(), np.ravel(cells)) for axis in np.indices(np.shape(cells)))
    ones = np.arange(len(group) + 1)
    return Records(
        codes=mark + np.arange(len(group)),
        visit_offsets=ones,
        patient_offsets=ones,
        context=1000 + group,
        context_offsets=ones,
        group=group,
        label=label,
    )


def test_the_rarer_class_of_a_minority_comes_first():
    assert copy_plan(np.array([[900, 100], [40, 5]]), budget=20).tolist() == [[0, 0], [0, 20]]


def test_then_both_classes_up_to_half_of_the_largest_group():
    members = np.array([[900, 100], [40, 5]])
    assert (members + copy_plan(members, budget=10_000))[1].tolist() == [500, 500]


def test_the_lowest_minority_is_copied_first():
    assert copy_plan(np.array([[900, 100], [40, 30], [40, 5]]), budget=25).tolist() == [[0, 0], [0, 0], [0, 25]]


@settings(deadline=None)
@given(members_strategy, st.integers(0, 200))
def test_no_more_copies_than_the_budget_and_none_of_the_largest_group(members, budget):
    plan = copy_plan(members, budget=budget)
    sizes = members.sum(axis=1)
    assert plan.sum() <= budget
    assert (plan[sizes == sizes.max()] == 0).all()
    assert (plan[members == 0] == 0).all()


@settings(deadline=None)
@given(members_strategy, st.integers(0, 200), st.integers(0, 50))
def test_each_increment_contains_the_one_before(members, budget, more):
    assert (copy_plan(members, budget=budget + more) >= copy_plan(members, budget=budget)).all()


def test_every_patient_of_a_cell_is_copied_once_before_any_a_second_time():
    train = patients([[10, 2], [4, 3]])
    copies = train.take(copy_rows(train, cells=np.array([[0, 0], [0, 7]]), seed=1))
    times = np.bincount(copies.codes, minlength=19)
    assert set(times[16:19]) == {2, 3}
    assert times[:16].sum() == 0


def test_the_increment_with_the_best_criterion_is_kept_and_ties_go_to_fewer_copies():
    train = patients([[60, 20], [10, 2]])
    by_size = {102: 0.5, 112: 0.7, 122: 0.7, 132: 0.6}
    seen: list[int] = []

    def criterion(mixed: Records) -> float:
        seen.append(len(mixed))
        return by_size[min(by_size, key=lambda size: abs(size - len(mixed)))]

    chosen = double_prioritised(train, groups=2, budget=40, criterion=criterion, seed=3)
    assert seen == [102, 112, 122, 132]
    assert len(chosen.copies) == 20
    assert members_of(chosen.copies.group, chosen.copies.label, groups=2).tolist() == chosen.cells.tolist()


def test_copies_are_real_patients_and_the_same_for_the_same_seed():
    train = patients([[60, 20], [10, 4]])

    def copies(seed: int) -> list[int]:
        result = double_prioritised(train, groups=2, budget=9, criterion=len, seed=seed)
        return result.copies.codes.tolist()

    assert copies(1) == copies(1)
    assert copies(1) != copies(2)
    assert set(copies(1)) <= set(train.codes.tolist())


def test_one_group_alone_leaves_nothing_to_copy():
    chosen = double_prioritised(patients([[6, 2]]), groups=1, budget=9, criterion=len, seed=1)
    assert len(chosen.copies) == 0


def test_every_approach_keeps_all_real_patients_and_adds_its_own():
    train = patients([[6, 2], [2, 1]])
    added = {"plain": patients([[1, 1], [1, 1]], mark=100), "fairsynth": patients([[0, 1], [1, 2]], mark=200)}
    copies = train.take(np.array([10, 10]))
    mixed = mix(train, copies=copies, groups=2, **added)
    assert tuple(each.approach for each in mixed) == APPROACHES
    assert [each.added.tolist() for each in mixed] == [
        [[0, 0], [0, 0]],
        [[1, 1], [1, 1]],
        [[0, 0], [0, 2]],
        [[0, 1], [1, 2]],
    ]
    real = train.codes.tolist()
    assert [each.records.codes.tolist() for each in mixed] == [
        real,
        [*real, 100, 101, 102, 103],
        [*real, 10, 10],
        [*real, 200, 201, 202, 203],
    ]


def cells_of(records: Records, *, groups: int) -> list[list[int]]:
    return members_of(records.group, records.label, groups=groups).tolist()


@settings(deadline=None)
@given(members_strategy.filter(lambda members: (members > 0).all()), st.integers(0, 200))
def test_copies_of_full_cells_are_those_of_the_equal_cells_plan(members, budget):
    copies = cell_balanced(patients(members), groups=len(members), budget=budget, seed=1)
    assert cells_of(copies, groups=len(members)) == equal_cells(members, budget=budget).tolist()


@settings(deadline=None)
@given(members_strategy.filter(lambda members: members.any()), st.integers(0, 200))
def test_the_whole_budget_is_copied_from_cells_that_have_patients_and_the_smallest_becomes_as_large_as_can_be(
    members, budget
):
    copies = cell_balanced(patients(members), groups=len(members), budget=budget, seed=1)
    together = (members + cells_of(copies, groups=len(members)))[members > 0]
    assert len(copies) == budget
    low = max(level for level in range(300) if np.maximum(level - members[members > 0], 0).sum() <= budget)
    assert together.min() == low


def test_copies_follow_any_plan_and_what_nobody_can_be_copied_for_is_counted():
    train = patients([[6, 2], [3, 0]])
    copies = copies_to(train, cells=np.array([[0, 5], [1, 4]]), seed=1)
    assert cells_of(copies.records, groups=2) == [[0, 5], [1, 0]]
    assert copies.missing == 4
    assert set(copies.records.codes.tolist()) <= set(train.codes.tolist())


def test_every_baseline_of_copies_is_the_same_for_the_same_seed_and_another_for_another():
    train, cells = patients([[40, 20], [30, 9]]), np.array([[3, 3], [3, 3]])
    for copy in (
        lambda seed: copies_to(train, cells=cells, seed=seed).records,
        lambda seed: cell_balanced(train, groups=2, budget=15, seed=seed),
    ):
        assert copy(1).codes.tolist() == copy(1).codes.tolist()
        assert copy(1).codes.tolist() != copy(2).codes.tolist()


def test_an_empty_plan_gives_nobody():
    copies = copies_to(patients([[6, 2], [3, 0]]), cells=np.zeros((2, 2), dtype=np.int64), seed=1)
    assert len(copies.records) == 0
    assert copies.missing == 0
