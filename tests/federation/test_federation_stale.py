"""What a site was asked while it was away dies with the deadline: a real SuperLink, SuperNode and SuperExec."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from federation_toys import toy_plan

from fairsynth import artefacts, plain_json
from fairsynth.federation.engine import Site
from fairsynth.federation.engine import deployment as engine
from fairsynth.federation.engine.processes import LOOPBACK, Workshop, free_ports, listens, stop, wait_for
from fairsynth.federation.engine.study import SERVER_LOG, Job, submit
from fairsynth.provisioning.authority import create_authority, write_server

pytestmark = [pytest.mark.flower, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).with_name("stale_app")
SHORT, LONG = 5.0, 120.0  # seconds that the server waits for a site that is away, and for one that is there


class Link:
    """One server that asks on order, and one site; use as a context manager."""

    def __init__(self, root):
        self.app, self.server, self.site = root / "app", root / "server", root / "site-a"
        shutil.copytree(APP, self.app)
        shutil.copytree(ROOT / "server", self.app / "server", ignore=shutil.ignore_patterns("app.py", "__pycache__"))
        for folder in (self.server, self.site):
            folder.mkdir()
        self.room, self.orders = Workshop(threads=1), 0

    def __enter__(self):
        self.room.__enter__()
        port, self.port = free_ports(2)
        write_server(self.room.home, create_authority("Tests", days=7), names=[LOOPBACK], days=7)
        engine._start_superlink(self.room, port)
        site = Site(site="site-a", folder=self.site)
        engine._start_supernode(self.room, site, superlink=port, port=self.port)
        self.processes = {Path(one.args[0]).name: one for one in self.room._running}  # the last of each, the site's
        plan = toy_plan(roster=("site-a",), quorum=1)
        job = Job(
            app=self.app, plan_path=self.app, workdir=self.server, sites=(site,), on_event=lambda _: None, plan=plan
        )
        submit(self.room, job)
        return self

    def __exit__(self, *told):
        for log in (SERVER_LOG, "site-a.log"):
            print(self.room.log(log))
        self.room.__exit__(*told)

    def ask(self, *, wait, kept=None):
        """Who answered the next request."""
        done = self.server / f"done-{self.orders}.json"
        artefacts.write_json(self.server / f"order-{self.orders}.json", {"wait": wait, "kept": kept, "leave": False})
        self.orders += 1
        deadline = time.monotonic() + wait + LONG
        while not done.is_file():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return plain_json.read(done)

    @property
    def asked(self):
        """The requests of which the work began at the site."""
        return [int(number) for number in (self.site / "asked.txt").read_text().split()]

    def signal(self, program, number):
        os.killpg(self.processes[program].pid, number)

    def leave(self):
        """The site's SuperNode says good-bye and ends."""
        stop(self.processes["flower-supernode"])

    def return_(self):
        """The site's SuperNode starts again, and reaches the server."""
        supernode = self.room.start(*map(str, self.processes["flower-supernode"].args), log="site-a.log")
        wait_for(lambda: listens(self.port), seconds=LONG, what="SuperNode", process=supernode)


@pytest.fixture
def link(tmp_path):
    with Link(tmp_path) as link:
        assert link.ask(wait=LONG) == ["site-a"]
        yield link


def test_a_site_that_was_away_is_not_handed_what_it_was_asked_before_the_deadline_and_answers_the_next(link):
    link.signal("flower-supernode", signal.SIGSTOP)
    assert link.ask(wait=SHORT) == []
    link.signal("flower-supernode", signal.SIGCONT)
    assert link.ask(wait=LONG) == ["site-a"]
    assert link.asked == [0, 2]
    link.leave()
    assert link.ask(wait=SHORT) == []
    link.return_()
    while link.ask(wait=SHORT * 4) == []:
        assert link.orders < 10
    assert link.asked == [0, 2, link.orders - 1]


def test_a_message_that_outlived_the_wait_would_be_worked_on(link):
    """That the test above can fail."""
    link.signal("flower-supernode", signal.SIGSTOP)
    assert link.ask(wait=SHORT, kept=LONG) == []
    link.signal("flower-supernode", signal.SIGCONT)
    assert link.ask(wait=LONG) == ["site-a"]
    assert link.asked == [0, 1, 2]


def test_what_a_supernode_fetched_in_time_is_not_begun_late_either(link):
    link.signal("flower-superexec", signal.SIGSTOP)
    assert link.ask(wait=SHORT) == []
    link.signal("flower-superexec", signal.SIGCONT)
    assert link.ask(wait=LONG) == ["site-a"]
    assert link.asked == [0, 2]
    assert "too late: train" in (link.site / "refused.txt").read_text()
