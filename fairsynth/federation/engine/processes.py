"""Processes of Flower: started in groups of their own, with network calls off, all stopped at the end.

In:  commands.   Out: their output in files.
Never: a process that outlives the block, or this process (where there is /proc; elsewhere SIGKILL leaves some); the
user's FLWR_HOME, PYTHONPATH, proxies or Flower settings; a request to the web, or a port that others could reach.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairsynth.errors import EngineError
from fairsynth.federation.engine.signals import deferred, leaving
from fairsynth.federation.engine.strays import guarded, stop_strays

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 10.0
_NOBODY = "http://127.0.0.1:9"  # a proxy that refuses: what asks the web in spite of the switches gets no further
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ftp_proxy", "no_proxy")
_OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: ray listens on loopback alone
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
    "COLUMNS": "200",
    "PYTHONUNBUFFERED": "1",
    "http_proxy": _NOBODY,
    "https_proxy": _NOBODY,
    "all_proxy": _NOBODY,
    "no_proxy": f"{LOOPBACK},localhost",
}
_DROPPED = ("FLWR_", "RAY_", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


@dataclass(kw_only=True)
class Workshop:
    """A temporary FLWR_HOME and the processes that use it; use as a context manager."""

    threads: int
    reach: tuple[str, ...] = ()  # hosts beside loopback that its processes may reach
    secret: str = ""  # no error names it
    home: Path = field(init=False)
    _running: list[subprocess.Popen[bytes]] = field(init=False, default_factory=list)
    _open: contextlib.ExitStack = field(init=False, default_factory=contextlib.ExitStack)

    def __enter__(self) -> Workshop:
        short = Path("/tmp")  # noqa: S108  mkdtemp makes it private; paths of ray's sockets have at most 107 characters
        with contextlib.ExitStack() as stack:
            stack.enter_context(leaving())
            self.home = Path(tempfile.mkdtemp(prefix="fs-", dir=short if short.is_dir() else None))
            stack.enter_context(guarded(self.home))
            stack.callback(self._stop)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _stop(self) -> None:
        """Stop what was started, whoever may be in a hurry."""
        with deferred():
            stop(*reversed(self._running))
            stop_strays(self.home)
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every process: ours, less what steers Flower or names a proxy, plus the off switches."""
        return flower_environment(self.home, threads=self.threads, reach=self.reach)

    def start(self, *command: str, log: str) -> subprocess.Popen[bytes]:
        """Start `command` in a process group of its own; its output goes to the file `log` of the home."""
        with (self.home / log).open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(process)
        return process

    def call(self, *command: str, seconds: float = 60.0) -> str:
        """The output of `command`. Raises EngineError when it fails or takes longer than `seconds`."""
        return call(*command, home=self.home, environment=self.environment, seconds=seconds, secret=self.secret)

    def log(self, name: str) -> str:
        """The last lines of a log file, without those that tell of requests."""
        path = self.home / name
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        return tail("\n".join(line for line in text.splitlines() if "uvicorn" not in line and "Servicer" not in line))


def flower_environment(home: Path, *, threads: int = 1, reach: Sequence[str] = ()) -> dict[str, str]:
    """The environment of a process of Flower with `home` as its FLWR_HOME, which may reach loopback and hosts `reach`.

    Ours, less what steers Flower or names a proxy, plus the off switches.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
    kept = {key: value for key, value in kept.items() if key.lower() not in _PROXIES}
    programs = str(Path(sys.executable).parent)
    return {
        **kept,
        **_OFF,
        "no_proxy": ",".join((_OFF["no_proxy"], *reach)),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "FLWR_HOME": str(home),
        "TMPDIR": str(home),
        "RAY_TMPDIR": str(home),
        "PATH": f"{programs}{os.pathsep}{kept.get('PATH', '')}",
    }


def call(*command: str, home: Path, environment: Mapping[str, str], seconds: float = 60.0, secret: str = "") -> str:
    """The output of `command`, run in `home`; no error names `secret`.

    Raises EngineError when the command fails or takes longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            start_new_session=True,  # an interrupt that is typed is for us, who end it with what it was to do
        )
    except subprocess.TimeoutExpired:
        raise EngineError.of(f"{command[0]} took longer than {seconds:.0f} s", where=" ".join(command[:3])) from None
    if done.returncode:
        said = tail((done.stdout + done.stderr).decode(errors="replace"))
        said = said.replace(secret, "***") if secret else said
        raise EngineError.of(f"{command[0]} failed", where=" ".join(command[:3]), expected=said)
    return done.stdout.decode(errors="replace")


def parse_answer(text: str) -> dict[str, Any]:
    """The JSON object in a program's output, which may begin with warnings. Raises EngineError."""
    start = text.find("{")
    try:
        value = json.loads(text[start:]) if start >= 0 else {}
    except json.JSONDecodeError:
        value = {}
    if not isinstance(value, dict) or not value:
        raise EngineError.of("Flower answered something else than JSON", where="flwr", expected=text[:200])
    return value


def tail(text: str, *, lines: int = 12) -> str:
    """The last non-empty lines of `text`."""
    return "\n  ".join([line for line in text.splitlines() if line.strip()][-lines:])


def stop(*processes: subprocess.Popen[bytes]) -> None:
    """Stop processes and their groups: politely all at once, then by force. Returns when they are gone."""
    for process in processes:
        _signal(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        _signal(process.pid, signal.SIGKILL)
        process.wait()


def free_ports(number: int) -> list[int]:
    """Ports of loopback that are free now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def wait_for(ready: Callable[[], bool], *, seconds: float, what: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until `ready`. Raises EngineError when `process` ends before or the time is up."""
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None:
            raise EngineError.of(f"{what} ended while starting", where=f"exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise EngineError.of(f"{what} did not start", where=f"within {seconds:.0f} s")
        time.sleep(0.1)


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
