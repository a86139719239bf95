from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fairsynth.augmentation.plan import equal_cells, equal_rates, fill_lowest, members_of
from fairsynth.errors import CohortError, ConfigError

cells = st.integers(1, 6).flatmap(lambda g: arrays(np.int64, (g, 2), elements=st.integers(0, 40)))
served = cells.filter(lambda members: members.sum() > 0)
budgets = st.integers(0, 200)


def one_at_a_time(members: np.ndarray, budget: int) -> np.ndarray:
    """Slow oracle: give each patient to a cell that is smallest now, among the groups that the site serves."""
    total = members.astype(np.int64).copy()
    closed = members.sum(axis=1) == 0
    for _ in range(budget):
        open_cells = np.where(closed[:, None], np.iinfo(np.int64).max, total)
        total.reshape(-1)[np.argmin(open_cells)] += 1
    return total


def test_the_smallest_cells_are_filled_first():
    members = np.array([[100, 10], [20, 2]])
    assert equal_cells(members, budget=26).tolist() == [[0, 9], [0, 17]]


def test_what_cannot_be_shared_evenly_goes_to_the_first_of_the_lowest_cells():
    assert equal_cells(np.array([[5, 5], [5, 5]]), budget=6).tolist() == [[2, 2], [1, 1]]


@settings(deadline=None)
@given(served, budgets)
def test_the_plan_sums_to_the_budget(members, budget):
    assert equal_cells(members, budget=budget).sum() == budget


@settings(deadline=None)
@given(served, budgets)
def test_no_cell_is_lowered(members, budget):
    assert (equal_cells(members, budget=budget) >= 0).all()


@settings(deadline=None)
@given(served, budgets, st.integers(0, 50))
def test_a_larger_budget_takes_from_no_cell(members, budget, more):
    assert (equal_cells(members, budget=budget + more) >= equal_cells(members, budget=budget)).all()


@settings(deadline=None)
@given(served, budgets)
def test_a_group_that_the_site_does_not_serve_gets_nobody(members, budget):
    plan = equal_cells(members, budget=budget)
    assert (plan[members.sum(axis=1) == 0] == 0).all()


@settings(deadline=None)
@given(served, budgets)
def test_the_cells_are_as_equal_as_filling_one_at_a_time_makes_them(members, budget):
    ours = members + equal_cells(members, budget=budget)
    slow = one_at_a_time(members, budget)
    assert sorted(ours.ravel()) == sorted(slow.ravel())


@settings(deadline=None)
@given(served, budgets, st.data())
def test_no_other_plan_has_a_larger_smallest_cell(members, budget, data):
    open_cells = np.flatnonzero(np.repeat(members.sum(axis=1) > 0, 2))
    picks = data.draw(st.lists(st.sampled_from(open_cells.tolist()), min_size=budget, max_size=budget))
    other = members.ravel() + np.bincount(np.array(picks, dtype=np.int64), minlength=members.size)
    ours = (members + equal_cells(members, budget=budget)).ravel()
    assert ours[open_cells].min() >= other[open_cells].min()


@settings(deadline=None)
@given(cells, budgets, st.data())
def test_filling_stops_at_the_ceilings(levels, budget, data):
    room = data.draw(arrays(np.int64, levels.shape, elements=st.integers(0, 20)))
    added = fill_lowest(levels, budget=budget, ceilings=levels + room)
    assert ((added >= 0) & (added <= room)).all()
    assert added.sum() == min(budget, room.sum())


def test_members_are_counted_by_group_and_label():
    group, label = np.array([0, 2, 2, 0, 2]), np.array([1, 0, 1, 1, 1])
    assert members_of(group, label, groups=4).tolist() == [[0, 2], [0, 0], [1, 2], [0, 0]]


def test_a_site_without_patients_is_refused():
    with pytest.raises(CohortError):
        equal_cells(np.zeros((2, 2), dtype=np.int64), budget=10)


def test_a_negative_budget_is_refused():
    with pytest.raises(ConfigError):
        equal_cells(np.ones((2, 2), dtype=np.int64), budget=-1)


@settings(deadline=None)
@given(served, budgets)
def test_equal_rates_spend_the_budget_on_groups_that_the_site_serves(members, budget):
    plan = equal_rates(members, budget=budget)
    assert plan.sum() == budget
    assert (plan >= 0).all()
    assert (plan[members.sum(axis=1) == 0] == 0).all()


@settings(deadline=None)
@given(served.filter(lambda members: members[:, 0].min() > 0), budgets)
def test_equal_rates_lift_no_group_above_another_by_more_than_one_patient(members, budget):
    plan = equal_rates(members, budget=budget)
    if plan[:, 0].any() or (members + plan)[:, 1].max() >= (members + plan)[:, 0].max():
        return  # one half was reached; the rest went to the smallest cells
    total = members + plan
    lifted = plan[:, 1] > 0
    one_more = (total[:, 1] + 1) / (total.sum(axis=1) + 1)
    for group in np.flatnonzero(lifted):
        one_less = (total[group, 1] - 1) / (total[group].sum() - 1)
        assert one_less <= one_more.min() + 1e-9


def test_equal_rates_give_the_groups_of_a_site_the_same_share_of_positives():
    members = np.array([[900, 100], [180, 5], [45, 5], [0, 0]])
    total = members + equal_rates(members, budget=300)
    shares = total[:3, 1] / total[:3].sum(axis=1)
    assert shares.max() - shares.min() < 0.01
    assert total[3].sum() == 0


def test_equal_rates_stop_at_one_half_and_then_fill_the_smallest_cells():
    assert equal_rates(np.array([[10, 2], [4, 1]]), budget=17).tolist() == [[0, 8], [3, 6]]
