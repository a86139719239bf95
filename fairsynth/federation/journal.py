"""The server's journal: one JSON object a line, on disk before the study goes on.

In:  events.   Out: `journal.jsonl`.
Never: a line that is overwritten; anything that no reply disclosed.

Each line ends with its own checksum, so that a damaged one is told from a whole one; a last line that a crash cut short
was never told. A server that starts again replays what it had done: events that the journal has are compared, not
written a second time. A line `resumed` says after which event the study went on; what stood between is superseded.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairsynth import artefacts, plain_json
from fairsynth.errors import ArtefactError

NAME = "journal.jsonl"
RESUMED = "resumed"
_CHECKSUM = ', "crc": "'
_VOLATILE = ("seconds", "started")  # of an event: the clock's, not the study's

Event = dict[str, Any]
Progress = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What can be read of a journal: its events, those that a resumed server superseded left out.

    `sound` are the bytes of the lines before the first damaged one, `damaged` that line's number, None where none is.
    """

    events: tuple[Event, ...]
    sound: int
    damaged: int | None


class Journal:
    """Appends events to `root/journal.jsonl`, then tells `progress`. Raises ArtefactError when it is damaged."""

    def __init__(self, root: Path, *, progress: Progress) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.path = root / NAME
        _trim(self.path)
        self._size = size(root)
        self._told = len(read(self.path))
        self._progress = progress
        self._history: deque[tuple[int, Event]] = deque()

    def append(self, event: str, /, **fields: Any) -> None:
        """Write one event and wait until it is on disk. NaN and infinity are refused (ValueError).

        While there is history to replay, the event is compared to it instead. Raises ArtefactError when they differ,
        and on a full or broken disk: no part of the event stays.
        """
        line = {"event": event, **fields}
        if self._history:
            place, known = self._history.popleft()
            _compare(known, line, where=f"{self.path}, event {place}")
            return
        self._write(text_of(line))
        self._told += 1
        self._progress(line)

    def expect(self, event: str, /, **fields: Any) -> None:
        """Raise ArtefactError when history has another event next: before what it tells of is kept."""
        if self._history:
            place, known = self._history[0]
            _compare(known, {"event": event, **fields}, where=f"{self.path}, event {place}")

    def _write(self, text: bytes) -> None:
        whole = size(self.path.parent)
        if whole != self._size:
            raise ArtefactError.of(
                "the journal is not as this server left it",
                where=str(self.path),
                expected=f"{self._size:,} bytes",
                do="find out who removed or changed the folder; put back the backup, then go on with --resume",
            )
        try:
            with self.path.open("ab") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, whole)
            raise ArtefactError.of(
                "the journal could not be written",
                where=f"{self.path}: {error.strerror}",
                expected="room and permission to write",
                do="make room, then go on with `fairsynth study ... --resume`",
            ) from None
        if not whole:
            artefacts.sync_folder(self.path.parent)
        self._size = whole + len(text)

    def replay(self, history: Iterable[tuple[int, Event]]) -> None:
        """Expect these events, each with its place in the journal (counted from 1), before new ones are written."""
        self._history = deque(history)

    def pass_to(self, position: int) -> None:
        """Leave out the history up to the event at `position`: what it tells of is kept elsewhere."""
        while self._history and self._history[0][0] <= position:
            self._history.popleft()

    @property
    def position(self) -> int:
        """How many events were told so far; while there is history, how many of it were replayed."""
        return self._history[0][0] - 1 if self._history else self._told


def text_of(line: Event) -> bytes:
    """The line as it is written."""
    return _closed(json.dumps(line, allow_nan=False)[:-1])


def _closed(text: str) -> bytes:
    """A line of JSON without its last brace, with its checksum and end."""
    return f'{text}{_CHECKSUM}{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def scan(path: Path) -> Scan:
    """What the journal at `path` tells up to the first damaged line; a last line without its end is no event yet."""
    events: list[Event] = []
    sound = 0
    for number, line in enumerate(_lines(path), start=1):
        event = _event(line)
        if event is None:
            return Scan(events=tuple(events), sound=sound, damaged=number)
        if event["event"] == RESUMED:
            events = events[: event["after"]]
        events.append(event)
        sound += len(line)
    return Scan(events=tuple(events), sound=sound, damaged=None)


def read(path: Path) -> list[Event]:
    """The events of a journal, oldest first. Raises ArtefactError, which names the line, when one is damaged."""
    found = scan(path)
    if found.damaged is not None:
        raise ArtefactError.of(
            "damaged journal",
            where=f"{path}, line {found.damaged}",
            expected="as it was written",
            do="`fairsynth study ... --resume` restores it from the last committed round; else restore the backup",
        )
    return list(found.events)


def history(path: Path) -> list[Event]:
    """Every event that can be read, those that a resumed server superseded too: for counts of what ever happened."""
    return [event for line in _lines(path) if (event := _event(line)) is not None]


def size(root: Path) -> int:
    """Bytes that the journal of `root` has now: what comes later is new."""
    path = root / NAME
    return path.stat().st_size if path.is_file() else 0


def parse(line: bytes) -> Event:
    """The event of one whole line. Raises ArtefactError when it is damaged."""
    event = _event(line)
    if event is None:
        raise ArtefactError.of("damaged journal", where=NAME, expected="lines as they were written")
    return event


def _trim(path: Path) -> None:
    """Take away what a crash left of a last line, so that the next one is not written behind it."""
    content = path.read_bytes() if path.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _lines(path: Path) -> list[bytes]:
    if not path.is_file():
        return []
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _event(line: bytes) -> Event | None:
    """The event of a line, None where it is damaged."""
    try:
        text, mark, _ = line.decode().rpartition(_CHECKSUM)
        if not mark or _closed(text) != line:
            return None
        event = plain_json.parse(text + "}", where=NAME)
    except (UnicodeDecodeError, ArtefactError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _compare(known: Event, now: Event, *, where: str) -> None:
    """Raise ArtefactError unless both tell the same, the clock's part aside."""
    told, again = (
        {name: value for name, value in json.loads(json.dumps(event)).items() if name not in _VOLATILE}
        for event in (known, now)
    )
    differing = sorted(name for name in {*told, *again} if told.get(name) != again.get(name))
    if differing:
        raise ArtefactError.of(
            "the study takes another course than before",
            where=f"{where}, {told.get('event')}: {', '.join(differing)}",
            expected="the same plan, software and kind of machine as when the study began",
            do="resume where the study began, or start it again in another folder",
        )
