"""What the reports on our dependencies mean, and that a report which knows nothing is no pass."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from tools.supply_chain import SOUND, UNKNOWN, WRONG, audited, licensed, locked, narrowed, runtime

ROOT = Path(__file__).resolve().parents[2]
SOUND_ONE = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}


@pytest.mark.parametrize(
    ("packages", "code"),
    [([SOUND_ONE], SOUND), ([SOUND_ONE, SKIPPED], UNKNOWN), ([SKIPPED], UNKNOWN), ([SOUND_ONE, BAD, SKIPPED], WRONG)],
)
def test_a_package_that_could_not_be_looked_up_is_not_a_pass(packages, code):
    found, lines = audited({"dependencies": packages})
    assert found == code
    assert (code == UNKNOWN) == ("NO DATABASE REACHABLE" in lines[0])


@pytest.mark.parametrize(
    ("licence", "code"),
    [
        ("MIT", SOUND),
        ("BSD License; Public Domain", SOUND),
        ("Apache-2.0 WITH LLVM-exception", SOUND),
        ("GNU General Public License v3 (GPLv3)", WRONG),
        ("AGPL-3.0-or-later", WRONG),
        ("MIT AND GPL-2.0", WRONG),
        ("UNKNOWN", WRONG),
        ("Proprietary", WRONG),
    ],
)
def test_copyleft_and_unknown_licences_are_told(licence, code):
    assert licensed([{"Name": "a", "Version": "1", "License": licence}])[0] == code


def test_what_is_needed_to_run_holds_what_is_imported_and_nothing_of_development():
    found = runtime()
    assert found["torch"] == version("torch")
    assert {"numpy", "flwr", "cryptography", "fastapi", "uvicorn", "sqlalchemy", "ray"} <= set(
        found
    )  # flwr's are ours too
    assert not {"fairsynth", "pytest", "mypy", "ruff", "hypothesis", "import-linter"} & set(found)


def test_a_bill_of_materials_is_reduced_to_what_is_named():
    bill = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"name": "A_b", "bom-ref": "a"}, {"name": "pytest", "bom-ref": "p"}],
        "dependencies": [{"ref": "root", "dependsOn": ["a", "p"]}, {"ref": "p"}, {"ref": "a"}],
    }
    found = narrowed(bill, ["a-b"])
    assert [one["name"] for one in found["components"]] == ["A_b"]
    assert found["dependencies"] == [{"ref": "root", "dependsOn": ["a"]}, {"ref": "a", "dependsOn": []}]


def test_a_lock_has_the_hash_of_every_package_or_is_none():
    one = {
        "metadata": {"name": "A_b", "version": "1.0"},
        "download_info": {"archive_info": {"hashes": {"sha256": "ff"}}},
    }
    own = {"metadata": {"name": "fairsynth", "version": "0"}, "download_info": {"dir_info": {}}}
    assert locked({"install": [one, own]}) == (SOUND, ["a-b==1.0 --hash=sha256:ff"])
    assert locked({"install": [{**one, "download_info": {}}]}) == (WRONG, ["packages without a hash:", "a-b"])


def test_every_package_that_runs_is_pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines if "==" in line}
    assert sorted(set(runtime()) - pins) == []
