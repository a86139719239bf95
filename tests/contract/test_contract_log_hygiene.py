"""The search of the whole session (`tests/conftest.py`) finds what it is for: it is run here on careless tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from canary_words import WORDS, heard

TESTS = Path(__file__).resolve().parents[1]
CARELESS = """
import logging, sys
from fairsynth.federation.engine.processes import Workshop

def test_prints(): print("row: Canarycillin")
def test_prints_an_error(): print("row: Canarycillin", file=sys.stderr)
def test_logs(): logging.getLogger("fairsynth").warning("row: %s", "Canarycillin")
def test_is_careful(): print("row 7 of PRESCRIPTIONS.csv")
def test_of_flower():
    with Workshop(threads=1) as workshop:
        (workshop.home / "site-a.log").write_text("row: Canarycillin")
def test_writes(tmp_path): (tmp_path / "site.log").write_text("row: Canarycillin")
"""


@pytest.fixture(scope="module")
def told() -> str:
    """What pytest says of careless tests; their files lie where the search of this session does not look."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("conftest.py", "canary_words.py"):
            shutil.copy(TESTS / file, folder)
        (folder / "test_careless.py").write_text(CARELESS)
        command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--basetemp", str(folder / "base")]
        done = subprocess.run([*command, str(folder)], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        return done.stdout


@pytest.mark.parametrize("name", ["prints", "prints_an_error", "logs"])
def test_a_test_that_prints_or_logs_a_canary_fails(told, name):
    assert f"FAILED test_careless.py::test_{name}" in told
    assert f"test_careless.py::test_{name}, call: printed or logged Canarycillin" in told


def test_a_test_that_does_not_passes(told):
    assert "PASSED test_careless.py::test_is_careful" in told


def test_a_log_file_with_a_canary_fails_the_session(told):
    found = re.findall(r"Canarycillin in \S+/(\S+\.log)", told)
    assert set(found) == {"site.log", "site-a.log"}
    assert "ERROR test_careless.py::test_writes" in told  # at the end of the last test


def test_every_canary_of_every_test_is_one_that_the_search_knows():
    named = re.compile(r"^CANARY\w* = \"(.+)\"$", re.MULTILINE)
    canaries = {word for path in TESTS.rglob("*.py") for word in named.findall(path.read_text(encoding="utf-8"))}
    assert len(canaries) >= 3
    assert [word for word in canaries if not heard(word)] == []
    assert all(len(word) >= 8 for word in WORDS)  # shorter ones stand in hashes by chance
