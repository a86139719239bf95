"""A printed share gives no small count away, nor the few that are left over."""

import pytest

from fairsynth.quality.parts import part

MINIMUM = 11


@pytest.mark.parametrize("total", [*range(45), 100])
def test_no_small_count_can_be_told_from_its_neighbours(total):
    printed = [str(part(count, total, minimum=MINIMUM)) for count in range(total + 1)]
    for count, text in enumerate(printed):
        alike = printed.count(text)
        if 0 < count < MINIMUM or 0 < total - count < MINIMUM or 0 < total < MINIMUM:
            assert count == 0 or alike >= min(max(total - 1, 1), MINIMUM - 1)
        else:
            assert alike == 1


def test_zero_is_told_apart_from_few():
    assert str(part(0, 50, minimum=MINIMUM)) == "0 of 50 (0.0%)"
    assert str(part(3, 50, minimum=MINIMUM)) == "<11 of 50"
    assert str(part(47, 50, minimum=MINIMUM)) == "≥40 of 50"
    assert str(part(50, 50, minimum=MINIMUM)) == "50 of 50 (100.0%)"
    assert str(part(4, 9, minimum=MINIMUM)) == str(part(9, 9, minimum=MINIMUM)) == "≥1 of <11"
    assert str(part(4, 15, minimum=MINIMUM)) == str(part(13, 15, minimum=MINIMUM)) == "≥1 of 15"
