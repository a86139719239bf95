"""Processes of one Flower home that nobody else would stop: daemons that left their group, and all, when we are killed.

In:  the home.   Out: nothing that runs there.
Never: a process that does not name this home as its FLWR_HOME; anything but the standard library, for this file is also
a program of its own.

As a program it holds the reading end of a pipe whose other end the process that started it has, and nobody else.
However that process ends, SIGKILL included, the pipe ends with it: then what still runs in the home is killed and the
home, which may hold a password, is removed. After an orderly end there is nothing left to do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_ATTEMPTS = 20  # looks for processes, which may be starting others


@contextlib.contextmanager
def guarded(home: Path) -> Iterator[None]:
    """While the block runs, a process of its own waits for our end, to do what we no longer can.

    It is in a session of its own, so that what is sent to our group or typed at our terminal does not reach it.
    """
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(home)],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        if guard.stdin is not None:
            guard.stdin.close()
        guard.wait()


def stop_strays(home: Path) -> None:
    """Kill what still runs with `home` as its FLWR_HOME, such as ray's daemons, which leave their group."""
    for _ in range(_ATTEMPTS):
        strays = processes_of(home)
        if not strays:
            return
        for number in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.1)


def processes_of(home: Path) -> list[int]:
    """Process ids whose environment names `home` as FLWR_HOME; empty where /proc is not to be had."""
    mark = f"FLWR_HOME={home}".encode()
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in entry.read_bytes().split(b"\0") and _is_alive(entry.parent):
                found.append(int(entry.parent.name))
    return [number for number in found if number != os.getpid()]


def _is_alive(entry: Path) -> bool:
    """Whether the process is more than a zombie."""
    with contextlib.suppress(OSError, IndexError):
        return (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    return False


if __name__ == "__main__":
    sys.stdin.buffer.read()  # until the other end is closed; nothing is ever written to it
    stop_strays(Path(sys.argv[1]))
    shutil.rmtree(sys.argv[1], ignore_errors=True)
