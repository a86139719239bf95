import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.noise import EPSILONS, auroc, levels, table, table_by_group, table_of_nats

ROOT = Path(__file__).resolve().parents[2]
STORED = json.loads((ROOT / "docs" / "results" / "noise.json").read_text())


@pytest.mark.parametrize("make", [table, table_of_nats, table_by_group])
def test_the_page_shows_the_stored_figures(make):
    assert make(STORED["rows"]) in (ROOT / "docs" / "differential_privacy.md").read_text()


def test_every_study_was_charged_its_epsilon_and_no_more():
    charged = [row for row in STORED["rows"] if row["level"] != "exact"]
    assert {row["level"] for row in charged} == {f"epsilon {epsilon:g}" for epsilon in EPSILONS}
    for row in charged:
        assert 0.95 * float(row["level"].removeprefix("epsilon ")) < row["epsilon"] <= float(row["level"][8:])


def test_at_least_five_seeds_of_every_level_are_stored():
    for name, _ in levels():
        assert len({row["seed"] for row in STORED["rows"] if row["level"] == name}) >= 5


def test_auroc_of_a_histogram_is_that_of_its_scores():
    histogram = np.zeros((2, 2, 4), dtype=np.int64)
    histogram[0, 0, :2], histogram[1, 1, 2:] = 5, 5
    assert auroc(histogram) == 1.0
    assert auroc(histogram[:, ::-1]) == 0.0
