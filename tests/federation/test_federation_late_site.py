"""A third site joins two that have run a masked study: a new plan, a roster of a new epoch, signed by all, by commands.

Real sites, each behind its own policy, approval and ledger; each keeps the one folder that it has.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from federation_real import Local, make_sites, real_plan

from fairsynth.cli import main
from fairsynth.config import PrivacyConfig, StudyPlan
from fairsynth.federation.masking.masks import Label
from fairsynth.federation.masking.roster import read_roster
from fairsynth.federation.messages import Failed, JoinReply, JoinRequest, SealedReply
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study
from fairsynth.governance import ledger
from fairsynth.governance.identity import PUBLIC, create_identity

FIRST, ALL = ("site-a", "site-b"), ("site-a", "site-b", "site-c")
SHARED = PrivacyConfig(agreement="tests", minimum_contributing=1)  # of two sites; the third changes nothing else


FIRST_PLAN = real_plan(name="first", roster=FIRST, quorum=2, privacy=SHARED)
NEXT_PLAN = real_plan(name="next", roster=ALL, quorum=3, privacy=SHARED)
pytestmark = pytest.mark.slow


class Sites(Local):
    """Sites whose officers have approved by command: to ask them approves nothing."""

    def __init__(self, folders):
        super().__init__(folders)
        self.approved = [(name, plan) for name in folders for plan in (FIRST_PLAN, NEXT_PLAN)]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that ended: what its sites sent, and what was there when it had ended."""

    plan: StudyPlan
    server: Path
    replies: list

    @property
    def labels(self) -> set[str]:
        """Of every masked vector that left a site."""
        sealed = [(SealedReply.unpack(one), one) for one in self.replies if one.kind == SealedReply.kind]
        return {
            Label(
                run=body.run,
                epoch=body.epoch,
                purpose=body.purpose,
                schema_sha256=body.schema_sha256,
                length=len(one.arrays["masked"]),
            ).text
            for body, one in sealed
        }

    @property
    def keys(self) -> set[str]:
        """The sites' keys of its run."""
        return {JoinReply.unpack(one).key.public_key for one in self.replies if one.kind == JoinReply.kind}


def command(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0


def ran(root, plan, folders, *, epoch):
    """The study of `plan`, agreed on by commands."""
    papers = root / plan.name
    papers.mkdir()
    server = papers / "server"
    server.mkdir()
    path, roster = papers / "plan.json", papers / "roster.json"
    path.write_text(plan.model_dump_json(by_alias=True))
    keys = [f"{site}={folder / PUBLIC}" for site, folder in folders.items()]
    command("roster", "new", *keys, "--plan", path, "--out", roster, "--epoch", epoch)
    for folder in folders.values():
        command("approve", folder, "--plan", path, "--officer", "Dr. A. Lee", "--yes")
        command("roster", "sign", folder, roster, "--yes")
    put = [word for folder in (*folders.values(), server) for word in ("--put", folder)]
    command("roster", "check", roster, "--plan", path, *put)
    sites = Sites(folders)
    run_study(sites, plan=plan, root=server)
    return Study(plan=plan, server=server, replies=sites.replies)


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Both, one after the other; of the first, its folder and the two sites' ledgers as they were before the second."""
    root = tmp_path_factory.mktemp("late")
    folders = make_sites(root, NEXT_PLAN)
    for folder in folders.values():
        create_identity(folder)
    first = ran(root, FIRST_PLAN, {site: folders[site] for site in FIRST}, epoch=0)
    before = {
        "server": digests(root / "first"),
        **{site: (folders[site] / "ledger.jsonl").read_bytes() for site in FIRST},
        "identities": [(folders[site] / PUBLIC).read_bytes() for site in FIRST],
    }
    following = ran(root, NEXT_PLAN, folders, epoch=1)
    return first, following, folders, before


def test_the_new_study_is_of_all_three_and_ends(studies):
    first, following, folders, _ = studies
    for study in (first, following):
        assert (study.server / "generator-fairsynth").is_dir()
    assert read_roster(following.server).roster.sites == ALL
    assert (read_roster(following.server).roster.epoch, read_roster(first.server).roster.epoch) == (1, 0)
    assert [ledger.find_fault(folder) for folder in folders.values()] == [None] * 3


def test_no_label_and_no_key_of_the_first_is_in_the_second(studies):
    first, following, _, _ = studies
    assert len(first.labels) == len(following.labels) > 5  # the same requests, of as many phases
    assert not first.labels & following.labels
    assert (len(first.keys), len(following.keys)) == (2, 3)
    assert not first.keys & following.keys


def test_what_the_first_left_is_as_it_was(studies):
    first, _, folders, before = studies
    assert digests(first.server.parent) == before["server"]
    for site in FIRST:
        assert (folders[site] / "ledger.jsonl").read_bytes().startswith(before[site])
        assert (folders[site] / "approvals" / f"{plan_sha256(FIRST_PLAN)}.json").is_file()
    assert [(folders[site] / PUBLIC).read_bytes() for site in FIRST] == before["identities"]


def test_the_first_study_cannot_be_gone_on_with_at_its_sites(studies):
    first, _, folders, _ = studies
    run = SealedReply.unpack(next(one for one in first.replies if one.kind == SealedReply.kind)).run
    request = JoinRequest(plan=first.plan, run=run, epoch=0).pack()
    replies = Sites(folders).ask(dict.fromkeys(FIRST, request), timeout=1)
    assert {site: Failed.unpack(reply).code for site, reply in replies.items()} == dict.fromkeys(FIRST, "FS-300")
