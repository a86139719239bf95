"""What tests of resumed studies share: a transport that fails at a chosen exchange, a finished study's digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fairsynth.federation.journal import read

RESULTS = ("enrolment.json", "generator-*/weights.safetensors", "audit/*", "terms/*")
CHANGING = ("seconds", "started", "run")


class Stopped(BaseException):
    """The server's process ends here: no handler of an `Exception` sees it."""


class Stopping:
    """Asks as `transport` does; at exchange `number` (from 0) the server ends, before or after the sites answered.

    With `taken`, so many replies reach the server before it ends.
    """

    def __init__(self, transport, *, number: int, answered: bool, taken: int = 0) -> None:
        self.transport, self.left, self.answered, self.taken = transport, number, answered, taken

    def ask(self, requests, *, timeout):
        self.left -= 1
        if self.left == -1:
            replies = list(self.transport.ask(requests, timeout=timeout)) if self.answered else []
            yield from replies[: max(self.taken, 0)]
            raise Stopped
        yield from self.transport.ask(requests, timeout=timeout)


def digest(root: Path) -> dict[str, str]:
    """Hash of each result of a finished study, and of what its journal tells.

    Left out of the journal: clocks, the run's random name, restarts.
    """
    found = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in RESULTS
        for path in sorted(root.glob(pattern))
        if path.name != "manifest.json"
    }
    told = [
        {name: value for name, value in event.items() if name not in CHANGING}
        for event in read(root / "journal.jsonl")
        if event["event"] != "resumed"
    ]
    return {**found, "journal": hashlib.sha256(json.dumps(told).encode()).hexdigest()}
