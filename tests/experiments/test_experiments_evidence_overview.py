"""What is counted over rows, and what captions conclude."""

import json

import pytest
from evidence_stories import WINNING, Approach, trials

from fairsynth.experiments.evidence import captions
from fairsynth.experiments.evidence.charts import charts
from fairsynth.experiments.evidence.frontier import frontier
from fairsynth.experiments.evidence.headline import ALL_SETTINGS, headlines, merged
from fairsynth.experiments.evidence.overview import asked, overview
from fairsynth.experiments.evidence.summary import summarise
from fairsynth.experiments.evidence.tally import BEST_OF_FOUR, Table1Cell, tally
from fairsynth.experiments.evidence.targets import Target

LOSING = {**WINNING, "fairsynth": Approach(lift=-1.5)}


def target(status, *, shown=None, name="kept", threshold="half"):
    numbers = {"value": None, "low": None, "high": None, "limit": 0.0}
    return Target(name=name, predictor="p", threshold=threshold, metric="f1", status=status, shown=shown, **numbers)


@pytest.fixture(scope="module")
def winning():
    return summarise(trials(seeds=3))


@pytest.fixture(scope="module")
def losing():
    return summarise(trials(LOSING, seeds=2)).model_copy(update={"setting": "b"})


# --- counts ----------------------------------------------------------------------------------------------------------


def test_every_status_is_counted_once_and_only_the_met_are_shown():
    found = tally(
        [
            *(target("met", shown=True), target("met", shown=False), target("met")),
            *(target("missed", shown=True), target("not estimable"), target("not estimable")),
            target("met", shown=True, threshold="tuned"),
        ]
    )
    assert [(one.threshold, one.met, one.shown, one.missed, one.not_estimable, one.of) for one in found] == [
        ("half", 3, 1, 1, 2, 6),
        ("tuned", 1, 1, 0, 0, 1),
    ]


def test_cells_of_table_1_are_won_or_not():
    cells = [
        Table1Cell(predictor="p", threshold="half", metric=metric, best=best)
        for metric, best in (("worst_tpr", True), ("disparate_impact", False), ("worst_tpr", True))
    ]
    (found,) = tally([], table1=cells)
    assert (found.asked, found.met, found.shown, found.missed, found.of) == (BEST_OF_FOUR, 2, None, 1, 3)


def test_all_settings_are_the_sum_of_each(winning, losing):
    both = merged(
        headlines([losing, losing], table="table1", code_version="0"),
        headlines([winning], table="table1", code_version="0"),
    )
    assert list(both.tallies) == ["a", "b", ALL_SETTINGS]
    for own, other, total in zip(*both.tallies.values(), strict=True):
        assert (own.asked, own.threshold) == (other.asked, other.threshold) == (total.asked, total.threshold)
        assert (own.of, other.of, total.of) == ((2, 4, 6) if total.asked == BEST_OF_FOUR else (1, 2, 3))
        assert total.met == own.met + other.met
    above = next(one for one in both.tallies[ALL_SETTINGS] if one.asked == "above_every_data_level_baseline")
    assert (above.met, above.shown, above.missed) == (1, 1, 2)
    assert json.loads(both.model_dump_json())["tallies"]["a"][0]["met"] == 1


def test_the_overview_names_every_row_and_its_counts(winning, losing):
    both = merged(
        headlines([losing], table="table1", code_version="0"), headlines([winning], table="table1", code_version="0")
    )
    text = overview(both)
    line = next(line for line in text.splitlines() if "above every data level baseline" in line)
    assert line.split(" | ")[2:] == ["1 (1) / 0 / 0 of 1", "0 (0) / 1 / 0 of 1", "1 (1) / 1 / 0 of 2 |"]
    assert "[a](table1-a.md): 1,000 + 2,500 (3 seeds); transformer" in text


def test_approaches_that_were_not_all_run_have_no_cells_of_table_1():
    only = summarise(trials({"real_only": Approach(), "fairsynth": Approach()}, seeds=2))
    found = headlines([only], table="ceiling", code_version="0")
    assert BEST_OF_FOUR not in {one.asked for one in found.tallies["a"]}
    assert "-" not in asked(found.tallies).split("\n\n")[1].replace("---", "")


# --- captions --------------------------------------------------------------------------------------------------------


def test_captions_conclude_from_the_numbers(winning, losing):
    assert "in worst TPR, threshold 0.5 in 1 of 1 (every interval above 0 in 1)" in captions.gains([winning])
    assert "in worst TPR, threshold 0.5 in 1 of 2 (every interval above 0 in 1)" in captions.gains([winning, losing])
    best, worst = (captions.forest(row, predictor="transformer") for row in (winning, losing))
    assert "worst TPR, threshold 0.5: above 5 of 5 data-level baselines (interval above 0 for 5)" in best
    assert "worst TPR, threshold 0.5: above 0 of 5 data-level baselines" in worst
    gain = winning.contrast("worst_tpr", predictor="transformer", threshold="half").against["oracle"]
    assert f"minus the oracle {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" in best
    assert "model-level" not in best
    assert "worst TPR, threshold 0.5: 1 of 1;" in captions.ceiling([winning])
    assert "worst TPR, threshold 0.5: 0 of 1;" in captions.ceiling([losing])


def test_a_share_that_is_not_estimable_is_said_to_be_so():
    level = summarise(trials({"real_only": Approach(), "fairsynth": Approach(), "oracle": Approach()}, seeds=2))
    assert "worst TPR, threshold 0.5: 0 of 1, not estimable in 1" in captions.ceiling([level])


def test_the_caption_of_lambdas_names_the_recommended_and_its_gain():
    row = summarise(
        trials({"real_only": Approach(lift=-0.9), "lambda=0": Approach(lift=-0.8), "lambda=1.5": Approach()}, seeds=3)
    )
    found = frontier(row, predictor="transformer", threshold="half")
    plain, chosen = (one.fairness.mean for one in found.points)
    caption = captions.lambdas([("here", found)])
    assert f"here: 1.5, {chosen - plain:+.3f} over lambda = 0." in caption
    assert "One seed" not in caption


def test_every_chart_of_a_page_has_a_file_and_a_caption(winning, tmp_path):
    found = list(charts([winning], name="table1-a"))
    assert [chart.file for chart in found] == [
        "table1-a-ceiling.svg",
        "table1-a-r1000-s2500-transformer-gains.svg",
    ]
    for chart in found:
        chart.draw(tmp_path / chart.file)
        assert (tmp_path / chart.file).read_text(encoding="utf-8").startswith("<?xml")
        assert f"]({chart.file})\n\n*{chart.caption}*" in chart.markdown


def test_of_several_rows_the_first_has_charts_of_its_own(winning, losing):
    other = losing.model_copy(update={"synthetic": 500})
    assert [chart.file for chart in charts([winning, other], name="table1-a")] == [
        "table1-a-ceiling.svg",
        "table1-a-r1000-s2500-transformer-gains.svg",
    ]
    assert charts_caption([winning, other]) != charts_caption([winning])


def charts_caption(rows) -> str:
    """Of the ceiling, which has all rows."""
    return next(iter(charts(rows, name="x"))).caption
