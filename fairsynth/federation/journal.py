"""The server's journal: one JSON object a line, on disk before the study goes on.

In:  events.   Out: `journal.jsonl`.
Never: a line that is overwritten; anything that no reply disclosed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairsynth import plain_json

NAME = "journal.jsonl"

Event = dict[str, Any]
Progress = Callable[[Event], None]


class Journal:
    """Appends events to `root/journal.jsonl`, then tells `progress`."""

    def __init__(self, root: Path, *, progress: Progress) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.path = root / NAME
        self._progress = progress

    def append(self, event: str, /, **fields: Any) -> None:
        """Write one event and wait until it is on disk. NaN and infinity are refused (ValueError)."""
        line = {"event": event, **fields}
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line, allow_nan=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        self._progress(line)


def read(path: Path) -> list[Event]:
    """The events of a journal, oldest first; a last line without its end is not an event yet and is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [plain_json.parse(line, where=str(path)) for line in lines if line.endswith("\n")]


def size(root: Path) -> int:
    """Bytes that the journal of `root` has now: what comes later is new."""
    path = root / NAME
    return path.stat().st_size if path.is_file() else 0
