"""When a study among hospitals is begun, followed and begun anew, told without Flower."""

from __future__ import annotations

import signal

import pytest
from federation_toys import InProcess, toy_plan, toy_sites

from fairsynth import artefacts, plain_json
from fairsynth.errors import ConfigError, EngineError
from fairsynth.federation import journal
from fairsynth.federation.engine.study import Job, Tail
from fairsynth.federation.rounds import run_study
from fairsynth.operations import network


@pytest.fixture
def job(tmp_path):
    plan = toy_plan()
    return Job(
        app=tmp_path, plan_path=tmp_path / "p", workdir=tmp_path / "w", sites=(), on_event=lambda _: None, plan=plan
    )


def test_a_study_that_finished_while_flower_failed_is_not_begun_anew(job, monkeypatch):
    def follow(workshop, job, *, run, offset):
        run_study(InProcess(toy_sites(job.plan)), plan=job.plan, root=job.workdir)
        raise EngineError.of("flwr failed", where="flwr list")

    asked = []
    monkeypatch.setattr(network, "follow", follow)
    monkeypatch.setattr(network, "_submitted", lambda workshop, job: asked.append(job.resume) or "1")
    monkeypatch.setattr(network, "PAUSE_SECONDS", 0)
    network._persist(None, job, restarts=3)
    assert asked == [False]


def test_a_study_that_flower_gave_up_is_begun_again_with_an_attempt_of_its_own(job, monkeypatch):
    asked = []

    def follow(workshop, job, *, run, offset):
        job.workdir.mkdir(exist_ok=True)
        (job.workdir / "plan.json").touch()
        raise EngineError.of("the run ended", where="Flower")

    monkeypatch.setattr(network, "follow", follow)
    monkeypatch.setattr(network, "_submitted", lambda workshop, job: asked.append((job.resume, job.attempt)) or "1")
    monkeypatch.setattr(network, "PAUSE_SECONDS", 0)
    with pytest.raises(EngineError, match="the run ended"):
        network._persist(None, job, restarts=2)
    assert [resume for resume, _ in asked] == [False, True, True]
    assert len({attempt for _, attempt in asked}) == 3


def test_who_follows_a_study_that_runs_hears_its_events_from_now_on(job, monkeypatch):
    seen = []
    monkeypatch.setattr(network, "_taken", lambda job: "7")
    monkeypatch.setattr(network, "follow", lambda workshop, job, *, run, offset: seen.append((job.resume, run)))
    network._persist(None, job, restarts=2)
    assert seen == [(False, "7")]


def test_a_tail_with_an_attempt_begins_there_whatever_was_mended_before_it(tmp_path):
    path = tmp_path / journal.NAME
    lines = [{"event": "study"}, {"event": "failed", "code": "FS-300"}]
    path.write_bytes(b"".join(map(journal.text_of, lines)))
    tail = Tail(path=path, offset=10_000, attempt="0123abcd")  # the journal was longer before it was mended
    assert list(tail.new()) == []
    assert not tail.waits()
    more = [{"event": "resumed", "after": 1, "attempt": "0123abcd"}, {"event": "finished"}]
    with path.open("ab") as handle:
        handle.write(b"".join(map(journal.text_of, more)))
    assert list(tail.new()) == more
    assert list(tail.new()) == []


# --- whoever submitted it was interrupted ----------------------------------------------------------------------------


def test_a_run_that_was_submitted_and_is_still_starting_is_followed_and_not_submitted_again(job, monkeypatch):
    job.workdir.mkdir()
    artefacts.write_json(job.workdir / network.FLOWER, {"run": "7"})
    seen = []
    monkeypatch.setattr(network, "run_status", lambda workshop, run: ("starting", ""))
    monkeypatch.setattr(network, "follow", lambda workshop, job, *, run, offset: seen.append(run))
    monkeypatch.setattr(network, "submit", lambda workshop, job: pytest.fail("submitted again"))
    network._persist(None, job, restarts=0)
    assert seen == ["7"]


def test_a_run_that_ended_before_the_study_began_is_submitted_again_from_the_beginning(job, monkeypatch):
    job.workdir.mkdir()
    artefacts.write_json(job.workdir / network.FLOWER, {"run": "7"})
    seen = []
    monkeypatch.setattr(network, "run_status", lambda workshop, run: ("finished:failed", ""))
    monkeypatch.setattr(network, "follow", lambda workshop, job, *, run, offset: seen.append((run, job.resume)))
    monkeypatch.setattr(network, "submit", lambda workshop, job: "8")
    network._persist(None, job, restarts=0)
    assert seen == [("8", False)]
    assert plain_json.read(job.workdir / network.FLOWER) == {"run": "8"}


@pytest.fixture
def _interruptible():
    """Whoever started the tests may ignore SIGINT, as a shell's background jobs do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_in_the_midst_of_a_submission_waits_until_the_runs_number_is_kept(job, monkeypatch):
    job.workdir.mkdir()

    def submit(workshop, job):
        signal.raise_signal(signal.SIGINT)
        return "7"

    monkeypatch.setattr(network, "submit", submit)
    with pytest.raises(KeyboardInterrupt):
        network._submitted(None, job)
    assert plain_json.read(job.workdir / network.FLOWER) == {"run": "7"}


def test_a_study_that_was_submitted_is_not_begun_again_without_resume(tmp_path):
    artefacts.write_json(tmp_path / network.FLOWER, {"run": "7"})
    with pytest.raises(ConfigError, match="a study is here"):
        network._check_folder(tmp_path, resume=False)
    network._check_folder(tmp_path, resume=True)
