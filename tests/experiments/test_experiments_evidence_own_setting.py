"""A setting of the user's own: crossed groups, another favourable outcome, several objectives, from tables to pages."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fairsynth.experiments.evidence import grid, steering, table2
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.experiments.evidence.cells import load_cell
from fairsynth.experiments.evidence.grid import Work
from fairsynth.experiments.evidence.pool import read_pool
from fairsynth.experiments.evidence.publish import publish

ROOT = Path(__file__).resolve().parents[2]
STUDY = f"""schema: fairsynth.study/1
name: mine
seed: 3
sites:
  - site: boston
    config: {ROOT}/site_configs/mimic3
    simulate: {{source: mimic3, patients: 450, seed: 1, mix: study, detail: 0.02}}
privacy: {{agreement: toys}}
groups:
  names: [white, black, hispanic, asian, other]
  reference: ["white:male"]
  cross: sex
task: {{name: in_hospital_mortality}}
objective:
  name: disparate_impact
  target: label
  favourable: negative
  also: [{{name: equal_opportunity, comparison: mean, share: 0.5}}]
vocabulary: {{minimum_patients: 8}}
generator: {{embedding: 8, layers: 1, heads: 2}}
training: {{rounds: 1, batch_size: 64}}
audit: {{predictors: [logistic_regression], minimum_positives: 1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def found(folder):
    """The folders of one small trial of Table 1 and one of Table 2, and what they publish."""
    study = folder / "mine.yaml"
    study.write_text(STUDY, encoding="utf-8")
    read_pool(study, work=folder / "pool")
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "Bench", partial(Bench, home_rounds=1))
        patch.setattr(table2, "LAMBDAS", (0.0, 1.2))
        patch.setattr(steering, "ROUNDS", 2)
        for table in ("table1", "table2"):
            work = Work(
                **{"setting": "mine", "study": study, "pool": folder / "pool", "data": {}, "seed": 1, "real": 130},
                **{"synthetic": (30,), "out": folder / "out", "table": table},
            )
            (folders[table],) = work.do()
    summaries = {
        table: publish([one], table=table, command="", out=folder / table, minimum_positives=10)
        for table, one in folders.items()
    }
    return folders, summaries


def test_every_trial_has_the_crossed_groups_and_the_outcome_that_does_a_patient_good(found):
    for one in found[0].values():
        axes = load_cell(one).axes
        assert len(axes.groups) == 10
        assert axes.reference == ("white:male",)
        assert axes.favourable == "negative"


def test_crossed_groups_with_too_few_positives_are_named_and_left_out(found, folder):
    cell = load_cell(found[0]["table1"])
    positives = cell.held_out[cell.axes.approaches.index("real_only"), 0].sum(axis=(0, 3))[:, 1]
    few = {group for group, number in zip(cell.axes.groups, positives, strict=True) if number < 10}
    assert 0 < len(few) < 10
    assert set(found[1]["table1"].rows[0].insufficient["all sites"]) == few
    assert f"left out of every minimum: {', '.join(name for name in cell.axes.groups if name in few)}" in (
        folder / "table1" / "table1-mine.md"
    ).read_text(encoding="utf-8")
    frame = pl.read_parquet(folder / "table1" / "table1-mine.parquet").filter(
        scope="all sites", approach="real_only", threshold="tuned"
    )
    by_group = dict(
        frame.filter(metric="tpr").filter(pl.col("group").is_not_null()).select("group", "value").iter_rows()
    )
    worst = frame.filter(metric="worst_tpr")["value"].item()
    assert worst == pytest.approx(min(rate for group, rate in by_group.items() if group not in few))


def test_disparate_impact_compares_the_shares_that_are_not_selected(found, folder):
    cell = load_cell(found[0]["table1"])
    counts = cell.held_out[cell.axes.approaches.index("cell_balanced"), 0, 0].sum(axis=1)  # (G, 200)
    spared, everyone = counts[:, :100].sum(axis=1), counts.sum(axis=1)
    base = np.array([name == "white:male" for name in cell.axes.groups])
    expected = (spared[~base].sum() / everyone[~base].sum()) / (spared[base].sum() / everyone[base].sum())
    details = json.loads((folder / "table1" / "table1-mine.json").read_text(encoding="utf-8"))
    asked = ("cell_balanced", "half")
    result = next(one for one in details[0]["scopes"][0]["results"] if (one["approach"], one["threshold"]) == asked)
    assert result["metrics"]["disparate_impact"]["mean"] == pytest.approx(expected)


def test_several_objectives_steer_the_generator_of_table_2(found):
    plain, steered = (load_cell(found[0]["table2"]).facts[f"nll/lambda={weight}"] for weight in ("0", "1.2"))
    assert len(plain) == len(steered)
    assert plain != steered
    assert all(np.isfinite(value) for value in (*plain, *steered))
    assert "lambda = 1.2" in (found[0]["table2"].parents[5] / "table2" / "table2-mine.md").read_text(encoding="utf-8")
