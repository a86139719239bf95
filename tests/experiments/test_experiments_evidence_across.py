"""The tables of docs/evidence.md: that they say what the summary says."""

import sys

import numpy as np
import pytest
from evidence_stories import WINNING, Approach, trial, trials

from benchmarks import evidence_across as across
from fairsynth.experiments.evidence.publish import publish
from fairsynth.experiments.evidence.summary import summarise
from fairsynth.fairness.paired import CeilingShare, Paired


@pytest.fixture(scope="module")
def row():
    return summarise(trials(seeds=3))


def of(row, approach, metric, threshold="half"):
    return row.value(metric, approach=approach, predictor="transformer", threshold=threshold).mean


def test_the_first_table_has_the_means_and_the_gain_over_the_best_data_level_baseline(row):
    (line,) = across.at_half(row)
    best = max(("real_only", "plain_synthetic", "cell_balanced"), key=lambda name: of(row, name, "worst_tpr"))
    wanted = [of(row, name, "worst_tpr") for name in ("real_only", best, "fairsynth", "oracle")]
    assert [float(cell.strip("*")) for cell in line[2:6]] == [pytest.approx(value, abs=0.005) for value in wanted]
    assert float(line[6].split()[0]) == pytest.approx(wanted[2] - wanted[1], abs=0.005)
    assert line[8] == f"{of(row, 'real_only', 'abs_log_di'):.2f} -> {of(row, 'fairsynth', 'abs_log_di'):.2f}"


def test_the_second_table_is_of_rankings(row):
    (line,) = across.ranking(row)
    for cell, name in zip(line[2:5], ("real_only", "fairsynth", "oracle"), strict=True):
        assert cell == f"{of(row, name, 'lowest_group_auroc', 'none'):.3f}"


def test_a_control_that_was_not_run_is_no_zero(row):
    (line,) = across.controls(row)
    assert line[1 + len(across.CONTROLS)] == across.UNDEFINED  # the toy has no threshold optimiser
    assert any(cell != across.UNDEFINED for cell in line[2:])


def test_undefined_numbers_are_told_from_zero():
    nothing = Paired(mean=None, sd=None, low=None, high=None, seeds=0)
    assert across.gain(nothing) == across.mean(nothing) == across.mean(None) == "-"
    assert across.gain(Paired(mean=0.0, sd=0.0, low=None, high=None, seeds=3)) == "+0.00"
    assert across.share(CeilingShare(share=None, low=None, high=None, seeds=3, reason="no gain")) == "-"


def test_the_command_prints_one_line_a_setting_and_predictor(tmp_path, monkeypatch, capsys):
    folders = []
    for cell in trials(WINNING, seeds=2):
        folders.append(tmp_path / "cells" / "r" / f"seed-{cell.axes.seed}")
        cell.save(folders[-1])
    publish(folders, table="table1", command="fairsynth", out=tmp_path)
    monkeypatch.setattr(sys, "argv", ["evidence_across", str(tmp_path), "--real", "1000", "--synthetic", "2500"])
    across.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == (7 + len(across.BY_SIZE)) * 3  # heads, rules, one line each
    assert len({line.count("|") - line.count("\\|") for line in lines[:3]}) == 1
    assert np.unique([line.split(" | ")[1] for line in lines[2::3]]).tolist() == ["transformer"]


def test_each_site_alone_is_paired_with_the_threshold_optimiser_seed_by_seed(tmp_path):
    cells = trials({**WINNING, "threshold_optimiser": Approach(lift=-0.2)}, seeds=3)
    folders = [tmp_path / "cells" / "r" / f"seed-{cell.axes.seed}" for cell in cells]
    for cell, folder in zip(cells, folders, strict=True):
        cell.save(folder)
    publish(folders, table="table1", command="fairsynth", out=tmp_path)
    row = summarise(cells)
    (found,) = across.local_against_optimiser(row, tmp_path)
    against = across.contrast_of(row, "transformer", "worst_tpr", "half").against
    wanted = against["threshold_optimiser"].mean - against["fairsynth_local"].mean
    assert float(found[2].split(" ")[0]) == pytest.approx(wanted, abs=0.006)
    assert wanted < 0


def test_a_mean_over_some_seeds_says_over_how_many():
    silent = {**WINNING, "real_only": Approach(overlook=9.0)}  # flags nobody, so there is no disparate impact
    row = summarise([*trials(seeds=2), trial(silent, seed=9)])
    assert across.moved(row, "transformer", "abs_log_di", "half").split(" -> ")[0].endswith("(2 of 3 seeds)")
    assert "seeds" not in across.moved(row, "transformer", "f1", "half")


# --- by size


BY_TPR = {"metric": "worst_tpr", "threshold": "half", "digits": 2}


def lines(rows) -> list[list[str]]:
    text = across.by_size(rows, **BY_TPR).replace(r"\*", "*")
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
