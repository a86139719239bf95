"""The charts show every number once; the recommended lambda is affordable and no larger than chance warrants."""

import re

import pytest
from evidence_stories import WINNING, Approach, trials

from fairsynth.experiments.evidence import figures
from fairsynth.experiments.evidence.frontier import Point, frontier, recommend
from fairsynth.experiments.evidence.roles import title
from fairsynth.experiments.evidence.summary import summarise
from fairsynth.experiments.evidence.targets import F1_TOLERANCE
from fairsynth.fairness.paired import Paired

AT = {"predictor": "transformer", "threshold": "half"}
LAMBDAS = {
    "real_only": Approach(lift=-0.9),
    "lambda=0": Approach(lift=-0.8),
    "lambda=1": Approach(lift=-0.3),
    "lambda=2": Approach(lift=0.6),
    "lambda=3": Approach(lift=1.2, skill=-0.3),  # worst TPR as high, at the price of F1
}


@pytest.fixture(scope="module")
def row():
    return summarise(trials(seeds=3))


@pytest.fixture(scope="module")
def several():
    return summarise(trials(LAMBDAS, seeds=3))


def words(path):
    """The texts of an SVG."""
    return re.findall(r">([^<>]+)</text>", path.read_text(encoding="utf-8"))


# --- the recommended lambda ------------------------------------------------------------------------------------------


def test_the_recommended_lambda_is_the_fairest_whose_f1_is_within_the_tolerance(several):
    found = frontier(several, **AT)
    base = several.value("f1", approach="real_only", **AT).mean
    assert found.floor == pytest.approx(base - F1_TOLERANCE)
    assert [one.weight for one in found.points] == [0, 1, 2, 3]
    assert [one.affordable for one in found.points] == [True, True, True, False]
    assert found.recommended == 2
    assert f"{found.points[2].fairness.mean:.3f}" in found.reason


def test_a_fairer_lambda_is_not_recommended_where_f1_does_not_allow_it(several):
    dear = frontier(several, **AT, tolerance=-0.04)  # F1 has to rise by 0.04
    worst = {one.weight: one.fairness.mean for one in dear.points}
    assert dear.recommended == max((one.weight for one in dear.points if one.affordable), key=worst.get)
    nothing = frontier(several, **AT, tolerance=-0.5)
    assert (nothing.recommended, nothing.reason) == (None, "no lambda keeps F1 within -0.5 of real data alone")
    assert frontier(several, **AT, tolerance=1.0).recommended == max(worst, key=worst.get)


def test_without_real_data_alone_nothing_is_recommended():
    less = summarise(trials({name: one for name, one in LAMBDAS.items() if name != "real_only"}, seeds=2))
    found = frontier(less, **AT)
    assert (found.floor, found.recommended) == (None, None)
    assert len(found.points) == 4


def test_the_smaller_of_two_equal_lambdas_is_recommended():
    cells = trials({"real_only": Approach(), "lambda=2": Approach(), "lambda=5": Approach()}, seeds=2)
    for cell in cells:
        cell.held_out[2] = cell.held_out[1]
    assert frontier(summarise(cells), **AT).recommended == 2


def frontier_of(means, *, sd, seeds=4):
    """Lambdas upwards with these means of worst TPR, all of the same sd over seeds, all affordable."""
    points = [
        Point(
            weight=weight,
            fairness=Paired(mean=mean, sd=sd, low=None, high=None, seeds=seeds),
            f1=Paired(mean=0.3, sd=0.0, low=None, high=None, seeds=seeds),
            affordable=True,
        )
        for weight, mean in enumerate(means)
    ]
    return recommend(points, floor=0.2, tolerance=0.02)


@pytest.mark.parametrize(
    ("sd", "seeds", "chosen"),
    [
        (0.1, 4, 1.0),  # one standard error is 0.05: 0.45 is within it, 0.40 is not
        (0.3, 4, 0.0),  # 0.15: nothing is told from lambda 0
        (0.1, 25, 2.0),  # 0.02
        (None, 1, 2.0),  # one seed says nothing of error
    ],
)
def test_a_larger_lambda_is_recommended_only_where_it_is_a_standard_error_better(sd, seeds, chosen):
    assert frontier_of([0.40, 0.45, 0.49], sd=sd, seeds=seeds)[0] == chosen


def test_the_lowest_group_auroc_can_be_what_lambda_is_chosen_by(several):
    found = frontier(several, **AT, metric="lowest_group_auroc")
    there = several.value("lowest_group_auroc", approach="lambda=1", predictor="transformer", threshold="none")
    assert found.points[1].fairness == there


# --- charts ----------------------------------------------------------------------------------------------------------


def test_the_forest_names_every_other_approach_and_the_three_metrics(row, tmp_path):
    figures.forest(row, tmp_path / "forest.svg", predictor="transformer")
    text = words(tmp_path / "forest.svg")
    assert {title(name) for name in WINNING if name != "fairsynth"} <= set(text)
    assert {"worst TPR, threshold 0.5", "worst TPR, tuned threshold", "lowest group AUROC"} <= set(text)


def test_points_stand_at_their_gain_and_bars_reach_their_limits(row):
    from matplotlib.figure import Figure

    contrast = row.contrast("worst_tpr", **AT)
    panel = Figure().subplots()
    figures._points(panel, [(0, contrast.against["reweighing"]), (1, contrast.against["oracle"])], index=0, label="x")
    line, _, bars = panel.containers[0]
    assert list(line.get_xdata()) == [contrast.against[name].mean for name in ("reweighing", "oracle")]
    first = bars[0].get_segments()[0]
    assert first[:, 0] == pytest.approx([contrast.against["reweighing"].low, contrast.against["reweighing"].high])


def test_a_share_that_is_not_estimable_is_a_cross_and_not_a_zero(tmp_path):
    from matplotlib.figure import Figure

    nothing = summarise(trials({**WINNING, "oracle": WINNING["real_only"]}, seeds=3))
    panel = Figure().subplots()
    figures._shares(panel, [nothing], "transformer", ("worst_tpr", "half"), index=0)
    crosses = [line for line in panel.lines if line.get_marker() == "x"]
    assert [len(line.get_xdata()) for line in crosses] == [1]
    assert len(panel.containers[0][0].get_xdata()) == 0
    figures.ceiling([nothing], tmp_path / "ceiling.svg")
    assert "1,000 + 2,500" in words(tmp_path / "ceiling.svg")


def test_the_frontier_rings_the_recommended_lambda(several, tmp_path):
    from matplotlib.figure import Figure

    found = frontier(several, **AT)
    panel = Figure().subplots()
    figures._frontier(panel, found, weights=[0, 1, 2, 3])
    rings = [line for line in panel.lines if line.get_markerfacecolor() == "none"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in rings] == [
        (found.points[2].f1.mean, found.points[2].fairness.mean)
    ]
    figures.lambda_frontier([("transformer", found)], tmp_path / "lambda.svg")
    assert {"lambda 0", "lambda 1", "lambda 2", "lambda 3", "F1", "worst TPR"} <= set(words(tmp_path / "lambda.svg"))


def test_the_same_numbers_give_the_same_file(row, tmp_path):
    for name in ("one.svg", "other.svg"):
        figures.forest(row, tmp_path / name, predictor="transformer")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.svg", "other.svg"]
