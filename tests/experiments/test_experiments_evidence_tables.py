"""What readers get: tables in the paper's format, the long table, the headlines, and the command that makes them."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from evidence_stories import WINNING, Approach, trials

from fairsynth.cli import main
from fairsynth.cli.experiment import Setting, _whose
from fairsynth.config import read_study
from fairsynth.errors import ArtefactError
from fairsynth.experiments.evidence import grid
from fairsynth.experiments.evidence.counted import gather
from fairsynth.experiments.evidence.grid import finished
from fairsynth.experiments.evidence.headline import Headlines
from fairsynth.experiments.evidence.measures import measure
from fairsynth.experiments.evidence.pages import commands
from fairsynth.experiments.evidence.publish import COLUMNS, publish
from fairsynth.experiments.evidence.summary import summarise
from fairsynth.experiments.evidence.tables import (
    ablation,
    ceiling,
    comparison,
    interval,
    mean_sd,
    share,
    table1,
    table2,
    targets,
)
from fairsynth.fairness.paired import CeilingShare, Paired

AT = {"predictor": "transformer", "threshold": "half"}
LAMBDAS = {
    "real_only": Approach(lift=-0.9),
    "lambda=0": Approach(lift=-0.8),
    "lambda=0.5": Approach(lift=-0.3),
    "lambda=10": Approach(lift=1.5, overlook=1.5),
}


def saved(folder, cells):
    """The folders of `cells`, as the grid leaves them."""
    folders = []
    for cell in cells:
        axes = cell.axes
        place = folder / "cells" / axes.setting / f"r{axes.real}-s{axes.synthetic}" / f"seed-{axes.seed}"
        cell.save(place)
        folders.append(place)
    return folders


def lines(markdown):
    """The cells of each line of a table, heads first."""
    found = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    return [found[0], *found[2:]]


@pytest.fixture(scope="module")
def summary():
    return summarise(trials(seeds=3))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    out = tmp_path_factory.mktemp("published")
    cells = [*trials(seeds=3, synthetic=500), *trials(seeds=3)]
    found = publish(saved(out, cells), table="table1", command="fairsynth experiment table1 --setting a", out=out)
    return out, cells, found


# --- Markdown --------------------------------------------------------------------------------------------------------


def test_table_1_has_the_papers_columns_and_the_numbers_of_the_summary(summary):
    heads, first = lines(table1([summary], **AT))
    approaches = ("R", "R+Over", "R+Synth", "R+FairSynth")
    assert heads == [
        "real",
        "synthetic",
        *(f"{block}: {name}" for block in ("DI", "WTPR", "F1") for name in approaches),
    ]
    assert first[:2] == ["1,000", "2,500"]
    oversampled = summary.value("worst_tpr", approach="double_prioritised", **AT)
    assert first[heads.index("WTPR: R+Over")] == f"{oversampled.mean:.2f} ({oversampled.sd:.2f})"


def test_table_1_has_the_best_of_each_block_in_bold_and_counts_the_methods(summary):
    text = table1([summary], **AT)
    heads, first = lines(text)
    bold = {head for head, cell in zip(heads, first, strict=True) if cell.startswith("**")}
    assert bold == {"DI: R+FairSynth", "WTPR: R+FairSynth", "F1: R+FairSynth"}
    assert "best of the four in 2 of 2 cells" in text


def test_ratios_that_miss_one_on_both_sides_are_not_the_best_disparate_impact():
    cells = trials({"real_only": Approach(lift=-0.2), "fairsynth": Approach()}, seeds=4)
    for index, cell in enumerate(cells):  # flags twice as many of one side, then of the other: a mean near 1
        mine = cell.held_out[1]
        groups = [0] if index % 2 else [1, 2]
        mine[:, :, groups, 0, 199], mine[:, :, groups, 0, :199] = mine[:, :, groups, 0].sum(axis=-1), 0
    summary = summarise(cells)
    heads, first = lines(table1([summary], **AT))
    ours, theirs = (summary.value("disparate_impact", approach=name, **AT) for name in ("fairsynth", "real_only"))
    assert abs(np.log(ours.mean)) < 0.35
    assert theirs.mean < 1
    assert first[heads.index("DI: R")].startswith("**")
    assert not first[heads.index("DI: R+FairSynth")].startswith("**")


def test_rows_come_in_the_papers_order():
    rows = [
        summarise(trials(seeds=2, real=real, synthetic=number))
        for real, number in ((2500, 2500), (2500, 500), (1000, 2500))
    ]
    assert [line[:2] for line in lines(table1(rows, **AT))[1:]] == [
        ["1,000", "2,500"],
        ["2,500", "2,500"],
        ["2,500", "500"],
    ]


def test_an_approach_that_was_not_run_has_a_dash_and_is_not_the_best():
    only = summarise(trials({"fairsynth": Approach()}, seeds=2))
    heads, first = lines(table1([only], **AT))
    assert first[heads.index("F1: R")] == "-"
    assert first[heads.index("F1: R+FairSynth")].startswith("**")


def test_the_comparison_lists_every_approach_and_what_the_method_gains_over_it(summary):
    heads, *rest = lines(comparison(summary, **AT))
    assert [line[0] for line in rest][:2] == ["real only", "+ plain synthetic"]
    assert len(rest) == len(WINNING)
    gain = summary.contrast("worst_tpr", **AT).against["reweighing"]
    line = next(line for line in rest if line[0] == "reweighing")
    assert line[-1] == f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    assert line[1].endswith(" black")
    assert len(line) == len(heads)


def test_the_ablation_and_the_ceiling_say_what_the_summary_says(summary):
    _, *rest = lines(ablation(summary, predictor="transformer"))
    permuted = next(line for line in rest if "permuted" in line[0])
    assert permuted[2] == interval(summary.contrast("worst_tpr", **AT).against["permuted_groups"])
    _, *rest = lines(ceiling([summary]))
    assert len(rest) == 3
    assert rest[0][-2] == share(summary.ceilings[0].share)


def test_targets_show_status_number_and_limit(summary):
    _, *rest = lines(targets([summary]))
    line = next(line for line in rest if line[3] == "half" and line[4] == "share of the ceiling")
    assert (line[5], line[8]) == ("**met**", "0.8")


def test_table_2_has_a_column_for_each_lambda_upwards_and_the_recommended_in_bold():
    row = summarise(trials(LAMBDAS, seeds=3))
    heads, *rest = lines(table2([row], **AT))
    assert heads[3:] == ["lambda = 0", "lambda = 0.5", "lambda = 10"]
    assert [line[0] for line in rest] == ["DI", "WTPR", "F1"]
    assert all([cell.startswith("**") for cell in line[3:]] == [False, True, False] for line in rest)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (Paired(mean=None, sd=None, low=None, high=None, seeds=0), "-"),
        (Paired(mean=0.5, sd=None, low=None, high=None, seeds=1), "0.50, 1 of 3 seeds"),
        (Paired(mean=0.481, sd=0.07, low=0.4, high=0.6, seeds=3), "0.48 (0.07)"),
    ],
)
def test_a_number_says_on_how_many_seeds_it_is_defined(value, text):
    assert mean_sd(value, seeds=3) == text


def test_a_share_that_is_not_there_is_not_estimable_rather_than_zero():
    assert share(CeilingShare(share=None, low=None, high=None, seeds=3, reason="no room")) == "not estimable"
    assert share(CeilingShare(share=0.851, low=0.7, high=1.01, seeds=3)) == "85 % [70, 101]"
    assert interval(Paired(mean=0.12, sd=0.1, low=None, high=None, seeds=2)) == "+0.120"


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_page_names_its_command_its_patients_and_who_is_left_out(published):
    text = (published[0] / "table1-a.md").read_text(encoding="utf-8")
    assert "`fairsynth experiment table1 --setting a --seeds 3`" in text
    assert "3 seeds; 3,684 real held-out patients of 2 sites, 921 positives" in text
    assert "INSUFFICIENT (fewer than 30 held-out positives, mean over seeds), left out of every minimum: tiny" in text
    for heading in ("All approaches", "Global and site by site", "By group", "By site", "What was asked", "Charts"):
        assert f"## {heading}" in text
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    blocks = re.split(r"\n(?!\|)", text)
    tables = [[len(re.findall(r"(?<!\\)\|", line)) for line in one.splitlines() if line[:1] == "|"] for one in blocks]
    assert all(len(set(one)) <= 1 for one in tables)
    assert len(widths) > 50


def test_the_summary_has_the_same_keys_for_each_setting_predictor_row_and_threshold(published):
    found = json.loads((published[0] / "summary.json").read_text(encoding="utf-8"))
    rows = found["settings"]["a"]["transformer"]
    assert [(row["synthetic"], row["threshold"]) for row in rows] == [
        (500, "half"),
        (500, "tuned"),
        (2500, "half"),
        (2500, "tuned"),
    ]
    named = ("wtpr", "wtpr_gain_ci", "ceiling_share", "abs_log_di", "f1_change", "federated_minus_pooled")
    for row in rows:
        assert set(row) == {"real", "synthetic", "threshold", "seeds", *named}
        assert all({"low", "high", "seeds"} <= set(row[name]) for name in named)
    assert rows[0]["wtpr_gain_ci"]["baseline"] == "cell_balanced"


def test_headlines_are_the_numbers_of_the_summary(published):
    found = published[2].settings["a"]["transformer"][2]
    row = summarise(published[1][3:])
    assert found.wtpr == row.value("worst_tpr", approach="fairsynth", **AT)
    assert found.abs_log_di == row.value("abs_log_di", approach="fairsynth", **AT)
    assert found.f1_change == row.contrast("f1", **AT).against["real_only"]
    assert found.wtpr_gain_ci.low == row.contrast("worst_tpr", **AT).best["data_level"].gain.low
    assert found.ceiling_share == row.ceilings[0].share
    pooled = next(one for one in row.federation if (one.metric, one.threshold) == ("worst_tpr", "half"))
    assert found.federated_minus_pooled == pooled.minus_pooled


def test_the_details_are_the_whole_summaries(published):
    found = json.loads((published[0] / "table1-a.json").read_text(encoding="utf-8"))
    assert found[1] == json.loads(summarise(published[1][3:]).model_dump_json())


def test_the_long_table_has_every_seeds_number_in_its_place(published):
    out, cells, _ = published
    frame = pl.read_parquet(out / "table1-a.parquet")
    assert tuple(frame.columns) == COLUMNS
    assert not frame.select(COLUMNS[:-1]).is_duplicated().any()
    row = gather(cells[3:])
    everywhere = measure(row)
    one = {"synthetic": 2500, "seed": 2, "approach": "oracle", "predictor": "transformer"}
    worst = frame.filter(**one, scope="small", metric="worst_tpr", threshold="tuned")["value"]
    at = (2, row.approaches.index("oracle"), 0)
    assert worst.to_list() == pytest.approx([everywhere[2].overall["worst_tpr", "tuned"][at]])
    area = frame.filter(**one, scope="all sites", metric="auroc_within", threshold="none", group="black")["value"]
    assert area.to_list() == pytest.approx([everywhere[0].by_group["auroc_within", "none"][(*at, 1)]])


def test_undefined_numbers_are_null_and_absent_pairs_have_no_lines(tmp_path):
    both = ("transformer", "logistic_regression")
    approaches = {"fairsynth": Approach(overlook=9.0), "fedavg": Approach()}
    cells = trials(approaches, seeds=1, predictors=both, absent=[("fedavg", "logistic_regression")])
    publish(saved(tmp_path, cells), table="table1", command="", out=tmp_path)
    frame = pl.read_parquet(tmp_path / "table1-a.parquet")
    assert frame.filter(approach="fedavg")["predictor"].unique().to_list() == ["transformer"]
    assert frame.filter(approach="fairsynth", metric="disparate_impact")["value"].null_count() > 0
    assert not frame["value"].is_nan().any()


def test_another_setting_is_added_to_the_summary_and_another_table_has_its_own(tmp_path):
    cells = trials(seeds=2)
    first = publish(saved(tmp_path, cells), table="table1", command="", out=tmp_path)
    for cell in cells:
        object.__setattr__(cell, "axes", cell.axes.model_copy(update={"setting": "b"}))
    folders = saved(tmp_path, cells)
    publish(folders, table="table1", command="", out=tmp_path)
    both = Headlines.model_validate_json((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert both.settings["a"] == first.settings["a"]
    assert [row.setting for row in both.rows] == ["a", "b"]
    publish(folders, table="ceiling", command="", out=tmp_path)
    assert set(json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["settings"]) == {"b"}
    assert Headlines.model_validate_json((tmp_path / "summary-table1.json").read_text(encoding="utf-8")) == both
    publish(folders, table="table1", command="", out=tmp_path)
    again = Headlines.model_validate_json((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert (again.table, set(again.settings)) == ("table1", {"a", "b"})
    assert set(json.loads((tmp_path / "summary-ceiling.json").read_text(encoding="utf-8"))["settings"]) == {"b"}


def test_a_summary_of_another_version_is_refused_and_kept(tmp_path):
    (tmp_path / "summary.json").write_text('{"schema": "unknown"}', encoding="utf-8")
    with pytest.raises(ArtefactError, match="another version"):
        publish(saved(tmp_path, trials(seeds=1)), table="table1", command="", out=tmp_path)
    assert "unknown" in (tmp_path / "summary.json").read_text(encoding="utf-8")
    with pytest.raises(ArtefactError, match="no finished trial"):
        publish([], table="table1", command="", out=tmp_path)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command asks the grid for; the grid answers with trials of known truth."""
    calls = []

    def answer(table, **more):
        calls.append({"table": table, **more})
        for done in range(3):
            more["on_event"]({"event": "trials", "done": done, "of": 2} | ({"seed": done} if done else {}))
        cells = trials(seeds=2)
        for cell in cells:
            object.__setattr__(cell, "axes", cell.axes.model_copy(update={"setting": more["setting"]}))
        return saved(more["out"], cells)

    monkeypatch.setattr(grid, "run_grid", answer)
    return calls


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["experiment", *arguments])
    return stopped.value.code, capsys.readouterr()


