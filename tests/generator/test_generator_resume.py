"""Killed at any moment, a fit goes on to the same weights, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from generator_killed import trained

from fairsynth.errors import ArtefactError
from fairsynth.generator import fit as fitting
from fairsynth.generator.resume import ARRAYS, KINDS, Resume

HERE = Path(__file__).parent


class Power(Exception):
    """The power goes."""


def stopped(folder, *, after, **options):
    """A training that ends with its step number `after`, a state having been written after every step."""
    resume = Resume(root=folder, seconds=-1.0)  # always due
    resume_write, written = resume.write, []

    def write(state):
        resume_write(state)
        resume._due = 0.0
        written.append(state)
        if len(written) == after:
            raise Power

    resume.write = write
    with pytest.raises(Power):
        trained(resume=resume, **options)
    return folder


@pytest.fixture(scope="module")
def uninterrupted():
    return trained(resume=None)


@pytest.mark.parametrize("after", [1, 11, 12, 13, 40], ids=lambda step: f"step {step} of 12 an epoch")
def test_a_training_that_stopped_at_a_step_goes_on_to_the_same_weights(tmp_path, uninterrupted, after):
    folder = stopped(tmp_path, after=after)
    assert trained(resume=Resume(root=folder)) == uninterrupted


def test_states_that_are_written_change_nothing(tmp_path, uninterrupted):
    assert trained(resume=Resume(root=tmp_path, seconds=0.02)) == uninterrupted


def test_a_resumed_training_does_not_begin_anew(tmp_path, monkeypatch):
    folder = stopped(tmp_path, after=30)
    taken = []
    monkeypatch.setattr(fitting, "learning_rate", lambda step, **_: taken.append(step) or 1e-3)
    trained(resume=Resume(root=folder), epochs=6)
    assert taken[0] == 30


def kill_again_and_again(folder, *, seconds, epochs, pauses):
    """Run the training in processes that are killed after each of `pauses`, then in one that may end; its hash."""
    command = [sys.executable, HERE / "generator_killed.py", folder, str(seconds), str(epochs)]
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
    killed = 0
    for pause in pauses:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not any((folder / kind).exists() for kind in KINDS) and time.monotonic() < deadline:
            time.sleep(0.005)  # before the first state there is nothing to resume
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        killed += said == ""
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return ended.stdout.strip(), killed


def test_a_killed_process_leaves_what_the_next_one_goes_on_from(tmp_path, uninterrupted):
    found, killed = kill_again_and_again(tmp_path, seconds=0.01, epochs=6, pauses=[0.03])
    assert killed == 1
    assert found == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_again_and_again_at_random_moments_it_ends_with_the_same_weights(tmp_path, seed):
    moments = random.Random(seed)
    pauses = [moments.uniform(0, 4) for _ in range(8)]
    found, killed = kill_again_and_again(tmp_path, seconds=0.0, epochs=40, pauses=pauses)
    assert killed >= 1
    assert found == trained(resume=None, epochs=40)


def newest(folder):
    return folder / KINDS[1]  # after an even number of states


def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path, uninterrupted, caplog):
    folder = stopped(tmp_path, after=20)
    arrays = newest(folder) / ARRAYS
    arrays.write_bytes(arrays.read_bytes()[:-8])
    assert trained(resume=Resume(root=folder)) == uninterrupted
    assert f"passed over: {newest(folder)}" in caplog.text


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"schema": 1, "kind": "fit-1", "facts": {}}'])
def test_a_damaged_manifest_is_a_damaged_state(tmp_path, uninterrupted, manifest):
    folder = stopped(tmp_path, after=4)
    (newest(folder) / "manifest.json").write_text(manifest)
    assert trained(resume=Resume(root=folder)) == uninterrupted


def test_with_no_whole_state_left_the_training_does_not_silently_begin_anew(tmp_path):
    folder = stopped(tmp_path, after=20)
    for kind in KINDS:
        (folder / kind / "manifest.json").write_text("{")
    with pytest.raises(ArtefactError, match="no state of the training is whole"):
        trained(resume=Resume(root=folder))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"epochs": 7}, "configuration"),
        ({"learning_rate": 1e-4}, "configuration"),
        ({"seed": 2}, "seed"),
        ({"patients": 91}, "training patients"),
    ],
)
def test_the_state_of_another_training_is_refused(tmp_path, options, what):
    folder = stopped(tmp_path, after=3)
    with pytest.raises(ArtefactError, match=f"other {what}"):
        trained(resume=Resume(root=folder), **options)


def test_other_threads_are_told_not_refused(tmp_path, caplog):
    folder = stopped(tmp_path, after=11, epochs=1)
    trained(resume=Resume(root=folder), threads=2, epochs=1)
    assert "other threads" in caplog.text
