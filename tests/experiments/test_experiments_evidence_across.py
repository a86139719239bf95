"""The tables across settings that docs/evidence.md holds."""

from __future__ import annotations

from evidence_stories import WINNING, Approach, trials

from benchmarks.evidence_across import by_size
from fairsynth.experiments.evidence.summary import summarise

KEYS = {"metric": "worst_tpr", "threshold": "half", "digits": 2}


def lines(rows) -> list[list[str]]:
    text = by_size(rows, **KEYS).replace(r"\*", "*")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_a_column_for_each_size_and_a_line_for_each_setting_and_predictor():
    winning = summarise(trials(seeds=3))
    larger = winning.model_copy(update={"real": 5000})
    other = winning.model_copy(update={"setting": "b"})
    head, _, first, second = lines([larger, winning, other])
    assert head == ["setting", "predictor", "1,000 + 2,500", "5,000 + 2,500"]
    assert first[:2] == ["a", "transformer"]
    assert first[2] == first[3]
    assert second[:2] == ["b", "transformer"]
    assert (second[2], second[3]) == (first[2], "-")  # no trial of that size


def test_stars_say_whether_the_gain_is_shown_over_the_best_baseline_and_over_each():
    winning = summarise(trials(seeds=3))
    best = winning.contrast("worst_tpr", predictor="transformer", threshold="half").best["data_level"]
    own = winning.value("worst_tpr", approach="fairsynth", predictor="transformer", threshold="half")
    assert lines([winning])[2][2] == f"{own.mean:.2f} ({best.gain.mean:+.2f}**)"
    losing = summarise(trials({**WINNING, "fairsynth": Approach(lift=-1.5)}, seeds=3))
    cell = lines([losing])[2][2]
    assert cell.split("(")[1].startswith("-")
    assert "*" not in cell
    tied = summarise(trials({**WINNING, "fairsynth": WINNING[best.baseline]}, seeds=3))
    assert "**" not in lines([tied])[2][2]
