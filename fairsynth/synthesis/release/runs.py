"""How often a generator was put before the gate: a gate that may be asked for ever tells who was in training.

In:  the site's folder.   Out: `release-runs.jsonl`, a line a run and an export, on disk before the gate computes.
Never: a line that is overwritten; a run that is not counted because it was killed.

A run is counted for the generator, whatever was drawn from it: a new seed is another try.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fairsynth import plain_json
from fairsynth.errors import ArtefactError, ReleaseBlocked

JOURNAL = "release-runs.jsonl"
LIMIT = 3
RESTORED = "restored"  # an event: `fairsynth restore` put an older journal here (operations.restore)

Line = dict[str, Any]


def begin(root: Path, *, generator: str, candidate: str, limit: int = LIMIT) -> int:
    """Count one run of the generator with this hash, and return its number, from 1.

    Raises ReleaseBlocked when there were `limit` already, ArtefactError when the journal is damaged.
    """
    with _opened(root) as handle:
        lines = _lines(handle, root)
        earlier = [line for line in lines if line["event"] == "run" and line["generator"] == generator]
        number = len(earlier) + 1
        _refuse_unknown(lines, generator, root)
        if number > limit:
            raise ReleaseBlocked.of(
                f"this generator was before the gate {limit} times",
                where=str(root / JOURNAL),
                expected="no set chosen among many because it passes",
                do="train another generator; or export the last set that was checked, with --officer-override NAME",
            )
        _append(handle, "run", generator=generator, candidate=candidate, number=number)
    return number


def record(root: Path, event: str, /, **fields: Any) -> None:
    """Add what came of a run, or an export. Raises ArtefactError when the journal is damaged."""
    with _opened(root) as handle:
        _lines(handle, root)
        _append(handle, event, **fields)


def read(root: Path) -> list[Line]:
    """All lines, oldest first; a last line without its end was never acted upon and is left out."""
    if not (root / JOURNAL).is_file():
        return []
    with _opened(root) as handle:
        return _lines(handle, root)


def _refuse_unknown(lines: list[Line], generator: str, root: Path) -> None:
    """Raise ReleaseBlocked for a generator that had runs before the folder was restored: it may have had more."""
    last = max((place for place, line in enumerate(lines) if line["event"] == RESTORED), default=0)
    if any(line["event"] == "run" and line["generator"] == generator for line in lines[:last]):
        raise ReleaseBlocked.of(
            "the site's folder was restored from a backup, and this generator may have been before the gate since",
            where=str(root / JOURNAL),
            expected="a generator of which every run is known",
            do="train another generator; or export the last set that was checked, with --officer-override NAME",
        )


@contextmanager
def _opened(root: Path) -> Iterator[IO[str]]:
    """The journal, for one process at a time."""
    descriptor = os.open(root / JOURNAL, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8", newline="\n") as handle:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield handle


def _lines(handle: IO[str], root: Path) -> list[Line]:
    """What is in the journal; a part of a line at its end is cut off."""
    handle.seek(0)
    text = handle.read()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        handle.truncate(len(whole.encode()))
    handle.seek(0, os.SEEK_END)
    try:
        lines = [dict(plain_json.parse(line, where=str(root / JOURNAL))) for line in whole.splitlines()]
        if all({"event", "time"} <= line.keys() for line in lines):
            return lines
    except (ArtefactError, ValueError, TypeError):
        pass
    raise ArtefactError.of("damaged journal of gate runs", where=str(root / JOURNAL), do="restore it from the backup")


def _append(handle: IO[str], event: str, /, **fields: Any) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    handle.write(json.dumps({"event": event, "time": now, **fields}, sort_keys=True, allow_nan=False) + "\n")
    handle.flush()
    os.fsync(handle.fileno())
