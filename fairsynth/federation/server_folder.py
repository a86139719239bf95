"""A server's folder, looked at from outside: what is where, whether its study has begun, runs, has finished.

In:  the folder.   Out: names and answers.   Never: a change, a wait; torch, for administrators ask often.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fairsynth.federation import journal as journals

PLAN = "plan.json"
ROUNDS, EXCHANGES = "rounds", "exchanges"  # folders of what a server goes on from
LOCK = ".server.lock"
STUDY, ROUND, FINISHED = "study", "round", "finished"  # the first event, a committed round's, and the last


def is_begun(root: Path) -> bool:
    """Whether a study at `root` has begun and not finished."""
    found = journals.scan(root / journals.NAME).events
    return bool(found) and found[-1]["event"] != FINISHED


def has_finished(root: Path) -> bool:
    """Whether the study at `root` has finished."""
    found = journals.scan(root / journals.NAME).events
    return bool(found) and found[-1]["event"] == FINISHED


def is_taken(root: Path) -> bool:
    """Whether a server works at `root` now."""
    try:
        lock = os.open(root / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
