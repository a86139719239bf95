"""A file of the site that only grows: one JSON object a line, each with the hash of all lines before it.

In:  objects.   Out: lines that are on disk before `append` returns; the objects again, checked.
Never: a line that is changed or removed; a damaged file that is read as an empty one.

A crash may leave the start of a line without its end. `append` had not returned then, so nothing followed from that
line; it is cut off before the next one is written. A whole line that does not fit its chain is damage, and refused.
What the chain cannot see is a file put back to an older state: keep it where only the site's service may write.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairsynth.errors import ArtefactError

Entry = dict[str, Any]

_FIRST = "0" * 64
_MODE = 0o600


class Chained:
    """The entries of `path`, to be read and appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def begin(cls, path: Path) -> Chained:
        """A new, empty file. Raises ArtefactError when there is one: what it says is never forgotten."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE)
        except FileExistsError:
            raise ArtefactError.of(
                "file exists already", where=path.name, expected="to be begun once", do="open it instead"
            ) from None
        os.close(descriptor)
        sync_folder(path.parent)
        return cls(path)

    def read(self) -> list[Entry]:
        """All entries, oldest first. Raises ArtefactError when the file is missing, open to others, or damaged."""
        return self._parsed(self._bytes())

    @contextmanager
    def appending(self) -> Iterator[Appending]:
        """The entries so far, with nobody else writing until the block ends. Raises ArtefactError as `read` does."""
        self._check_mode()
        with self.path.open("r+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            content = handle.read()
            entries = self._parsed(content)
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                handle.truncate(whole)
                os.fsync(handle.fileno())
            handle.seek(whole)
            yield Appending(entries, descriptor=handle.fileno(), chain=_last_chain(content[:whole]))

    def _bytes(self) -> bytes:
        self._check_mode()
        return self.path.read_bytes()

    def _check_mode(self) -> None:
        if not self.path.is_file():
            raise ArtefactError.of(
                "missing file",
                where=self.path.name,
                do="fairsynth restore (docs/operations.md); a new one would forget what was spent",
            )
        if self.path.stat().st_mode & 0o077:
            raise ArtefactError.of(
                "file is open to other users",
                where=self.path.name,
                expected="mode 0600",
                do=f"chmod 600 {self.path.name}",
            )

    def _parsed(self, content: bytes) -> list[Entry]:
        entries, chain = [], _FIRST
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                found = json.loads(line)
                entry, stated = found["entry"], found["chain"]
            except (ValueError, KeyError, TypeError):
                raise self._damaged(number) from None
            chain = _chain(chain, entry)
            if chain != stated:
                raise self._damaged(number)
            entries.append(entry)
        return entries

    def _damaged(self, line: int) -> ArtefactError:
        return ArtefactError.of(
            "line does not fit the lines before it",
            where=f"{self.path.name}:{line}",
            expected="the file as it was written",
            do="fairsynth restore (docs/operations.md); nothing is released until then",
        )


class Appending:
    """A chained file that this process alone writes to for now; made by `Chained.appending`."""

    def __init__(self, entries: list[Entry], *, descriptor: int, chain: str) -> None:
        self.entries = entries
        self._descriptor, self._chain = descriptor, chain

    def append(self, entry: Entry) -> None:
        """Write `entry`; it is on disk when this returns. NaN and infinity are refused (ValueError)."""
        chain = _chain(self._chain, entry)
        line = memoryview(_text({"entry": entry, "chain": chain}).encode() + b"\n")
        while line:
            line = line[os.write(self._descriptor, line) :]
        os.fsync(self._descriptor)
        self._chain = chain
        self.entries.append(entry)


def _chain(before: str, entry: Entry) -> str:
    return hashlib.sha256(f"{before}\n{_text(entry)}".encode()).hexdigest()


def _last_chain(content: bytes) -> str:
    lines = content.split(b"\n")[:-1]
    return str(json.loads(lines[-1])["chain"]) if lines else _FIRST


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
