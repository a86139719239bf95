"""Which share of each group is kept: the rule, against trials made up by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairsynth.fairness.planning import MOVED, Rule, Trial, moved_shares

REFERENCE = np.array([True, False])


def rule(**changes):
    return Rule(**{"reference": REFERENCE, "minimum_positives": 5, **changes})


def trial(share, *, tpr=(0.5, 0.5), false=10, chosen=(50, 50)):
    """100 positives of a group on validation, `tpr` of them found; 1,000 patients of each seen, `chosen` selected."""
    found = np.round(100 * np.array(tpr)).astype(np.int64)
    validation = np.stack([found, np.full(2, false), 100 - found, np.full(2, 900 - false)], axis=1)
    picked = np.array(chosen)
    nobody = np.zeros(2, dtype=np.int64)
    return Trial(
        selected=np.asarray(share, float),
        validation=validation,
        seen=np.stack([nobody, picked, nobody, 1000 - picked], axis=1),
    )


def choose(by_share, **changes):
    """The choice among trials by their share; trials of groups' own cuts come from `by_share["moved"]`."""
    asked = []

    def attempt(selected):
        asked.append(selected)
        alike = len(set(selected.tolist())) == 1 and float(selected[0]) in by_share
        return by_share[float(selected[0])] if alike else by_share["moved"]

    shares = tuple(key for key in by_share if key != "moved")
    return rule(shares=shares, **changes).choose(attempt), asked


def test_of_shares_with_nearly_the_best_f1_the_one_of_the_highest_worst_tpr_is_kept():
    low, fair, bad = (
        trial([0.2] * 2, tpr=(0.7, 0.4)),
        trial([0.3] * 2, tpr=(0.56, 0.54)),
        trial([0.5] * 2, tpr=(0.9, 0.9), false=900),
    )
    choice, _ = choose({0.2: low, 0.3: fair, 0.5: bad}, by_group=False)
    assert bad.f1 < low.f1 - 0.01 < fair.f1
    assert choice.kept is fair
    assert choice.tried == (low, fair, bad)


def test_a_share_more_than_the_tolerance_below_the_best_f1_is_never_kept():
    good, kind = trial([0.2] * 2, tpr=(0.6, 0.3)), trial([0.4] * 2, tpr=(0.6, 0.6), false=150)
    assert kind.f1 < good.f1 - 0.01
    assert kind.worst_tpr(5) > good.worst_tpr(5)
    choice, _ = choose({0.2: good, 0.4: kind}, by_group=False)
    assert choice.kept is good


def test_groups_cuts_of_their_own_are_kept_where_selection_comes_nearer_to_parity():
    unequal, nearer = trial([0.3] * 2, chosen=(200, 80)), trial([0.25, 0.4], chosen=(150, 120))
    choice, asked = choose({0.3: unequal, "moved": nearer})
    assert choice.kept is nearer
    assert asked[-1] == pytest.approx(moved_shares(unequal))


@pytest.mark.parametrize(
    "moved", [trial([0.2, 0.5], chosen=(80, 240)), trial([0.2, 0.5], chosen=(120, 120), false=300)]
)
def test_groups_cuts_that_bring_no_parity_or_cost_f1_are_not_kept(moved):
    unequal = trial([0.3] * 2, chosen=(200, 80))
    choice, _ = choose({0.3: unequal, "moved": moved})
    assert choice.kept is unequal
    assert choice.tried[-1] is moved


def test_a_group_that_is_selected_less_gets_a_larger_share_and_the_other_a_smaller_one():
    found = moved_shares(trial([0.3] * 2, chosen=(200, 80)))
    assert found[0] < 0.3 < found[1]


def test_groups_that_differ_by_no_more_than_chance_are_not_moved():
    assert moved_shares(trial([0.3] * 2, chosen=(100, 103))) == pytest.approx([0.3, 0.3], abs=1e-9)
    assert moved_shares(trial([0.3, 0.5], chosen=(100, 100))) == pytest.approx([0.3, 0.5], abs=1e-9)


