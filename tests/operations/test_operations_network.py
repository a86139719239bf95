"""When a study among hospitals is begun, followed and begun anew, told without Flower."""

from __future__ import annotations

import pytest
from federation_toys import InProcess, toy_plan, toy_sites

from fairsynth.errors import EngineError
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
