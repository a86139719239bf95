from __future__ import annotations

import audit_toy as toy
import numpy as np

from benchmarks.boosting import CANDIDATES, drawn, ranking_lines, sizes_table
from fairsynth.audit.predictors import PREDICTORS

COHORT = toy.cohort(toy.draw([[100, 40], [60, 30]], seed=1))


def test_the_table_has_a_row_for_each_candidate_and_a_figure_for_each_size():
    heading, rule, *rows = sizes_table(COHORT, sizes=(60, 120), repeats=1)
    assert heading == "| training patients | 60 | 120 |"
    assert rule.count("---") == 3
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in CANDIDATES]
    losses = np.array([[float(cell.split()[0]) for cell in row.strip("| ").split(" | ")[1:]] for row in rows])
    assert losses.shape == (len(CANDIDATES), 2)
    assert (losses[:, 1] < losses[:, 0]).mean() > 0.5  # more patients teach more


def test_every_predictor_ranks_the_held_out_patients():
    lines = ranking_lines(COHORT, size=150, repeats=2)
    assert [line.split(":")[0] for line in lines] == list(PREDICTORS)
    assert all(0.5 < float(line.split()[2].strip(",")) <= 1 for line in lines)


def test_the_smaller_training_set_is_part_of_the_larger_and_another_repeat_is_another_set():
    small, large, other = (drawn(COHORT, patients=size, repeat=repeat) for size, repeat in ((9, 1), (30, 1), (9, 2)))
    assert np.array_equal(small.codes, large.codes[: len(small.codes)])
    assert not np.array_equal(small.codes, other.codes)