def test_the_command_runs_the_table_and_prints_json_for_programs(asked, tmp_path, capsys):
    options = [
        "--setting",
        "a",
        "--seeds",
        "2",
        "--jobs",
        "1",
        "--out",
        str(tmp_path),
        "--data",
        "boston=/data",
        "--json",
    ]
    code, printed = said(capsys, "table1", *options)
    assert code == 0, printed.err
    assert json.loads(printed.out)["summary"]["settings"]["a"]["transformer"][0]["seeds"] == 2
    call = asked[0]
    assert (call["table"], call["setting"], call["seeds"], call["jobs"], call["rows"]) == ("table1", "a", 2, 1, None)
    assert call["study"].name == "evidence_a.yaml"
    assert call["study"].is_file()
    assert str(call["data"]["boston"]) == "/data"
    said_so = (tmp_path / "table1-a.md").read_text(encoding="utf-8")
    assert "Made by `fairsynth experiment table1 --setting a --seeds 2 --real 1000 --synthetic 2500`." in said_so


def test_the_command_prints_headlines_and_targets_for_people(asked, tmp_path, capsys):
    code, printed = said(
        capsys, "ceiling", "--setting", "a", "--real", "1000", "--synthetic", "2500", "--out", str(tmp_path)
    )
    assert code == 0, printed.err
    assert "minus the best baseline" in printed.out
    assert "targets: " in printed.out
    assert "1 of 2 trials" in printed.out
    assert [(size.real, size.synthetic) for size in asked[0]["rows"]] == [(1000, 2500)]
    assert "--real 1000 --synthetic 2500" in (tmp_path / "ceiling-a.md").read_text(encoding="utf-8")


