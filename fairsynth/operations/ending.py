"""Run a program of Flower in this process, and end when it returns: `python -P -m` this module, NAME, OPTIONS.

In:  a console script's name, its options.   Out: its exit code; RETURNED where it came back without one.
Never: a process that stays when its work has ended. A SuperNode that gives the server up returns, and its threads would
keep the process: alive, offline, and nobody's to start again (docs/faults.md).
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points

RETURNED = 75  # EX_TEMPFAIL: to be started again


def run(name: str, options: list[str]) -> None:
    """The console script `name` with `options`; does not return."""
    programs = tuple(entry_points(group="console_scripts", name=name))
    if not programs:
        sys.exit(f"{name} is not installed")
    sys.argv = [name, *options]
    programs[0].load()()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(RETURNED)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
