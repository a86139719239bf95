"""activity.json: what a running study is doing, without a part in what it comes to."""

from __future__ import annotations

import json

import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from masked_toys import masked_plan, masked_sites
from resumed import Stopped, Stopping, digest

from fairsynth import artefacts
from fairsynth.errors import FairSynthError
from fairsynth.federation import activity
from fairsynth.federation.activity import Activity
from fairsynth.federation.logbook import Logbook
from fairsynth.federation.messages import Failed
from fairsynth.federation.rounds import run_study


class Slow:
    """Keeps what the activity says before each reply."""

    def __init__(self, transport, root):
        self.transport, self.root, self.seen = transport, root, []

    def ask(self, requests, *, timeout):
        for site, envelope in self.transport.ask(requests, timeout=timeout):
            self.seen.append(activity.read(self.root).asked)
            yield site, envelope


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    root = tmp_path_factory.mktemp("watched")
    plan = toy_plan()
    transport = Slow(InProcess(toy_sites(plan)), root)
    run_study(transport, plan=plan, root=root)
    return root, plan, transport


def test_while_replies_come_it_tells_who_is_waited_for(watched):
    _, plan, transport = watched
    first, second = transport.seen[:2]
    assert (first.phase, first.waiting, dict(first.answered)) == ("enrol", plan.roster, {})
    assert (second.waiting, set(second.answered)) == (plan.roster[1:], set(plan.roster[:1]))
    assert first.open
    assert first.at < first.deadline
    assert "train, arm fairsynth, round 2" in {one.phase for one in transport.seen}


def test_at_the_end_it_has_every_site_its_bytes_and_the_last_round(watched):
    root, plan, transport = watched
    now = activity.read(root)
    assert not now.asked.open
    assert (now.asked.phase, now.asked.waiting) == ("audit", ())
    assert (now.committed.arm, now.committed.round) == ("fairsynth", 2)
    exchanges = len(transport.seen) // len(plan.roster)
    assert {one.replies for one in now.sites.values()} == {exchanges}
    assert all(one.received_bytes > 1000 and one.sent_bytes > 1000 and one.last_seen for one in now.sites.values())


def test_bytes_are_those_of_fields_and_arrays(tmp_path):
    plan = toy_plan()
    request, reply = Failed(site="site-a", code="FS-402").pack(), Failed(site="site-a", code="FS-402").pack()
    book = Logbook(tmp_path / "server.log")
    found = Activity(tmp_path, plan=plan, log=book)
    found.asking({"site-a": request}, timeout=1.0)
    found.answered("site-a", reply)
    found.answered("site-a", reply)  # once
    found.answered("site-c", reply)  # not in the roster: no name that a node claims
    book.close()
    now = activity.read(tmp_path)
    assert set(now.sites) == set(plan.roster)
    assert (now.sites["site-a"].received_bytes, now.sites["site-a"].sent_bytes) == (len(reply.fields),) * 2
    assert (now.sites["site-a"].failures, now.asked.answered["site-a"].code) == (1, "FS-402")


def test_a_code_that_is_none_is_not_repeated(tmp_path):
    book = Logbook(tmp_path / "server.log")
    found = Activity(tmp_path, plan=toy_plan(), log=book)
    reply = Failed(site="site-a", code="FS-402").pack()
    spoilt = type(reply)(kind=reply.kind, fields=json.dumps({"site": "site-a", "code": "Canarycillin"}), arrays={})
    found.asking({"site-a": reply}, timeout=1.0)
    found.answered("site-a", spoilt)
    book.close()
    assert "Canarycillin" not in (tmp_path / "activity.json").read_text() + (tmp_path / "server.log").read_text()
    assert activity.read(tmp_path).asked.answered["site-a"].code == "FS-302"


def test_a_full_disk_there_is_no_error_and_changes_no_result(watched, tmp_path, monkeypatch):
    root, plan, _ = watched
    write = artefacts.write_text

    def full(path, text):
        if path.name == activity.NAME:
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(artefacts, "write_text", full)
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path)
    assert not (tmp_path / activity.NAME).exists()
    assert digest(tmp_path) == digest(root)


@pytest.mark.parametrize("left", ["", "{", '{"schema": "fairsynth.activity/9"}', "[1]"])
def test_a_damaged_one_does_not_keep_a_study_from_going_on(watched, tmp_path, left):
    root, plan, _ = watched
    with pytest.raises(Stopped):
        run_study(Stopping(InProcess(toy_sites(plan)), number=4, answered=True), plan=plan, root=tmp_path)
    (tmp_path / activity.NAME).write_text(left)
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path, resume=True)
    assert digest(tmp_path) == digest(root)
    assert activity.read(tmp_path).asked.phase == "audit"


def test_bytes_are_counted_on_when_a_study_is_resumed(tmp_path):
    plan = toy_plan()
    with pytest.raises(Stopped):
        run_study(Stopping(InProcess(toy_sites(plan)), number=4, answered=True), plan=plan, root=tmp_path)
    before = activity.read(tmp_path).sites["site-a"]
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path, resume=True)
    after = activity.read(tmp_path).sites["site-a"]
    assert 0 < before.replies < after.replies
    assert 0 < before.received_bytes < after.received_bytes


def test_a_masked_study_is_told_too(tmp_path):
    plan = masked_plan()
    run_study(InProcess(masked_sites(tmp_path, plan, toy_sites(plan))), plan=plan, root=tmp_path / "server")
    now = activity.read(tmp_path / "server")
    assert {one.failures for one in now.sites.values()} == {0}
    assert (now.asked.phase, set(now.asked.answered)) == ("audit", set(plan.roster))


def test_a_failed_study_says_who_was_waited_for_last(tmp_path):
    plan = toy_plan()
    sites = toy_sites(plan, b=lambda kind, envelope: None if kind == "agree" else envelope)
    with pytest.raises(FairSynthError):
        run_study(InProcess(sites), plan=plan, root=tmp_path)
    assert activity.read(tmp_path).asked.waiting == ("site-b",)