def test_what_earlier_commands_left_in_the_folder_is_published_too(asked, tmp_path, capsys):
    earlier = trials(seeds=3)
    for cell in earlier:
        object.__setattr__(cell, "axes", cell.axes.model_copy(update={"synthetic": 500}))
    saved(tmp_path, earlier)
    (tmp_path / "cells/a/r1000-s500/seed-9").mkdir()  # never finished
    code, printed = said(capsys, "table1", "--setting", "a", "--seeds", "2", "--out", str(tmp_path), "--json")
    assert code == 0, printed.err
    found = json.loads(printed.out)["summary"]["settings"]["a"]["transformer"]
    assert {(one["synthetic"], one["seeds"]) for one in found} == {(2500, 2), (500, 3)}
    base = "fairsynth experiment table1 --setting a --seeds"
    made = f"`{base} 2 --real 1000 --synthetic 2500`, `{base} 3 --real 1000 --synthetic 500`"
    assert f"Made by {made}." in (tmp_path / "table1-a.md").read_text(encoding="utf-8")


def test_finished_trials_come_in_the_tables_order_and_others_after_them(tmp_path):
    places = ["r900-s10/seed-1", "r2500-s2500/seed-10", "r2500-s2500/seed-2", "r1000-s2500/seed-1", "r80-s10/seed-1"]
    for place in places:
        (tmp_path / "cells/a" / place / "cell").mkdir(parents=True)
    (tmp_path / "cells/a/ablation/r2500-s2500/seed-1/cell").mkdir(parents=True)
    found = [str(folder.relative_to(tmp_path / "cells/a")) for folder in finished("table1", setting="a", out=tmp_path)]
    assert found == [places[2], places[1], places[3], places[4], places[0]]
    assert len(finished("ablation", setting="a", out=tmp_path)) == 1
    assert finished("table2", setting="a", out=tmp_path) == []


