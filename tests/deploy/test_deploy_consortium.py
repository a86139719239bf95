"""A consortium from nothing to a report, by commands alone: as its coordinator and the staff of its sites would do it.

The bare form with the proxy in front; every step is a command line, in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
import yaml
from bare import Bare, changed
from federation_real import ROOT, Local, make_sites, real_plan
from units import DEPLOY, PROGRAMS

from fairsynth.config import AuditConfig, PrivacyConfig, TrainingConfig
from fairsynth.federation.engine.processes import LOOPBACK, free_ports
from fairsynth.federation.journal import read, scan
from fairsynth.federation.masking.local import sign_here
from fairsynth.federation.rounds import run_study

pytestmark = [pytest.mark.flower, pytest.mark.slow]

SITES = ("site-a", "site-b")
PATIENCE = 900.0


def fairsynth(*arguments, cwd, code=0):
    """The output of a command of FairSynth's."""
    command = [PROGRAMS / "fairsynth", *arguments]
    done = subprocess.run([str(one) for one in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def study_file(plan):
    """The study file of `plan`, of sites that are elsewhere."""
    shared = plan.model_dump(mode="json", by_alias=True, exclude={"schema_", "roster", "quorum"})
    return {"schema": "fairsynth.study/1", "sites": [{"site": site} for site in plan.roster], **shared}


class Consortium:
    """A coordinator's desk, its server, and sites, all below one folder."""

    def __init__(self, root):
        self.desk = root / "desk"
        self.desk.mkdir()
        self.bare = Bare(host=root / "host")
        self.folders = {site: self.bare.site_folder(site) for site in SITES}

    def provision(self):
        server = {"host": LOOPBACK, "port": self.bare.port}
        consortium = {"schema": "fairsynth.consortium/1", "name": "lungs", "server": server}
        consortium["sites"] = [{"site": site} for site in SITES]
        (self.desk / "consortium.yaml").write_text(yaml.safe_dump(consortium))
        fairsynth("provision", "init", "consortium.yaml", "--out", "consortium", cwd=self.desk)
        for site, folder in self.folders.items():
            folder.chmod(0o700)
            kit, grant = f"consortium/kits/{site}.kit.json", f"consortium/grants/{site}.grant.json"
            fairsynth("provision", "request", kit, "--out", folder, cwd=self.desk)
            fairsynth("provision", "accept", "consortium", folder / "request.json", "--yes", cwd=self.desk)
            fairsynth("provision", "install", grant, folder, cwd=self.desk)
        shutil.rmtree(self.bare.keys)
        shutil.copytree(self.desk / "consortium" / "server", self.bare.keys)
        (self.desk / "public").mkdir()
        for name in ("server.json", "ca.crt"):
            shutil.copy(self.bare.keys / name, self.desk / "public")

    def start(self):
        self.bare.start_server()
        fairsynth("provision", "apply", "consortium", cwd=self.desk)  # by the proxy, with the password
        for site in SITES:
            values = {
                "FAIRSYNTH_SERVER": f"{LOOPBACK}:{self.bare.port}",
                "FAIRSYNTH_NODE_PORT": str(free_ports(1)[0]),
            }
            path = self.bare.etc / "sites" / f"{site}.env"
            path.parent.mkdir(exist_ok=True)
            path.write_text(changed((DEPLOY / "site" / "site.env").read_text(), values))
            self.bare.start_site(site)

    @property
    def superlink(self):
        return f"{LOOPBACK}:{self.bare.superlink_port}"

    def agree(self, plan):
        """The plan, written, approved and signed for by every site."""
        (self.desk / "study.yaml").write_text(yaml.safe_dump(study_file(plan)))
        fairsynth("plan", "study.yaml", "--out", "plan.json", cwd=self.desk)
        roster = ("roster", "new", "--plan", "plan.json", "--out", "roster.json", "--consortium", "consortium")
        fairsynth(*roster, cwd=self.desk)
        for folder in self.folders.values():
            officer = ("--officer", "Dr. A. Lee", "--yes")
            fairsynth("approve", folder, "--plan", "plan.json", *officer, cwd=self.desk)
            fairsynth("roster", "sign", folder, "roster.json", "--yes", cwd=self.desk)
        put = [word for folder in self.folders.values() for word in ("--put", folder)]
        fairsynth("roster", "check", "roster.json", "--plan", "plan.json", *put, cwd=self.desk)

    def study(self, *more):
        """`fairsynth study` as a process."""
        reach = ("--server", "public", "--address", self.superlink)
        command = [PROGRAMS / "fairsynth", "study", "plan.json", *reach, "--out", "run", *more]
        with (self.desk / "study.log").open("wb") as log:
            return subprocess.Popen([str(one) for one in command], cwd=self.desk, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory):
    """Two sites, online, whose study is agreed on; and the results of the same study in one process."""
    root = tmp_path_factory.mktemp("consortium")
    plan = real_plan(
        audit=AuditConfig(predictors=("logistic_regression",), seeds=1),
        privacy=PrivacyConfig(agreement="tests", minimum_contributing=1),
        training=TrainingConfig(rounds=2, local_epochs=1, batch_size=32, round_deadline_seconds=300),
    )
    rehearsal = make_sites(root / "rehearsal", plan)
    found = Consortium(root)
    for site, folder in rehearsal.items():
        shutil.copy(folder / "site.json", found.folders[site])
    sign_here(plan, rehearsal, server=root / "reference")
    run_study(Local(rehearsal), plan=plan, root=root / "reference")
    with found.bare:
        found.provision()
        found.start()
        found.agree(plan)
        yield found, root / "reference"


def results(server):
    names = ("generator-plain/weights.safetensors", "generator-fairsynth/weights.safetensors", "enrolment.json")
    audits = [path.relative_to(server).as_posix() for path in sorted((server / "audit").glob("*.safetensors"))]
    return {name: (server / name).read_bytes() for name in (*names, *audits)}


def test_the_doctor_finds_nothing_wrong_at_a_site(consortium):
    found, _ = consortium
    for site, folder in found.folders.items():
        port = (found.bare.etc / "sites" / f"{site}.env").read_text().strip().rpartition("=")[2]
        said = json.loads(fairsynth("doctor", folder, "--quick", "--supernode-port", port, "--json", cwd=found.desk))
        assert [finding for finding in said["findings"] if finding["state"] == "failed"] == []


@pytest.fixture(scope="module")
def followed(consortium):
    """The study, begun by one who was interrupted twice: as soon as it was submitted, and while the sites enrolled.

    What was told each time, with the exit code.
    """
    found, _ = consortium
    server, told = found.desk / "run" / "server", []
    following = found.study("--roster", "roster.json")
    until(lambda: (server / "flower.json").is_file(), following)
    for number in (signal.SIGINT, signal.SIGTERM):
        following.send_signal(number)
        code = following.wait(PATIENCE)
        told.append((code, (found.desk / "study.log").read_text().splitlines()[-1]))
        if number is signal.SIGINT:
            following = found.study("--resume")
            until(lambda: any(event["event"] == "study" for event in scan(server / "journal.jsonl").events), following)
            until(lambda: "starting Flower" in (found.desk / "study.log").read_text(), following)  # it follows by now
    return told


def test_whoever_follows_a_study_may_stop_and_is_told_how_to_follow_it_again(consortium, followed):
    found, _ = consortium
    again = f"fairsynth study plan.json --server public --out run --address {found.superlink} --resume"
    line = f"no longer followed; the study goes on at the server. Follow it again with: {again}"
    assert followed == [(130, line), (143, line)]
    assert [event["event"] for event in scan(found.desk / "run" / "server" / "journal.jsonl").events].count(
        "study"
    ) == 1


def test_a_study_whose_server_is_killed_goes_on_by_itself_to_the_results_of_one_that_never_stopped(
    consortium, followed
):
    found, reference = consortium
    journal = found.desk / "run" / "server" / "journal.jsonl"
    following = found.study("--resume")
    until(lambda: any(event["event"] == "round" for event in scan(journal).events), following)
    os.killpg(found.bare.process("fairsynth-superexec").pid, signal.SIGKILL)  # and the ServerApp, in its group
    found.bare.stop("fairsynth-superexec")
    found.bare.start("server", "fairsynth-superexec")
    assert following.wait(PATIENCE) == 0, (found.desk / "study.log").read_text()[-3000:]
    events = read(journal)
    assert [event["event"] for event in events].count("resumed") >= 1
    assert events[-1]["event"] == "finished"
    assert results(found.desk / "run" / "server") == results(reference)
    assert (found.desk / "run" / "report.html").is_file()


def test_a_finished_study_is_not_run_again(consortium):
    found, _ = consortium
    journal = found.desk / "run" / "server" / "journal.jsonl"
    before = journal.read_bytes()
    assert found.study("--resume").wait(PATIENCE) == 0
    assert found.study().wait(PATIENCE) == 2
    assert journal.read_bytes() == before


def test_no_file_of_the_server_or_the_desk_shows_the_password_to_others(consortium):
    found, _ = consortium
    secret = (found.desk / "consortium" / "server" / "control.secret").read_text().strip()
    files = [path for path in (*found.desk.rglob("*"), *found.bare.host.rglob("*")) if path.is_file()]
    holding = [path for path in files if secret.encode() in path.read_bytes()]
    assert {path.name for path in holding} >= {"control.secret", "config.toml"}
    assert [path for path in holding if path.stat().st_mode & 0o077] == []


def until(ready, process):
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None, "the study ended"
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_every_command_of_the_unit_files_is_what_ran(consortium):
    found, _ = consortium
    assert ROOT in DEPLOY.parents
    for name in ("fairsynth-superlink", "fairsynth-superexec", "fairsynth-proxy", "fairsynth-supernode@site-a"):
        assert found.bare.process(name).poll() is None
