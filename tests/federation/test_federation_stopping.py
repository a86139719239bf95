"""However a process ends that started others, they end too, and nothing of their home is left. Without Flower."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fairsynth.errors import EngineError
from fairsynth.federation.engine import strays
from fairsynth.federation.engine.processes import Workshop
from fairsynth.federation.engine.signals import deferred, leaving
from fairsynth.federation.engine.strays import processes_of

PATIENCE = 60.0
SLEEPER = "import time; time.sleep(120)"
DAEMON = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(120)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
PARENT = """
    import signal, sys, time
    from pathlib import Path
    from fairsynth.federation.engine import processes
    processes.STOP_SECONDS = 3.0
    {before}
    with processes.Workshop(threads=1) as workshop:
        for program in {programs!r}:
            workshop.start(sys.executable, "-c", program, log="log")
        time.sleep(1)
        Path({told!r}).write_text(f"{{workshop.home}}\\n")
        {work}
"""


@pytest.fixture(autouse=True)
def _signals_as_in_a_terminal():
    """Whoever started the tests may ignore signals, as `nohup` and a shell's background jobs do."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def until(ready):
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def parent(tmp_path):
    """Starts a process that has started `programs` in a home of its own; gives both."""
    begun = []

    def start(*programs, before="", work="time.sleep(120)"):
        told = tmp_path / "home"
        script = PARENT.format(programs=programs, told=str(told), before=before, work=work)
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.DEVNULL)
        begun.append(process)
        until(lambda: told.is_file() and told.read_text().endswith("\n"))
        home = Path(told.read_text().strip())
        assert len(processes_of(home)) == len(programs)
        return process, home

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_what_a_killed_process_started_ends_with_it_daemons_too_and_its_home_is_removed(parent):
    process, home = parent(SLEEPER, DAEMON, STUBBORN)
    process.kill()
    process.wait()
    until(lambda: not home.exists())
    assert processes_of(home) == []


def test_whoever_is_asked_to_stop_again_while_it_stops_still_leaves_nothing(parent):
    process, home = parent(SLEEPER, STUBBORN)
    process.send_signal(signal.SIGTERM)
    until(lambda: len(processes_of(home)) == 1)  # the stubborn one has three seconds
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) != 0
    assert processes_of(home) == []
    assert not home.exists()


def test_a_signal_that_whoever_started_us_ignores_stops_nothing(parent):
    process, home = parent(SLEEPER, before="signal.signal(signal.SIGHUP, signal.SIG_IGN)", work="time.sleep(2)")
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE) == 0
    assert not home.exists()


def test_an_orderly_end_leaves_no_guard(monkeypatch):
    begun, start = [], subprocess.Popen
    monkeypatch.setattr(
        strays.subprocess, "Popen", lambda *words, **more: begun.append(start(*words, **more)) or begun[-1]
    )
    with Workshop(threads=1):
        (guard,) = begun
        assert guard.poll() is None
    assert guard.returncode == 0


def test_the_guard_ends_nothing_of_another_home(tmp_path):
    mine, others = tmp_path / "mine", tmp_path / "others"
    for folder in (mine, others):
        folder.mkdir()
    command = [sys.executable, "-c", SLEEPER]
    one, other = (subprocess.Popen(command, env={**os.environ, "FLWR_HOME": str(home)}) for home in (mine, others))
    try:
        until(lambda: processes_of(mine) and processes_of(others))
        with strays.guarded(mine):
            assert one.poll() is None
        assert one.wait(PATIENCE) == -signal.SIGKILL
        assert other.poll() is None
        assert (mine.exists(), others.exists()) == (False, True)
    finally:
        for process in (one, other):
            process.kill()
            process.wait()


# --- signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_waits_until_the_block_has_ended():
    done = []
    with pytest.raises(KeyboardInterrupt), deferred():
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")
    assert done == ["all of it"]


def test_a_signal_is_not_forgotten_over_an_error_of_the_block():
    with pytest.raises(KeyboardInterrupt), deferred():
        signal.raise_signal(signal.SIGINT)
        raise EngineError.of("flwr failed", where="flwr run")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_block_that_is_told_to_leave_ends_with_the_signals_code_and_handlers_are_as_before(number, code):
    before = [signal.getsignal(one) for one in signal.Signals]
    with pytest.raises(SystemExit) as left, leaving(), deferred():
        signal.raise_signal(number)
    assert left.value.code == code
    assert [signal.getsignal(one) for one in signal.Signals] == before
