"""No printed column gives a small count away, alone or with its total."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairsynth.governance.disclosure import Count
from fairsynth.governance.members import Members, members, pooled

MINIMUM = 11

cells = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=6)


def hidden_sum(printed: tuple[Count, ...], true: list[int]) -> tuple[int, int]:
    """How many counts are hidden, and what a reader gets by subtracting the others from the total."""
    return sum(isinstance(v, str) for v in printed), sum(true) - sum(v for v in printed if isinstance(v, int))


def holds(printed: Count, true: int) -> bool:
    """Whether what is printed is true of the count."""
    if isinstance(printed, int):
        return printed == true and not 0 < true < MINIMUM
    sign, bound = re.fullmatch(r"([<≥])([\d,]+)", printed).groups()  # type: ignore[union-attr]
    number = int(bound.replace(",", ""))
    return 0 < true < number if sign == "<" else true >= number


@given(cells)
def test_what_is_printed_is_true_and_never_a_small_count(rows: list[tuple[int, int]]) -> None:
    table = np.array(rows)
    printed = members(table, minimum=MINIMUM)
    assert all(map(holds, printed.patients, table.sum(1).tolist()))
    assert all(map(holds, printed.positives, table[:, 1].tolist()))


@given(cells)
def test_subtraction_from_the_total_gives_no_small_count(rows: list[tuple[int, int]]) -> None:
    table = np.array(rows)
    printed = members(table, minimum=MINIMUM)
    for column, true in ((printed.patients, table.sum(1).tolist()), (printed.positives, table[:, 1].tolist())):
        hidden, left = hidden_sum(column, true)
        if hidden and sum(true) >= MINIMUM and any(isinstance(value, int) and value for value in column):
            assert hidden > 1
            assert left >= MINIMUM


@given(cells)
def test_few_negatives_hide_behind_a_bounded_number_of_positives(rows: list[tuple[int, int]]) -> None:
    table = np.array(rows)
    printed = members(table, minimum=MINIMUM)
    for (negatives, _), patients, positives in zip(rows, printed.patients, printed.positives, strict=True):
        if isinstance(patients, int) and isinstance(positives, int) and positives:
            assert negatives == 0 or negatives >= MINIMUM


@pytest.mark.parametrize("patients", range(MINIMUM, 60))
def test_no_small_number_with_or_without_the_outcome_can_be_told_from_its_neighbours(patients: int) -> None:
    alone = [members(np.array([[patients - n, n]]), minimum=MINIMUM).positives[0] for n in range(patients + 1)]
    for positives, text in enumerate(alone):
        if 0 < positives < MINIMUM or 0 < patients - positives < MINIMUM:
            assert alone.count(text) >= MINIMUM - 1


def test_a_group_that_one_site_hides_is_bounded_over_all_sites() -> None:
    north = members(np.array([[200, 50], [100, 40], [30, 5], [60, 20]]), minimum=MINIMUM)
    south = members(np.array([[90, 30], [80, 20], [50, 20], [70, 30]]), minimum=MINIMUM)
    both = members(np.array([[290, 80], [180, 60], [80, 25], [130, 50]]), minimum=MINIMUM)
    assert north == Members(patients=(250, 140, 35, 80), positives=(50, 40, "<11", "≥11"))
    printed = pooled(both, [north, south], totals=(955, 215), minimum=MINIMUM)
    assert printed.patients == (370, 240, 105, 180)
    assert printed.positives == (80, 60, "≥20", "≥30")


def test_zero_is_printed_as_zero() -> None:
    assert members(np.array([[0, 0], [500, 60], [400, 0]]), minimum=MINIMUM) == Members(
        patients=(0, 560, 400), positives=(0, 60, 0)
    )