def test_a_group_of_few_patients_moves_less_than_its_own_counts_say():
    few = replace(trial([0.4] * 2), seen=np.array([[300, 300, 200, 200], [1, 1, 2, 2]]))
    everyone, own = 602 / 1006, 2 / 6
    odds = 0.4 / 0.6 * everyone / (1 - everyone) / (own / (1 - own))  # by the group's raw rate
    assert 0.4 < moved_shares(few)[1] < odds / (1 + odds) - 0.01


def test_shares_stop_at_their_bounds_however_far_groups_are_apart():
    apart = replace(trial([0.05, 0.95]), seen=np.array([[4000, 4000, 0, 0], [0, 0, 4000, 4000]]))
    assert moved_shares(apart).tolist() == list(MOVED)


def test_shares_move_by_the_difference_of_log_odds_where_counts_are_sure():
    many = trial([0.3] * 2)
    sure = Trial(
        selected=many.selected,
        validation=many.validation,
        seen=np.array([[0, 400_000, 0, 600_000], [0, 100_000, 0, 900_000]]),
    )
    odds = moved_shares(sure) / (1 - moved_shares(sure)) / (0.3 / 0.7)
    assert odds == pytest.approx([(0.25 / 0.75) / (0.4 / 0.6), (0.25 / 0.75) / (0.1 / 0.9)], rel=1e-3)


@settings(deadline=None)
@given(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), st.floats(0.05, 0.95))
def test_shares_stay_inside_the_open_interval_whatever_was_counted(chosen, share):
    found = moved_shares(trial([share] * 2, chosen=chosen))
    assert ((found > 0) & (found < 1)).all()


def test_without_a_group_of_enough_positives_the_worst_tpr_is_that_of_everybody():
    assert trial([0.3] * 2, tpr=(0.2, 0.6)).worst_tpr(1000) == pytest.approx(0.4)
    assert trial([0.3] * 2, tpr=(0.2, 0.6)).worst_tpr(5) == pytest.approx(0.2)


def test_distance_is_infinite_where_nobody_of_one_side_is_selected():
    assert trial([0.3] * 2, chosen=(100, 0)).distance(REFERENCE) == float("inf")
    assert trial([0.3] * 2, chosen=(0, 100)).distance(REFERENCE) == float("inf")
    assert trial([0.3] * 2, chosen=(100, 100)).distance(REFERENCE) == pytest.approx(0)


def test_no_positive_at_all_is_an_f1_and_a_worst_tpr_of_0_and_a_group_with_too_few_is_left_out():
    nobody = replace(trial([0.4] * 2), validation=np.zeros((2, 4), dtype=np.int64))
    assert nobody.f1 == 0
    assert nobody.worst_tpr(3) == 0
    few = replace(nobody, validation=np.array([[8, 1, 2, 9], [0, 1, 2, 9]]))
    assert few.worst_tpr(3) == pytest.approx(0.8)
    assert few.worst_tpr(2) == 0
    assert few.worst_tpr(30) == pytest.approx(8 / 12)


def test_the_operating_point_is_what_is_kept_before_groups_get_cuts_of_their_own():
    unequal, nearer = trial([0.3] * 2, chosen=(200, 80)), trial([0.25, 0.4], chosen=(150, 120))
    choice, _ = choose({0.3: unequal, "moved": nearer})
    assert choice.kept is nearer
    assert rule().operating_point(choice.tried[:1]) is unequal


def test_the_first_of_equal_shares_is_kept():
    first, second = trial([0.2] * 2), trial([0.3] * 2)
    assert rule().operating_point([first, second]) is first


def test_what_is_nearer_to_parity_depends_on_the_prediction_that_is_favourable():
    # selected: 0.78 and 0.82 of the other group's share; not selected: 3 times and 10 times
    high, low = trial([0.3] * 2, chosen=(900, 700)), trial([0.25, 0.4], chosen=(980, 800))
    assert low.distance(REFERENCE) < high.distance(REFERENCE)
    assert low.distance(REFERENCE, favourable="negative") > high.distance(REFERENCE, favourable="negative")
    for favourable, kept in (("positive", low), ("negative", high)):
        choice, _ = choose({0.3: high, "moved": low}, favourable=favourable)
        assert choice.kept is kept
