"""Signals that ask this process to stop: what it started is stopped first, and once.

In:  SIGINT, SIGTERM, SIGHUP.   Out: KeyboardInterrupt, or SystemExit with 128 and the signal's number.
Never: a signal that whoever started us has ignored (`nohup`, a shell's background); an end in the midst of stopping.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

LEAVE = (signal.SIGTERM, signal.SIGHUP)
ALL = (signal.SIGINT, *LEAVE)

_Handler = Callable[[int, FrameType | None], object]


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as an exception would, so that it stops what it started; SIGINT does already."""
    with _handled(dict.fromkeys(LEAVE, _leave)):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Signals that come while the block runs are acted upon when it has ended."""
    came: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        came.append(number)

    try:
        with _handled(dict.fromkeys(ALL, remember)):
            yield
    finally:
        if came:
            signal.raise_signal(signal.Signals(came[0]))


@contextlib.contextmanager
def _handled(handlers: Mapping[signal.Signals, _Handler]) -> Iterator[None]:
    """Other handlers, of signals that are not ignored. Only the main thread has any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in handlers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handlers[number]) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _: FrameType | None) -> None:
    """Let the blocks that are open end, so that they stop what they started."""
    raise SystemExit(128 + number)
