"""Every place at which a process changes its folder, counted, and the process killed at one of them.

Counted are calls on paths below the folder: files opened for writing, fsync, rename, replace, unlink, mkdir, rmdir.
A kill is SIGKILL by the process to itself, so that nothing of it runs on. `torn` is a power cut: what a file has got
since its last fsync is cut to half, then the process dies.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

MODES = ("before", "after", "torn")
_CHANGES = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Writes:
    """Counts from `start` on; at write number `at` (from 1) calls `act`. For one process: nothing is undone."""

    def __init__(
        self, root: Path, *, at: int = 0, mode: str = "before", act: Callable[[], None] = die, number=None
    ) -> None:
        self.root, self.at, self.mode, self.act = f"{root.resolve()}/", at, mode, act
        self.number = number if number is not None else [0]  # may be shared between processes
        self.places: list[str] = []  # what was counted, for people
        self._synced: dict[int, int] = {}  # inode -> bytes that are on disk

    def install(self) -> Writes:
        for name in _CHANGES:
            setattr(os, name, self._changing(name, getattr(os, name)))
        os.fsync = self._syncing(os.fsync)
        os.open = self._opening(os.open)
        io.open = builtins.open = self._opened(io.open)
        return self

    def _counts(self, path) -> bool:
        if isinstance(path, int):
            return False
        text = os.fsdecode(path)
        return (text if text.startswith("/") else f"{Path.cwd()}/{text}").startswith(self.root)

    def _reached(self, place: str) -> bool:
        self.number[0] += 1
        self.places.append(place)
        return self.number[0] == self.at

    def _around(self, place: str, call: Callable):
        now = self._reached(place)
        if now and self.mode == "before":
            self.act()
        try:
            return call()
        finally:  # a folder that is there already, too
            if now and self.mode in ("after", "torn"):
                self.act()

    def _changing(self, name: str, call: Callable) -> Callable:
        def changed(path, *others, **named):
            if not self._counts(path):  # of rmtree, names relative to an open folder: the folder's own is counted
                return call(path, *others, **named)
            return self._around(f"{name} {os.fsdecode(path)}", lambda: call(path, *others, **named))

        return changed

    def _opening(self, call: Callable) -> Callable:
        def opened(path, flags, *others, **named):
            if not flags & _WRITING or not self._counts(path):
                return call(path, flags, *others, **named)
            return self._around(f"open {os.fsdecode(path)}", lambda: call(path, flags, *others, **named))

        return opened

    def _opened(self, call: Callable) -> Callable:
        def opened(path, mode="r", *others, **named):
            if not set(mode) & set("wax+") or not self._counts(path):
                return call(path, mode, *others, **named)
            return self._around(f"open {os.fsdecode(path)}", lambda: call(path, mode, *others, **named))

        return opened

    def _syncing(self, call: Callable) -> Callable:
        def synced(descriptor):
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            if not self._counts(path):
                return call(descriptor)
            now = self._reached(f"fsync {path}")
            if now and self.mode == "torn" and Path(path).is_file():
                self._cut(path)
            if now and self.mode != "after":
                self.act()
            result = call(descriptor)
            self._synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size
            if now:
                self.act()
            return result

        return synced

    def _cut(self, path: str) -> None:
        found = Path(path).stat()
        before = self._synced.get(found.st_ino, 0)
        os.truncate(path, min(before, found.st_size) + max(found.st_size - before, 0) // 2)
