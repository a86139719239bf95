"""The finding claims what the intervals show, no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished import make_plan, write

from fairsynth.audit.summary import ALL_SITES
from fairsynth.config import StudyPlan
from fairsynth.report.finding import asked, finding, warnings
from fairsynth.report.results import primary
from fairsynth.report.study import FinishedStudy, read_finished

WORST_TPR = {"name": "worst_tpr"}


def study(folder: Path, *, plan: StudyPlan | None = None, recall: float = 0.0) -> FinishedStudy:
    return read_finished(write(folder / "server", plan=plan, recall=recall))


def test_equal_results_are_within_noise(tmp_path: Path) -> None:
    text = finding(study(tmp_path))
    assert text.startswith(
        "On 773 real held-out patients of 2 sites (142 deaths), disparate impact (1 is equal) was 1.08"
    )
    assert text.count("within noise") == 3
    assert "beyond" not in text
    assert "higher" not in text


def test_the_metric_of_the_objective_comes_first(tmp_path: Path) -> None:
    text = finding(study(tmp_path, plan=make_plan(objective=WORST_TPR)))
    assert "(142 deaths), the worst-group TPR (of white and black) was 0.48" in text


def test_the_question_names_every_objective_and_which_prediction_is_a_favour(tmp_path: Path) -> None:
    several = {"target": "label", "favourable": "negative", "also": [{"name": "equal_opportunity", "share": 0.5}]}
    text = asked(study(tmp_path / "several", plan=make_plan(objective=several)))
    assert "“disparate impact + 0.5 equal opportunity” (λ = 1.2)" in text
    assert "Not to be selected is the favour" in text
    assert "favour" not in asked(study(tmp_path / "one"))


def test_a_gain_outside_its_interval_is_told_with_its_interval_and_a_warning(tmp_path: Path) -> None:
    found = study(tmp_path, plan=make_plan(objective=WORST_TPR), recall=0.45)
    setting = primary(found)
    result = found.summary.scope(ALL_SITES).result(
        approach="fairsynth", predictor=setting.predictor, threshold=setting.threshold
    )
    change = result.change["worst_tpr"]
    assert change.low is not None
    assert change.low > 0  # the fixture's gain is large enough for its own interval
    assert f"higher by more than this study's noise (change {change.mean:.2f}, interval" in finding(found)
    assert "to be repeated before it is relied on" in finding(found)


def test_one_group_alone_is_no_comparison(tmp_path: Path) -> None:
    plan = make_plan(objective=WORST_TPR, audit={"seeds": 2, "bootstrap_replicates": 40, "minimum_positives": 60})
    text = finding(study(tmp_path, plan=plan))
    assert "the result is INSUFFICIENT for the worst-group TPR: only white has at least 60 held-out deaths." in text


def test_without_enough_positives_anywhere_nothing_is_said(tmp_path: Path) -> None:
    plan = make_plan(objective=WORST_TPR, audit={"seeds": 2, "bootstrap_replicates": 40, "minimum_positives": 500})
    assert "INSUFFICIENT for the worst-group TPR: no group has at least 500" in finding(study(tmp_path, plan=plan))


def test_a_side_smaller_than_the_minimum_cell_gives_no_disparate_impact(tmp_path: Path) -> None:
    plan = make_plan(audit={"seeds": 2, "bootstrap_replicates": 40, "minimum_cell": 250})
    text = finding(study(tmp_path, plan=plan))
    assert "INSUFFICIENT for disparate impact (1 is equal): on one side of the comparison no group has 250" in text


def test_coefficients_at_their_bound_are_told(tmp_path: Path) -> None:
    assert any("In 1 of 6 rounds" in warning for warning in warnings(study(tmp_path)))


@pytest.mark.parametrize("thresholds", [("half", "tuned")])
def test_the_setting_is_fixed_by_the_plan_not_by_the_result(tmp_path: Path, thresholds: tuple[str, ...]) -> None:
    weak, strong = (study(tmp_path / str(recall), recall=recall) for recall in (0.0, 0.45))
    assert weak.axes.thresholds == thresholds
    assert primary(weak) == primary(strong)
    assert (primary(weak).predictor, primary(weak).threshold) == ("transformer", "tuned")
