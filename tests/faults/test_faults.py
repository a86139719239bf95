"""Some of the faults, in minutes: `make faults` injects all of them (docs/faults.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def run(program: str, *options: str) -> list[dict]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / program), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def kept(lines: list[dict]) -> list[dict]:
    """The injections, none of which broke a promise."""
    found = [line for line in lines if "problems" in line]
    assert [line for line in found if line["problems"]] == []
    return found


@pytest.mark.parametrize("study", ["plain", "masked"])
def test_a_study_killed_at_any_of_its_writes_ends_the_same(study):
    found = kept(run("killing.py", "--study", study, "--points", "10", "--seed", "2"))
    assert [line["kills"] for line in found] == [1] * 10


@pytest.mark.slow
def test_a_study_killed_again_and_again_ends_the_same():
    found = kept(run("killing.py", "--study", "masked", "--points", "2", "--modes", "again", "--seed", "5"))
    assert sum(line["kills"] for line in found) > 5


def test_a_site_killed_while_it_answers_sends_the_same_bytes_and_the_server_lives():
    found = kept(run("killing.py", "--study", "masked", "--victim", "sites", "--points", "5", "--seed", "2"))
    assert [line["kills"] for line in found] == [1] * 5
    assert not any(line["restarts"] for line in found)


def test_a_real_site_killed_while_it_answers_has_a_sound_ledger_that_counts_once():
    found = kept(run("killing.py", "--study", "real", "--victim", "sites", "--points", "2", "--seed", "3"))
    assert [line["kills"] for line in found] == [1] * 2


@pytest.mark.parametrize(("case", "number"), [("F5", 4), ("F6", 14), ("F19", 2), ("F24", 3)])
def test_a_fault_of_a_folder_or_of_a_site_is_told_clearly_and_loses_nothing(case, number):
    if case == "F24" and os.geteuid() == 0 and not os.access(sys.executable, os.X_OK):
        pytest.skip("another user could not run this Python")
    assert len(kept(run("folders.py", "--case", case, "--number", str(number)))) >= number


def test_the_harness_finds_a_promise_that_is_broken(tmp_path):
    """A journal that does not wait for the disk, and is not mended, must be seen."""
    script = tmp_path / "broken.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "import killing\n"
        "from fairsynth.federation import desk\n"
        "desk._mend = lambda root, sound: None\n"
        "sys.argv = ['killing', '--study', 'plain', '--points', 'every:9', '--modes', 'torn']\n"
        "killing.main()\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(line.get("problems") for line in found)


@pytest.mark.slow
def test_an_export_or_a_gate_killed_at_its_writes_shows_nothing_half():
    kept(run("folders.py", "--case", "F23", "--number", "6"))


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.parametrize("case", ["server_process", "too_long"])
def test_a_deployment_that_breaks_ends_the_same(case):
    kept(run("networked.py", "--case", case))
