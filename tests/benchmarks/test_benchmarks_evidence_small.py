"""The directions that `make experiments-small` checks, on made-up means."""

from types import SimpleNamespace

import pytest

from benchmarks.evidence_small import directions
from fairsynth.experiments.evidence.roles import FAMILIES, METHOD, ORACLE, REAL_ONLY


class Row:
    """Means of one predictor: every approach alike, but for what is said."""

    predictors = ("boosting",)

    def __init__(self, **said) -> None:
        self.said = said

    def value(self, metric, *, approach, predictor, threshold):
        assert (predictor, threshold) == ("boosting", "half")
        usual = {"worst_tpr": 0.1, "abs_log_di": 0.3, "f1": 0.3}
        return SimpleNamespace(mean=self.said.get(f"{metric}/{approach}", usual[metric]))


def broken(**said) -> list[str]:
    good = {f"worst_tpr/{METHOD}": 0.5, f"worst_tpr/{ORACLE}": 0.6, f"abs_log_di/{METHOD}": 0.1}
    return [each.claim.removeprefix("boosting: ") for each in directions(Row(**{**good, **said})) if not each.holds]


def test_a_method_that_gains_on_all_counts_breaks_no_direction():
    assert broken() == []


@pytest.mark.parametrize("baseline", FAMILIES["data_level"][1:])
def test_one_baseline_above_the_method_is_enough(baseline):
    assert broken(**{f"worst_tpr/{baseline}": 0.55}) == ["worst TPR above every data-level baseline"]


def test_less_than_half_of_the_way_to_the_oracle_is_told():
    assert broken(**{f"worst_tpr/{ORACLE}": 0.95}) == ["at least half of the way to fresh real patients"]


def test_disparity_that_grows_is_told():
    assert broken(**{f"abs_log_di/{METHOD}": 0.31}) == ["|log DI| not above that of real patients alone"]


def test_f1_may_fall_by_two_hundredths_and_no_more():
    assert broken(**{f"f1/{METHOD}": 0.281}) == []
    assert broken(**{f"f1/{METHOD}": 0.279}) == ["F1 kept"]


def test_a_number_that_is_not_there_holds_nothing():
    assert "worst TPR above every data-level baseline" in broken(**{f"worst_tpr/{METHOD}": None})
    assert broken(**{f"worst_tpr/{REAL_ONLY}": None}) != []
