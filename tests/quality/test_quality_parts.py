"""A printed share gives no small count away, nor the few that are left over."""

import re

from hypothesis import given
from hypothesis import strategies as st

from fairsynth.quality.parts import part

MINIMUM = 11


@given(st.integers(0, 200), st.integers(0, 200))
def test_what_is_printed_is_true_and_hides_small_counts_on_both_sides(count, others):
    total = count + others
    shown = part(count, total, minimum=MINIMUM)
    possible = [n for n in range(total + 1) if fits(shown.count, n)]
    assert count in possible
    if 0 < count < MINIMUM or 0 < others < MINIMUM:
        assert shown.share is None
        assert isinstance(shown.count, str) or 0 < total < MINIMUM
        assert len(possible) >= min(total, MINIMUM - 1)
    elif total:
        assert shown.share == round(count / total, 6)


def fits(printed, count):
    if isinstance(printed, int):
        return count == printed
    sign, bound = re.fullmatch(r"([<≥])(\d+)", printed).groups()
    return 0 < count < int(bound) if sign == "<" else int(bound) <= count


def test_zero_is_told_apart_from_few():
    assert str(part(0, 50, minimum=MINIMUM)) == "0 of 50 (0.0%)"
    assert str(part(3, 50, minimum=MINIMUM)) == "<11 of 50"
    assert str(part(47, 50, minimum=MINIMUM)) == "≥40 of 50"
    assert str(part(50, 50, minimum=MINIMUM)) == "50 of 50 (100.0%)"
    assert str(part(4, 9, minimum=MINIMUM)) == "<11 of <11"
