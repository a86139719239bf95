"""Faults inside Flower's processes: read at start by Python where tests put this folder on PYTHONPATH.

FAULTS names a folder. A file there is an order: its name the place, its content `kill`, `sleep SECONDS`, or `memory MB`
(no more than that beyond what the process has, while the call lasts). The process that comes to the place first takes
the file away and does it, once. FAULT_CLOCK names a file: the seconds in it, looked up each time, are added to Flower's
and our own idea of now, not to what TLS or the file system take for the time.
The product has no hooks: functions are wrapped when their module is imported.
"""

from __future__ import annotations

import datetime
import functools
import importlib.abc
import importlib.util
import os
import resource
import signal
import sys
import time
from pathlib import Path

FOLDER = os.environ.get("FAULTS", "")
CLOCK = os.environ.get("FAULT_CLOCK", "")
BEFORE, AFTER = "before", "after"

# place -> module, attribute, when
PLACES = {
    "asked": ("fairsynth.federation.boundary", "answer", BEFORE),
    "train-asked": ("fairsynth.federation.site", "train", BEFORE),
    "train-measured": ("fairsynth.federation.site", "train_model", BEFORE),
    "train-trained": ("fairsynth.federation.site", "train_model", AFTER),
    "outbox-kept": ("fairsynth.federation.masking.outbox", "Outbox.keep", AFTER),
    "answered": ("fairsynth.federation.boundary", "answer", AFTER),
    "announced": ("flwr.supernode.runtime.run_clientapp", "push_objects", BEFORE),
    "collected-one": ("server.transport", "_envelope", AFTER),
    "commit-asked": ("fairsynth.federation.commits", "Commits.save", BEFORE),
    "commit-written": ("fairsynth.artefacts", "_swap", BEFORE),
    "commit-named": ("fairsynth.federation.commits", "Commits.save", AFTER),
}

NOW = {  # module -> what tells the time there
    "flwr.supercore.date": "now",
    "fairsynth.federation.boundary": "_now",
    "fairsynth.operations.checks_server": "_now",
}


def ordered(place: str) -> None:
    path = Path(FOLDER) / place
    try:
        order = path.read_text().split()
        if order[0] == "kill" and len(order) > 1 and int(order[1]) > 1:  # the n-th time
            path.write_text(f"kill {int(order[1]) - 1}")
            return
        path.unlink()
    except OSError:
        return
    with (Path(FOLDER) / "done").open("a") as done:
        done.write(f"{place} {time.time()} {os.getpid()}\n")
    if order[0] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if order[0] == "memory":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (used + int(order[1]) * 2**20, most))
    else:
        time.sleep(float(order[1]))


def wrapped(module, attribute: str, place: str, when: str) -> None:
    *outer, name = attribute.split(".")
    holder = functools.reduce(getattr, outer, module)
    call = getattr(holder, name)

    @functools.wraps(call)
    def faulty(*values, **named):
        if when == BEFORE:
            ordered(place)
        try:
            result = call(*values, **named)
        finally:
            most = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        if when == AFTER:
            ordered(place)
        return result

    setattr(holder, name, faulty)


def changed(module) -> None:
    """A module that was just imported, with its places."""
    for place, (where, attribute, when) in PLACES.items():
        if where == module.__name__:
            wrapped(module, attribute, place, when)
    if CLOCK and module.__name__ in NOW:
        name = NOW[module.__name__]
        right = getattr(module, name)
        setattr(module, name, lambda: right() + datetime.timedelta(seconds=wrong()))


def wrong() -> float:
    """Seconds by which the clock is wrong now; it may step while a process runs."""
    try:
        return float(Path(CLOCK).read_text())
    except (OSError, ValueError):
        return 0.0


class Finder(importlib.abc.MetaPathFinder):
    """Lets the other finders find, then adds to what the loader does."""

    names = {where for where, _, _ in PLACES.values()} | set(NOW)

    def find_spec(self, name, path, target=None):
        if name not in self.names:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)):
                execute = spec.loader.exec_module

                def executed(module, execute=execute):
                    execute(module)
                    changed(module)

                spec.loader.exec_module = executed
                return spec
        return None


if FOLDER:
    sys.meta_path.insert(0, Finder())
