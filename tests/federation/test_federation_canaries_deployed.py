"""A real deployment: what its SuperLink has of the sites in messages, database, logs, files and memory."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from canaries import hits, patterns
from federation_real import ROOT, approve, make_sites, real_plan
from federation_toys import PLAIN
from safetensors.numpy import load_file

from fairsynth.config import PrivacyConfig
from fairsynth.federation.engine import Site, run_deployment
from fairsynth.federation.engine.processes import Workshop
from fairsynth.federation.engine.strays import processes_of
from fairsynth.federation.masking.local import sign_here
from fairsynth.visits.cohort import prepare

pytestmark = [pytest.mark.flower, pytest.mark.slow]

SERVERS = ("flower-superlink", "flwr-serverapp", "flower-superexec")
PART = 1 << 26  # bytes of memory at a time


class Watch:
    """Looks, at every event of a study, into the memory of the server's processes; at its end, into its files."""

    def __init__(self, workdir: Path) -> None:
        self.workdir, self.home = workdir, None
        self.wanted: dict[str, bytes] = {}
        self.found: list[str] = []
        self.looked: set[str] = set()

    def __call__(self, event) -> None:
        if event["event"] in {"agreed", "auditing", "audited"}:
            for pid, command in self.processes():
                self.look(command, ((f"memory of {command} at {event['event']}", part) for part in memory(pid)))
        if event["event"] == "finished":
            files = [path for folder in (self.home, self.workdir) for path in folder.rglob("*") if path.is_file()]
            for path in files:
                if path.is_relative_to(self.workdir) or not path.name.startswith("site-"):  # SuperNodes' logs and keys
                    self.look(path.name, [(f"file {path.name}", path.read_bytes())])

    def look(self, name: str, places) -> None:
        """Memory is searched part by part and not kept."""
        self.looked.add(name)
        self.found += hits(self.wanted, places)

    def processes(self):
        for pid in processes_of(self.home):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended
                continue
            named = next((name for name in SERVERS if name in command), None)
            if named and "--insecure" not in command:  # a site's processes speak to its SuperNode without TLS
                yield pid, named


def memory(pid: int):
    """The writable memory of a process, in parts."""
    folder = Path(f"/proc/{pid}")
    with (folder / "maps").open(encoding="ascii") as lines, (folder / "mem").open("rb", buffering=0) as handle:
        for line in lines:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if not found:
                continue
            start, end = (int(number, 16) for number in found.groups())
            while start < end:
                try:
                    handle.seek(start)
                    yield handle.read(min(PART, end - start))
                except OSError:
                    break
                start += PART


def secrets_of(folders, plan) -> dict[str, bytes]:
    """What one site knows: counts by group, held-out counts, its codes with their patients, the hash of its data."""
    wanted: dict[str, bytes] = {}
    proposed: dict[str, dict[str, int]] = {}
    for name, folder in folders.items():
        config = Path(json.loads((folder / "site.json").read_text())["config"])
        proposal = prepare(folder, config=config, plan=plan)
        arrays = {f"{name}: members": np.asarray(proposal.members, dtype=np.int64)}
        counts = load_file(folder / "audit" / "counts.safetensors")
        arrays |= {f"{name}: {key}": counts[key] for key in ("confusion", "code_visits")}
        wanted |= patterns({}, arrays)
        wanted[f"{name}: hash of its data"] = json.loads((folder / "events" / "manifest.json").read_text())[
            "content"
        ].encode()
        proposed[name] = {c: n for c, n in proposal.codes.items() if n >= plan.vocabulary.minimum_patients}
    for name, codes in proposed.items():  # of a code of one site alone the sum is open, without the site's name
        shared = {code: n for code, n in codes.items() if sum(code in other for other in proposed.values()) > 1}
        few = list(shared.items())[:8]  # a search of all memory takes its time
        wanted |= {f"{name}: {code}": f'"{code}":{patients},'.encode() for code, patients in few}
    return wanted


def deployed(root: Path, monkeypatch, *, privacy: PrivacyConfig) -> Watch:
    """Run the study twice: once to learn the sites' secrets, once to look for them."""
    roster = ("site-a", "site-b", "site-c")
    plan = real_plan(roster=roster, quorum=3, privacy=privacy)
    folders = make_sites(root, plan)
    approve(folders.values(), plan)
    (root / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    watch = Watch(root / "server")
    watch.workdir.mkdir()
    sites = [Site(site=name, folder=folder) for name, folder in folders.items()]
    if privacy.masked:
        sign_here(plan, folders, server=watch.workdir)
    run_deployment(ROOT, plan=root / "plan.json", workdir=watch.workdir, sites=sites)
    watch.wanted, watch.found = secrets_of(folders, plan), []
    enter = Workshop.__enter__

    def remember(workshop):
        enter(workshop)
        watch.home = workshop.home

    monkeypatch.setattr(Workshop, "__enter__", lambda workshop: remember(workshop) or workshop)
    run_deployment(ROOT, plan=root / "plan.json", workdir=watch.workdir, sites=sites, on_event=watch)
    assert len(watch.wanted) > 20
    assert {"flower-superlink", "state.db", "superlink.log", "journal.jsonl"} <= watch.looked
    return watch


@pytest.mark.skipif(os.geteuid() != 0, reason="reading another process's memory needs root")
def test_the_search_finds_the_sites_numbers_in_database_files_and_memory_of_a_plain_deployment(tmp_path, monkeypatch):
    watch = deployed(tmp_path, monkeypatch, privacy=PLAIN)
    for place in ("memory of flower-superlink", "file state.db", "file enrolment.json"):
        assert any(place in hit for hit in watch.found), place
    for secret in ("members", "confusion", "hash of its data"):
        assert any(f"site-b: {secret}" in hit for hit in watch.found), secret


@pytest.mark.skipif(os.geteuid() != 0, reason="reading another process's memory needs root")
def test_a_masked_deployment_has_none_of_the_sites_numbers_anywhere(tmp_path, monkeypatch):
    watch = deployed(tmp_path, monkeypatch, privacy=PrivacyConfig(minimum_group=1))
    assert watch.found == []
