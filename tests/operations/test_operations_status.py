"""`fairsynth status`: a study that runs, one that stopped, failed or finished; a site."""

from __future__ import annotations

import json
import threading

import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from governed_toys import site_of
from resumed import Stopped, Stopping

from fairsynth.cli import main
from fairsynth.config import TrainingConfig
from fairsynth.errors import FairSynthError
from fairsynth.federation.messages import EnrolRequest
from fairsynth.federation.rounds import run_study
from fairsynth.operations.server_status import server_status
from fairsynth.operations.site_status import site_status

CLOSED_PORT = 1
COUNTS = ("soft", "hard", "members", "patients", "visits", "cells")


def said(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 0, printed.err
    return printed.out


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    plan = toy_plan()
    run_study(InProcess(toy_sites(plan)), plan=plan, root=root / "server")
    return root


class Waiting:
    """Answers as `transport`; at one exchange it waits until it is let go."""

    def __init__(self, transport, *, number):
        self.transport, self.left = transport, number
        self.reached, self.go = threading.Event(), threading.Event()

    def ask(self, requests, *, timeout):
        self.left -= 1
        if self.left == -1:
            self.reached.set()
            assert self.go.wait(60)
        return self.transport.ask(requests, timeout=timeout)


@pytest.fixture
def running(tmp_path):
    """A study in a thread, at its fifth exchange: two rounds are committed, the third is asked."""
    plan = toy_plan(training=TrainingConfig(rounds=3, local_epochs=1, round_deadline_seconds=60))
    transport = Waiting(InProcess(toy_sites(plan)), number=4)
    study = threading.Thread(target=run_study, args=(transport,), kwargs={"plan": plan, "root": tmp_path / "server"})
    study.start()
    assert transport.reached.wait(60)
    yield tmp_path
    transport.go.set()
    study.join(60)
    assert server_status(tmp_path / "server").state == "finished"


def test_of_a_running_study_it_tells_round_phase_and_who_is_waited_for(running):
    status = server_status(running / "server")
    assert (status.state, status.arm, status.rounds) == ("running", "plain", {"plain": 2, "fairsynth": 0})
    assert status.planned == {"plain": 4, "fairsynth": 4}
    assert status.phase == "train, arm plain, round 2"
    assert (status.answered, status.expected) == (0, 2)
    assert [one.waited_for for one in status.sites] == [True, True]
    assert status.deadline > status.asked > status.started
    assert status.seconds_left > 0
    assert status.loss > 0


def test_looking_does_not_disturb_it(running):
    for _ in range(200):
        server_status(running / "server")  # the fixture's end asserts that the study finished


def test_a_study_can_start_while_somebody_looks(tmp_path):
    plan, over = toy_plan(), threading.Event()

    def look():
        while not over.is_set():
            if (tmp_path / "plan.json").is_file():
                server_status(tmp_path)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(5):
            run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path)
    finally:
        over.set()
        watcher.join(60)
    assert server_status(tmp_path).state == "finished"


def test_of_a_finished_study_it_tells_the_last_losses_and_no_counts(finished, capsys):
    told = json.loads(said(capsys, "status", str(finished), "--json"))
    assert (told["schema"], told["kind"], told["state"]) == ("fairsynth.status/1", "server", "finished")
    assert told["rounds"] == told["planned"] == {"plain": 3, "fairsynth": 3}
    assert told["nll_validation"] > 0
    assert told["seconds_left"] is None
    assert (told["refused"], told["restarts"], told["epsilon"]) == (0, 0, None)
    assert not set(COUNTS) & set(told)
    assert told["disk_used"] > 10_000
    assert json.loads(said(capsys, "status", str(finished / "server"), "--json"))["study"] == "toy"


def test_a_stopped_study_counts_its_restarts_though_they_are_superseded(tmp_path):
    plan = toy_plan()
    for resume in (False, True, True):
        with pytest.raises(Stopped):
            run_study(
                Stopping(InProcess(toy_sites(plan)), number=1, answered=True), plan=plan, root=tmp_path, resume=resume
            )
    status = server_status(tmp_path)
    assert (status.state, status.restarts) == ("stopped", 2)
    assert not any(one.waited_for for one in status.sites)  # nobody waits any more


def test_a_failed_study_says_with_which_code_and_how_many_replies_were_refused(tmp_path, capsys):
    plan = toy_plan()
    sites = toy_sites(plan, b=lambda kind, envelope: None if kind == "agree" else envelope)
    with pytest.raises(FairSynthError):
        run_study(InProcess(sites), plan=plan, root=tmp_path)
    status = server_status(tmp_path)
    assert (status.state, status.code, status.refused) == ("failed", "FS-300", 1)
    assert "failed FS-300" in said(capsys, "status", str(tmp_path))


def test_it_shows_a_page_to_people(finished, capsys):
    page = said(capsys, "status", str(finished))
    for words in ("study toy", "finished", "site-a", "site-b", "L_F", "3 of 3", "free"):
        assert words in page


def test_watched_without_a_terminal_it_prints_a_line_a_change_and_ends_with_the_study(finished, capsys):
    (line,) = said(capsys, "status", str(finished), "--watch").splitlines()
    assert line.startswith("toy: finished; rounds plain 3/3, fairsynth 3/3; loss ")


def test_of_a_site_it_tells_study_ledger_budget_and_problems(tmp_path, capsys):
    plan = toy_plan()
    site = site_of(tmp_path, plan)
    site.approve()
    site.ask(EnrolRequest(plan=plan).pack())
    site.ask(EnrolRequest(plan=toy_plan(seed=8)).pack())  # not approved
    status = site_status(site.root, supernode_port=CLOSED_PORT)
    assert (status.site, status.ledger_entries, status.last_kind) == ("site-a", 3, "failed")
    assert status.ledger_head == site.lines[-1].hash
    assert status.ledger_fault is None
    assert (status.epsilon_spent, status.epsilon_limit) == (0.0, 10.0)
    assert not status.supernode
    assert [one.code for one in status.troubles] == ["FS-402"]
    assert status.restored is None
    page = said(capsys, "status", str(site.root), "--supernode-port", str(CLOSED_PORT))
    for words in ("site site-a", "3 lines", "FS-402", "not approved", "none runs here"):
        assert words in page
    assert json.loads(said(capsys, "status", str(site.root), "--json"))["kind"] == "site"


def test_an_altered_ledger_is_seen(tmp_path):
    site = site_of(tmp_path, toy_plan())
    site.approve()
    path = site.root / "ledger.jsonl"
    path.write_text(path.read_text().replace("Dr. A. Lee", "Dr. B. Lee"))
    assert "altered" in site_status(site.root, supernode_port=CLOSED_PORT).ledger_fault


def test_a_folder_that_is_none_is_refused_with_what_is_expected(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["status", str(tmp_path)])
    assert stopped.value.code == 2
    assert "FS-100 no folder of FairSynth" in capsys.readouterr().err


def test_a_plan_of_another_version_is_told_without_its_content(tmp_path, capsys):
    (tmp_path / "plan.json").write_text('{"name": "of one patient"}')
    with pytest.raises(SystemExit) as stopped:
        main(["status", str(tmp_path)])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "FS-600 plan that this version cannot read" in told
    assert "of one patient" not in told
