"""The journal of gate runs: counted before, limited, whole."""

import json
import multiprocessing

import pytest

from fairsynth.errors import ArtefactError, ReleaseBlocked
from fairsynth.synthesis.release import runs

A, B = "a" * 64, "b" * 64


def test_the_fourth_run_of_a_generator_is_refused_and_another_generator_has_its_own(tmp_path):
    assert [runs.begin(tmp_path, generator=A, candidate=str(n)) for n in range(3)] == [1, 2, 3]
    with pytest.raises(ReleaseBlocked, match="FS-500 this generator was before the gate 3 times"):
        runs.begin(tmp_path, generator=A, candidate="another seed")
    assert runs.begin(tmp_path, generator=B, candidate="0") == 1
    assert [line["number"] for line in runs.read(tmp_path)] == [1, 2, 3, 1]


def test_what_else_is_recorded_is_no_run(tmp_path):
    runs.begin(tmp_path, generator=A, candidate="0")
    runs.record(tmp_path, "verdict", generator=A, outcome="FAIL")
    runs.record(tmp_path, "export", generator=A, officer="A. Officer")
    assert runs.begin(tmp_path, generator=A, candidate="0") == 2


def test_a_line_that_was_cut_off_by_a_crash_is_no_line(tmp_path):
    runs.begin(tmp_path, generator=A, candidate="0")
    with (tmp_path / runs.JOURNAL).open("a", encoding="utf-8") as handle:
        handle.write('{"event": "run", "gener')
    assert len(runs.read(tmp_path)) == 1
    assert runs.begin(tmp_path, generator=A, candidate="0") == 2
    assert [json.loads(line)["number"] for line in (tmp_path / runs.JOURNAL).read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("line", ["no JSON", "[]", "3", '{"event": "run"}'])
def test_a_damaged_journal_refuses_instead_of_counting_from_one(tmp_path, line):
    (tmp_path / runs.JOURNAL).write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ArtefactError, match="damaged journal"):
        runs.begin(tmp_path, generator=A, candidate="0")


def _begin(root):
    try:
        return runs.begin(root, generator=A, candidate="0")
    except ReleaseBlocked:
        return 0


def test_processes_that_begin_together_have_three_runs_between_them(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        numbers = pool.map(_begin, [tmp_path] * 8)
    assert sorted(numbers) == [0] * 5 + [1, 2, 3]
