import pytest

from fairsynth.governance.disclosure import shown


@pytest.mark.parametrize(("count", "printed"), [(0, 0), (1, "<11"), (10, "<11"), (11, 11), (4711, 4711)])
def test_a_small_cell_is_hidden_and_told_apart_from_zero(count, printed):
    assert shown(count, minimum_cell=11) == printed
