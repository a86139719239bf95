"""A study that is told to stop: what it started ends, one line says how to go on, and it does, to the same bytes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from fairsynth.cli import demo as demo_command
from fairsynth.cli import main
from fairsynth.cli import study as study_command
from fairsynth.cli.stopping import how_to_follow, how_to_resume
from fairsynth.experiments.study import Engine, Reached
from fairsynth.federation.journal import scan
from fairsynth.federation.server_folder import is_taken

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0
STUDY = """schema: fairsynth.study/1
name: small
seed: 11
sites:
  - site: boston
    config: {configs}/mimic3
    simulate: {{source: mimic3, patients: 300, seed: 1, mix: study, detail: 0.02}}
  - site: lyon
    config: {configs}/mimic3
    simulate: {{source: mimic3, patients: 260, seed: 2, mix: study, detail: 0.02}}
groups: {{names: [white, black, hispanic, asian, other], reference: [white]}}
privacy: {{agreement: simulated patients, minimum_contributing: 1, minimum_group: 1}}
split: {{train: 0.5, validation: 0.2, held_out: 0.3}}
generator: {{embedding: 16, layers: 1, heads: 2, maximum_visits: 6}}
training: {{rounds: 4, local_epochs: 1}}
augmentation: {{synthetic_patients: 40}}
audit: {{seeds: 1, predictors: [logistic_regression], bootstrap_replicates: 100}}
"""


# --- the line, without Flower ----------------------------------------------------------------------------------------


def begun(folder):
    (folder / "server").mkdir(parents=True)
    (folder / "server" / "plan.json").touch()
    return folder


@pytest.mark.parametrize(("engine", "more"), [(Engine.simulation, []), (Engine.deployment, ["--engine", "deployment"])])
def test_the_line_names_a_command_that_goes_on(engine, more, tmp_path):
    out = begun(tmp_path / "a run")
    line = how_to_resume(Path("my study.yaml"), out=out, engine=engine)
    said, _, command = line.partition(" Go on with: ")
    assert said == "stopped; committed rounds are kept."
    assert shlex.split(command) == ["fairsynth", "study", "my study.yaml", "--out", str(out), *more, "--resume"]


def test_before_the_study_began_there_is_nothing_to_resume_and_the_line_says_so(tmp_path):
    line = how_to_resume(Path("study.yaml"), out=tmp_path, engine=Engine.simulation)
    assert line == "stopped before the study began; the same command starts it"


def test_whoever_followed_a_study_among_hospitals_is_told_whether_it_goes_on(tmp_path, monkeypatch):
    reached = Reached(server=Path("folder"), address="127.0.0.1:8000")
    told = lambda: how_to_follow(Path("plan.json"), reached, out=tmp_path)  # noqa: E731
    assert told() == "stopped before the study was handed to the server; the same command starts it"
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "flower.json").touch()
    again = f"fairsynth study plan.json --server folder --out {tmp_path} --address 127.0.0.1:8000 --resume"
    goes_on = f"no longer followed; the study goes on at the server. Follow it again with: {again}"
    assert told() == goes_on
    (tmp_path / "server" / "plan.json").touch()
    assert told().endswith(f"committed rounds are kept. Go on with: {again}")
    monkeypatch.setattr("fairsynth.cli.stopping.is_taken", lambda folder: True)
    assert told() == goes_on


@pytest.mark.parametrize(("told", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143), (SystemExit(129), 129)])
@pytest.mark.parametrize("command", ["study", "demo"])
def test_a_command_that_is_told_to_stop_says_one_line_and_ends_with_its_code(
    command, told, code, tmp_path, monkeypatch, capsys
):
    def stopped(study, *, out, **_):
        begun(out)
        raise told

    monkeypatch.setattr("fairsynth.experiments.study.run_study", stopped)
    study = ROOT / "studies" / "demo.yaml"
    words = [command, *([str(study)] if command == "study" else []), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(shlex.join(["fairsynth", "study", str(study), "--out", str(tmp_path / "run"), "--resume"]))
    assert demo_command.execute is study_command.execute


def test_an_end_for_another_reason_is_not_told_as_a_stop(tmp_path, monkeypatch, capsys):
    def ended(study, *, out, **_):
        raise SystemExit(3)

    monkeypatch.setattr("fairsynth.experiments.study.run_study", ended)
    with pytest.raises(SystemExit) as left:
        main(["study", str(ROOT / "studies" / "demo.yaml"), "--out", str(tmp_path)])
    assert left.value.code == 3
    assert capsys.readouterr().err == ""


# --- real processes --------------------------------------------------------------------------------------------------


class Study:
    """`fairsynth study` as a process, and whatever it starts, known by a mark in their environment."""

    def __init__(self, folder, *more):
        self.mark = f"FAIRSYNTH_TEST={uuid.uuid4().hex}"
        self.log = folder.parent / "study.log"
        program = Path(sys.executable).with_name("fairsynth")
        command = [program, "study", folder.parent / "study.yaml", "--out", folder, *more]
        name, _, value = self.mark.partition("=")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(one) for one in command], env={**os.environ, name: value}, stdout=log, stderr=subprocess.STDOUT
            )

    def left(self):
        """What still runs, by command line; ray's processes, too, inherit the mark."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has just ended
                continue
        return [one for one in found if one]

    def end(self):
        self.process.kill()
        self.process.wait()


def rounds(run):
    return sum(event["event"] == "round" for event in scan(run / "server" / "journal.jsonl").events)


def until(ready, study=None):
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert study is None or study.process.poll() is None, study.log.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def result(run):
    server = run / "server"
    names = [
        "enrolment.json",
        "audit/axes.json",
        *(f"generator-{arm}/weights.safetensors" for arm in ("plain", "fairsynth")),
    ]
    names += [path.relative_to(server).as_posix() for path in sorted((server / "audit").glob("*.safetensors"))]
    return {name: (server / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopping")
    (folder / "study.yaml").write_text(STUDY.format(configs=ROOT / "site_configs"), encoding="utf-8")
    return folder


@pytest.mark.flower
@pytest.mark.slow
def test_a_study_stopped_in_every_way_goes_on_to_the_bytes_of_one_that_never_stopped(folder):
    whole, run = folder / "whole", folder / "stopped"
    one = Study(whole)
    assert one.process.wait(PATIENCE) == 0, one.log.read_text()[-3000:]
    ways = (
        (Engine.deployment, signal.SIGTERM, 143),
        (Engine.simulation, signal.SIGKILL, -signal.SIGKILL),
        (Engine.deployment, signal.SIGKILL, -signal.SIGKILL),
        (Engine.simulation, signal.SIGINT, 130),
    )
    for number, (engine, how, code) in enumerate(ways):
        study = Study(run, "--engine", engine.value, *(["--resume"] if number else []))
        try:
            kept = rounds(run)
            until(lambda kept=kept: rounds(run) > kept, study)
            assert study.left()
            study.process.send_signal(how)
            assert study.process.wait(PATIENCE) == code
            until(lambda study=study: study.left() == [])
            assert not is_taken(run / "server")
            assert rounds(run) > kept
            if code > 0:
                told = study.log.read_text().splitlines()[-1]
                assert told.startswith("stopped; committed rounds are kept. Go on with: fairsynth study ")
                assert told.endswith(" --resume")
        finally:
            study.end()
    last = Study(run, "--resume")
    assert last.process.wait(PATIENCE) == 0, last.log.read_text()[-3000:]
    assert result(run) == result(whole)
    assert (run / "report.html").is_file()
