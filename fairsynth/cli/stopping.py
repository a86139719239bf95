"""A study's command that is told to stop: what it started ends, one line says how to go on, the exit code says why.

In:  SIGINT, SIGTERM, SIGHUP.   Out: 130, 143 or 129, after the line on standard error.
Never: a line that names a command which would be refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fairsynth.cli.console import errors
from fairsynth.experiments.engines import Engine
from fairsynth.federation.engine.signals import LEAVE, leaving
from fairsynth.federation.server_folder import PLAN, is_taken

if TYPE_CHECKING:
    from fairsynth.experiments.study import Reached

INTERRUPTED = 130
_CODES = {128 + number for number in LEAVE}


@contextmanager
def says_how_to_go_on(how: Callable[[], str]) -> Iterator[None]:
    """When the block is told to stop, print what `how` says then."""
    try:
        with leaving():
            yield
    except KeyboardInterrupt:
        _tell(how())
        raise SystemExit(INTERRUPTED) from None
    except SystemExit as left:
        if left.code in _CODES:
            _tell(how())
        raise


def how_to_resume(study: Path, *, out: Path, engine: Engine) -> str:
    """Of a study on this machine."""
    from fairsynth.experiments.study import Run

    if not (Run(root=out).server / PLAN).is_file():
        return "stopped before the study began; the same command starts it"
    chosen = [] if engine is Engine.simulation else ["--engine", engine.value]
    return f"stopped; committed rounds are kept. Go on with: {_command(study, '--out', out, *chosen, '--resume')}"


def how_to_follow(plan: Path, reached: Reached, *, out: Path) -> str:
    """Of a study among hospitals, which goes on at the server without us."""
    from fairsynth.experiments.study import Run
    from fairsynth.operations.network import FLOWER

    folder = Run(root=out).server
    begun = (folder / PLAN).is_file()
    if not begun and not (folder / FLOWER).is_file():
        return "stopped before the study was handed to the server; the same command starts it"
    address = ["--address", reached.address] if reached.address else []
    again = _command(plan, "--server", reached.server, "--out", out, *address, "--resume")
    if begun and not is_taken(folder):
        return f"stopped while no run of Flower worked on the study; committed rounds are kept. Go on with: {again}"
    return f"no longer followed; the study goes on at the server. Follow it again with: {again}"


def _command(*words: str | Path) -> str:
    return shlex.join(["fairsynth", "study", *map(str, words)])


def _tell(line: str) -> None:
    errors.print(line, markup=False, highlight=False, soft_wrap=True)
