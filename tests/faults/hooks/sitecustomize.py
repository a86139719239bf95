"""Faults inside Flower's processes: read at start by Python where tests put this folder on PYTHONPATH.

FAULTS names a folder. A file there is an order: its name the place, its content `kill` or `sleep SECONDS`. The process
that comes to the place first takes the file away and does it, once. FAULT_CLOCK is added to Flower's idea of now.
The product has no hooks: functions are wrapped when their module is imported.
"""

from __future__ import annotations

import datetime
import functools
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

FOLDER = os.environ.get("FAULTS", "")
CLOCK = float(os.environ.get("FAULT_CLOCK", "0"))
BEFORE, AFTER = "before", "after"

# place -> module, attribute, when
PLACES = {
    "asked": ("fairsynth.federation.boundary", "answer", BEFORE),
    "train-asked": ("fairsynth.federation.site", "train", BEFORE),
    "train-measured": ("fairsynth.federation.site", "train_model", BEFORE),
    "train-trained": ("fairsynth.federation.site", "train_model", AFTER),
    "outbox-kept": ("fairsynth.federation.masking.outbox", "Outbox.keep", AFTER),
    "answered": ("fairsynth.federation.boundary", "answer", AFTER),
    "collected-one": ("server.transport", "_envelope", AFTER),
    "commit-asked": ("fairsynth.federation.commits", "Commits.save", BEFORE),
    "commit-written": ("fairsynth.artefacts", "_swap", BEFORE),
    "commit-named": ("fairsynth.federation.commits", "Commits.save", AFTER),
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
    time.sleep(float(order[1]))


def wrapped(module, attribute: str, place: str, when: str) -> None:
    *outer, name = attribute.split(".")
    holder = functools.reduce(getattr, outer, module)
    call = getattr(holder, name)

    @functools.wraps(call)
    def faulty(*values, **named):
        if when == BEFORE:
            ordered(place)
        result = call(*values, **named)
        if when == AFTER:
            ordered(place)
        return result

    setattr(holder, name, faulty)


def changed(module) -> None:
    """A module that was just imported, with its places."""
    for place, (where, attribute, when) in PLACES.items():
        if where == module.__name__:
            wrapped(module, attribute, place, when)
    if CLOCK and module.__name__ == "flwr.supercore.date":
        now = module.now
        module.now = lambda: now() + datetime.timedelta(seconds=CLOCK)


class Finder(importlib.abc.MetaPathFinder):
    """Lets the other finders find, then adds to what the loader does."""

    names = {where for where, _, _ in PLACES.values()} | {"flwr.supercore.date"}

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
