"""docs/provisioning.md: every command runs, in order, and prints what the document shows but for digits and dates."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from walk import FENCE, ROOT, walk

from fairsynth.config import PrivacyConfig
from fairsynth.federation.engine.processes import LOOPBACK, Workshop, free_ports, listens, wait_for
from fairsynth.provisioning.connection import read_server

sys.path.append(str(ROOT / "tests" / "governance"))
from governance_stories import a_plan

DOCUMENT = ROOT / "docs" / "provisioning.md"
AT = "## The SuperLink is told"
MASKS = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<64 digits>"),
    (re.compile(r"\b[0-9a-f]{16}\.\.\."), "<16 digits>..."),
    (re.compile(r"\b([0-9a-f]{4} ){7}[0-9a-f]{4}\b"), "<32 digits>"),
    (re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d)?"), "<date>"),
)


def walked(workshop: Workshop) -> str:
    """The document with what its commands print now, in the current folder; its port 8000 is a free one here."""
    (port,) = free_ports(1)
    before, after = DOCUMENT.read_text(encoding="utf-8").replace(":8000", f":{port}").split(AT)
    plan = a_plan(privacy=PrivacyConfig(agreement="DUA-2026-014"), roster=("boston", "lyon"), quorum=2)
    Path("plan.json").write_text(plan.model_dump_json(by_alias=True), encoding="utf-8")
    before = walk(before)
    server = read_server(Path("consortium").resolve())
    process = workshop.start(
        "flower-superlink",
        f"--ssl-ca-certfile={server.ca}",
        f"--ssl-certfile={server.certificate}",
        f"--ssl-keyfile={server.key}",
        "--enable-supernode-auth",
        f"--host={LOOPBACK}",
        f"--port={port}",
        f"--database={workshop.home / 'state.db'}",
        "--isolation=process",
        f"--superexec-auth-secret-file={server.superexec_secret}",
        log="superlink.log",
    )
    wait_for(lambda: listens(port), seconds=60, what="SuperLink", process=process)
    return (before + AT + walk(after)).replace(f":{port}", ":8000")


def masked(text: str) -> str:
    """`text` without what is another one in each consortium."""
    for pattern, mark in MASKS:
        text = pattern.sub(mark, text)
    return text


@pytest.mark.flower
def test_every_command_prints_what_the_document_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Workshop(threads=1) as workshop:
        assert masked(walked(workshop)) == masked(DOCUMENT.read_text(encoding="utf-8"))


def test_the_document_names_every_verb_in_a_command():
    from fairsynth.cli.verbs import load

    verbs = set(load("provision").commands)
    commands = "".join(block[3] for block in FENCE.finditer(DOCUMENT.read_text(encoding="utf-8")))
    assert set(re.findall(r"^\$ fairsynth provision (\w+)", commands, re.M)) == verbs


if __name__ == "__main__":  # write the outputs anew, from an empty folder
    with Workshop(threads=1) as one:
        DOCUMENT.write_text(walked(one), encoding="utf-8")
    sys.exit()
