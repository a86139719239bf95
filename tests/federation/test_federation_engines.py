"""Flower for real: both engines give the model that the same study gives in one process, and leave nothing behind."""

from __future__ import annotations

import datetime
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from federation_real import ROOT, Local, make_sites, real_plan

from fairsynth.config import AuditConfig, AugmentationConfig, TrainingConfig
from fairsynth.errors import ConfigError, EngineError, ProtocolError
from fairsynth.federation import activity
from fairsynth.federation.engine import Site, run_deployment, run_simulation
from fairsynth.federation.engine.processes import Workshop, free_ports, listens, wait_for
from fairsynth.federation.engine.strays import processes_of
from fairsynth.federation.engine.study import open_job, reason
from fairsynth.federation.guard import guarded
from fairsynth.federation.journal import read
from fairsynth.federation.rounds import run_study
from fairsynth.federation.site_folder import LOG

ARMS = ("plain", "fairsynth")


def models(server):
    return {arm: (server / f"generator-{arm}" / "weights.safetensors").read_bytes() for arm in ARMS}


def audits(server):
    folder = server / "audit"
    return {path.name: path.read_bytes() for path in (*sorted(folder.glob("*.safetensors")), folder / "changes.json")}


def in_one_process(root, **changes):
    """A study that ended under `root / "reference"`, and its sites, for an engine to run again."""
    plan = real_plan(audit=AuditConfig(predictors=("logistic_regression",), seeds=1), **changes)
    folders = make_sites(root, plan)
    (root / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    run_study(Local(folders), plan=plan, root=root / "reference")
    return root, [Site(site=name, folder=folder) for name, folder in folders.items()]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return in_one_process(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    """The same, begun primed, with a teacher and rounds at home."""
    return in_one_process(
        tmp_path_factory.mktemp("guided"),
        training=TrainingConfig(rounds=1, local_epochs=1, batch_size=32, round_deadline_seconds=300, primed=True),
        augmentation=AugmentationConfig(synthetic_patients=40, candidates="taught", home_rounds=1),
    )


@pytest.fixture
def homes(monkeypatch):
    """The Flower homes and ports that a run used; afterwards nothing of them may be left."""
    used = []
    enter = Workshop.__enter__

    def remember(workshop):
        enter(workshop)
        used.append(workshop.home)
        return workshop

    monkeypatch.setattr(Workshop, "__enter__", remember)
    yield used
    assert used
    for home in used:
        assert not home.exists()
        assert processes_of(home) == []


@pytest.mark.flower
@pytest.mark.parametrize("run", [run_simulation, run_deployment])
def test_an_engine_gives_the_same_models_and_counts_as_one_process_and_leaves_nothing_running(run, study, homes):
    root, sites = study
    workdir = root / run.__name__
    heard = []
    run(ROOT, plan=root / "plan.json", workdir=workdir, sites=sites, on_event=heard.append)
    assert models(workdir) == models(root / "reference")
    assert audits(workdir) == audits(root / "reference")
    assert heard[0]["event"] == "starting"
    assert heard[1:] == read(workdir / "journal.jsonl")
    assert heard[-1]["event"] == "finished"
    told, before = activity.read(workdir), activity.read(root / "reference")
    assert set(told.asked.answered) == {one.site for one in sites}
    for site, seen in told.sites.items():
        assert (seen.replies, seen.failures, seen.sent_bytes) == (1 + 1 + 2 * 2 + 1, 0, before.sites[site].sent_bytes)
        assert seen.last_seen


@pytest.mark.flower
@pytest.mark.parametrize("run", [run_simulation, pytest.param(run_deployment, marks=pytest.mark.slow)])
def test_an_engine_gives_the_same_teacher_guide_and_patients_as_one_process(run, guided, homes):
    root, sites = guided
    here = {one.site: (one.folder / "synthetic" / "fairsynth.safetensors").read_bytes() for one in sites}
    for one in sites:
        for name in ("synthetic", "candidates", "home", "audit"):
            shutil.rmtree(one.folder / name)
    workdir = root / run.__name__
    run(ROOT, plan=root / "plan.json", workdir=workdir, sites=sites)
    assert models(workdir) == models(root / "reference")
    assert audits(workdir) == audits(root / "reference")
    for name in ("guide.safetensors", "exclusive.json"):
        assert (workdir / "terms" / name).read_bytes() == (root / "reference" / "terms" / name).read_bytes()
    assert {one.site: (one.folder / "synthetic" / "fairsynth.safetensors").read_bytes() for one in sites} == here
    assert [event for event in read(workdir / "journal.jsonl") if event["event"] == "refused"] == []


def sites_without_configuration(root, plan):
    (root / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    sites = []
    for name in plan.roster:
        (root / name).mkdir()
        values = {"site": name, "config": str(root / "nowhere"), "data": str(root)}
        (root / name / "site.json").write_text(json.dumps(values))
        sites.append(Site(site=name, folder=root / name))
    return sites


@pytest.mark.flower
@pytest.mark.slow
def test_a_site_with_bad_input_ends_a_flower_run_with_its_own_message(tmp_path, homes):
    sites = sites_without_configuration(tmp_path, real_plan())
    with pytest.raises(ConfigError, match=r"missing file: site site-a: .*site\.yaml"):
        run_simulation(ROOT, plan=tmp_path / "plan.json", workdir=tmp_path / "server", sites=sites)


@pytest.mark.flower
@pytest.mark.slow
def test_a_server_that_breaks_ends_the_run_with_an_engine_error_that_says_why(tmp_path, homes):
    sites = sites_without_configuration(tmp_path, real_plan())
    plan = tmp_path / "plan.json"
    with pytest.raises(EngineError, match="finished:failed") as caught:
        run_simulation(ROOT, plan=plan, workdir=tmp_path / "server", sites=sites, on_event=lambda _: plan.unlink())
    assert "No such file" in str(caught.value)


# --- why a study failed, without Flower ------------------------------------------------------------------------------


def failed_study(root):
    """A study whose sites fail at enrolment, in this process: its job, and the journal's last event."""
    plan = real_plan()
    sites = sites_without_configuration(root, plan)
    job = open_job(ROOT, plan=root / "plan.json", workdir=root / "server", sites=sites, on_event=lambda _: None)
    with pytest.raises(ProtocolError):
        run_study(Local({one.site: one.folder for one in sites}), plan=plan, root=root / "server")
    return job, read(root / "server" / "journal.jsonl")[-1]


def test_bad_input_at_a_site_is_told_as_the_site_would_tell_it(tmp_path):
    error = reason(*failed_study(tmp_path))
    assert isinstance(error, ConfigError)
    assert error.exit_code == 2
    assert "missing file: site site-a: " in str(error)


def test_a_fault_of_the_program_at_a_site_is_an_engine_error_with_its_place_and_no_text(tmp_path):
    job, event = failed_study(tmp_path)
    for one in job.sites:
        (one.folder / LOG).unlink()

    def fault(root):
        raise KeyError("CANARY patient 17")

    guarded(lambda: job.sites[1].folder, fault, phase="enrol")
    error = reason(job, event)
    assert isinstance(error, EngineError)
    assert "site site-b failed: KeyError" in str(error)
    assert "test_federation_engines.py" in str(error)
    assert "CANARY" not in str(error)


def test_without_a_reason_of_a_site_the_servers_own_is_told(tmp_path):
    job, event = failed_study(tmp_path)
    for one in job.sites:
        (one.folder / LOG).unlink()
    error = reason(job, event)
    assert isinstance(error, ProtocolError)
    assert "0 of 2 sites: enrol; site-a: FS-100" in str(error)


def test_an_earlier_runs_reasons_are_not_told_again(tmp_path):
    job, event = failed_study(tmp_path)
    later = replace(job, started=job.started + datetime.timedelta(hours=1))
    assert isinstance(reason(later, event), ProtocolError)


@pytest.mark.parametrize("candidates, teaching", [("prefix", 0), ("taught", 100 + 4 * 4)])
def test_a_study_is_given_up_only_after_every_request_could_have_waited_to_its_deadline(tmp_path, candidates, teaching):
    plan = real_plan(augmentation=AugmentationConfig(candidates=candidates))
    sites = sites_without_configuration(tmp_path, plan)
    job = open_job(ROOT, plan=tmp_path / "plan.json", workdir=tmp_path, sites=sites, on_event=lambda _: None)
    # enrol and audit wait four deadlines, agree two, both arms one for their round and for the last measurement
    assert job.seconds == 300 + 300 * (4 + 2 + 2 * 2 + 4 + teaching)


def test_sites_that_are_not_the_roster_are_refused_before_anything_starts(tmp_path):
    (tmp_path / "plan.json").write_text(real_plan().model_dump_json(by_alias=True))
    with pytest.raises(ConfigError, match="not the plan's roster"):
        run_simulation(ROOT, plan=tmp_path / "plan.json", workdir=tmp_path, sites=[Site(site="a", folder=tmp_path)])


# --- processes, without Flower ---------------------------------------------------------------------------------------

STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); time.sleep(60)"
DAEMON = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(60)"


@pytest.mark.parametrize("program", [STUBBORN, DAEMON])
def test_processes_that_will_not_go_are_gone_when_the_block_ends(program, monkeypatch):
    monkeypatch.setattr("fairsynth.federation.engine.processes.STOP_SECONDS", 0.2)
    with Workshop(threads=1) as workshop:
        workshop.start(sys.executable, "-c", program, log="log")
        deadline = time.monotonic() + 20
        while not processes_of(workshop.home) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        assert processes_of(workshop.home)
        home = workshop.home
    assert processes_of(home) == []
    assert not home.exists()


def test_a_termination_signal_stops_what_was_started(tmp_path):
    script = f"""
        import sys, time
        from pathlib import Path
        from fairsynth.federation.engine.processes import Workshop
        with Workshop(threads=1) as workshop:
            workshop.start(sys.executable, "-c", "import time; time.sleep(60)", log="log")
            Path({str(tmp_path / "home")!r}).write_text(str(workshop.home))
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    while not (tmp_path / "home").is_file() or not (tmp_path / "home").read_text():
        time.sleep(0.05)
    home = Path((tmp_path / "home").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert processes_of(home) == []
    assert not home.exists()


def test_the_environment_of_the_processes_is_free_of_the_users_flower_and_python_settings(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("FLWR_HOME", "/elsewhere")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    for name in ("HTTPS_PROXY", "https_proxy", "no_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "elsewhere:3128")
    with Workshop(threads=3) as workshop:
        environment = workshop.environment
        assert environment["FLWR_HOME"] == str(workshop.home)
        assert environment["OMP_NUM_THREADS"] == "3"
        assert environment["FLWR_TELEMETRY_ENABLED"] == environment["RAY_USAGE_STATS_ENABLED"] == "0"
        assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
        assert "PYTHONPATH" not in environment
        assert "RAY_ADDRESS" not in environment
        assert "elsewhere:3128" not in environment.values()


def test_a_program_that_fails_or_hangs_is_an_engine_error():
    with Workshop(threads=1) as workshop:
        with pytest.raises(EngineError, match="boom"):
            workshop.call(sys.executable, "-c", "raise SystemExit('boom')")
        with pytest.raises(EngineError, match="longer than"):
            workshop.call(sys.executable, "-c", "import time; time.sleep(30)", seconds=0.3)


def test_waiting_ends_when_the_process_ends_or_the_time_is_up():
    with Workshop(threads=1) as workshop:
        gone = workshop.start(sys.executable, "-c", "", log="log")
        with pytest.raises(EngineError, match="ended while starting"):
            wait_for(lambda: False, seconds=20, what="it", process=gone)
        there = workshop.start(sys.executable, "-c", "import time; time.sleep(30)", log="log")
        with pytest.raises(EngineError, match="did not start"):
            wait_for(lambda: False, seconds=0.3, what="it", process=there)


def test_free_ports_are_different_and_free():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert not any(listens(port) for port in ports)