def test_rows_with_the_same_seeds_share_a_command():
    row = summarise(trials(seeds=2))
    three = summarise(trials(seeds=3))
    rows = [three, row.model_copy(update={"synthetic": 500}), row.model_copy(update={"synthetic": 1000})]
    assert commands(rows, "run") == "`run --seeds 2`, `run --seeds 3 --real 1000 --synthetic 2500`"
    assert commands([three], "run") == "`run --seeds 3 --real 1000 --synthetic 2500`"


def test_quick_is_one_small_row_and_two_seeds(asked, tmp_path, capsys):
    code, _ = said(capsys, "table1", "--setting", "c", "--seeds", "9", "--quick", "--out", str(tmp_path))
    assert code == 0
    assert (asked[0]["seeds"], len(asked[0]["rows"])) == (2, 1)


def test_a_study_of_the_users_own_is_a_setting_with_its_name_and_is_in_the_command(asked, tmp_path, capsys):
    study = Path(__file__).resolve().parents[2] / "studies" / "evidence_small.yaml"
    code, printed = said(capsys, "table1", "--study", str(study), "--seeds", "2", "--out", str(tmp_path))
    assert code == 0, printed.err
    assert (asked[0]["setting"], asked[0]["study"]) == ("evidence-small", study)
    assert asked[0]["work"] == tmp_path / "pool" / "evidence-small"
    assert f"table1 --study {study} --seeds 2 --real" in (tmp_path / "table1-evidence-small.md").read_text(
        encoding="utf-8"
    )


def test_a_study_that_is_called_like_a_setting_is_refused(asked, tmp_path, capsys):
    study = tmp_path / "mine.yaml"
    shipped = Path(__file__).resolve().parents[2] / "studies" / "evidence_small.yaml"
    study.write_text(
        shipped.read_text(encoding="utf-8").replace("name: evidence-small", "name: opposite"), encoding="utf-8"
    )
    code, printed = said(capsys, "table1", "--study", str(study), "--out", str(tmp_path / "out"))
    assert code == 2
    assert "a name that is taken" in printed.err
    assert asked == []


@pytest.mark.parametrize("setting", list(Setting))
def test_every_setting_has_a_study_file_that_can_be_read(setting):
    config = read_study(_whose(setting, None)[1])
    assert config.name == f"evidence-{setting}"
    assert config.task.name in {"readmission_30d", "mortality_next_visit", "in_hospital_mortality"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--setting", "a", "--real", "100"], "FS-100 half a row: --real"),
        (["--setting", "a", "--synthetic", "100"], "FS-100 half a row: --synthetic"),
        (["--setting", "a", "--data", "nowhere"], "FS-100 bad option: --data nowhere"),
        (["--setting", "z"], "--setting"),
        ([], "FS-100 no setting: options"),
        (["--study", "nowhere.yaml"], "FS-100 missing file: nowhere.yaml"),
        (["--setting", "a", "--seeds", "0"], "--seeds"),
    ],
)
def test_wrong_options_are_told_before_any_trial(asked, options, message, capsys, tmp_path):
    code, printed = said(capsys, "table1", *options, "--out", str(tmp_path / "out"))
    assert code == 2
    assert message in printed.err
    assert asked == []


def test_the_page_of_lambdas_counts_no_targets_and_compares_with_no_baseline(tmp_path):
    publish(saved(tmp_path, trials(LAMBDAS, seeds=1)), table="table2", command="", out=tmp_path)
    page = (tmp_path / "table2-a.md").read_text(encoding="utf-8")
    assert "within one standard error of the best. One seed only" in page  # so there are charts
    assert " of 0" not in page
    assert "what was asked" not in page
    assert "\n1 seed;" in page
