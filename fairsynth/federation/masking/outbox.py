"""What a site sent, by label: written down before it leaves, and sent again as it was.

In:  a label, the request it answers, the reply: its fields and its vector.   Out: `outbox.jsonl`, payloads beside it.
Never: two payloads under one label; a payload that is sent before it is on disk.

Payloads of earlier labels, enrolment's aside, are removed when a later one is written; their lines stay, and so does
the promise. A server that lost rounds asks for those again: the site computes the reply anew, and sends it only if it
is the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairsynth.artefacts import sync_folder, write_bytes
from fairsynth.errors import PolicyRefusal, ProtocolError
from fairsynth.federation.masking.masks import Masked, vector_sha256

NAME = "outbox.jsonl"
FOLDER = "outbox"

LASTING = ("enrol", "agree")  # small; to make them anew, a site would read its tables, which may have grown, again

_WORD = np.dtype("<u8")


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A line: hashes only."""

    label: str
    request_sha256: str
    fields_sha256: str
    vector_sha256: str

    def is_of(self, payload: Payload) -> bool:
        """Whether `payload` is what was sent."""
        return (_sha256(payload.fields), payload.vector_sha256) == (self.fields_sha256, self.vector_sha256)


@dataclass(frozen=True, kw_only=True, eq=False)
class Payload:
    """What is sent: JSON, and a masked vector with its SHA-256."""

    fields: str
    vector: Masked
    vector_sha256: str


class Outbox:
    """The outbox of a site's folder, of one run after the other."""

    def __init__(self, root: Path) -> None:
        self._path, self._folder = root / NAME, root / FOLDER

    def again(self, label: str, *, request_sha256: str) -> Payload | None:
        """What was sent under `label`; None when nothing was, or when it must be computed anew.

        Raises PolicyRefusal when it answered another request.
        """
        sent = self._find(label)
        if sent is None:
            return None
        if sent.request_sha256 != request_sha256:
            raise PolicyRefusal.of(
                "a second request under one label", where="outbox", expected="the same request, asked again"
            )
        payload = self._read(label)
        return payload if payload is not None and sent.is_of(payload) else None

    def keep(self, label: str, payload: Payload, *, request_sha256: str) -> None:
        """Write down what is about to be sent. Raises PolicyRefusal when the label was used for other bytes."""
        sent = self._find(label)
        if sent is not None and not (sent.request_sha256 == request_sha256 and sent.is_of(payload)):
            raise PolicyRefusal.of(
                "another reply than before under one label",
                where="outbox",
                expected="the same bytes",
                do="see that data, software and kind of machine are those of the study; else start the study again",
            )
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        earlier = list(self._folder.iterdir())
        words = np.ascontiguousarray(payload.vector, dtype=_WORD)
        write_bytes(self._payload(label), payload.fields.encode() + b"\n", words.data)
        if sent is None:
            line = Sent(
                label=label,
                request_sha256=request_sha256,
                fields_sha256=_sha256(payload.fields),
                vector_sha256=payload.vector_sha256,
            )
            self._append(line)
        run = "|".join(label.split("|")[:2])
        kept = {self._payload(one) for one in (label, *(f"{run}|{purpose}" for purpose in LASTING))}
        for path in earlier:
            if path not in kept:
                path.unlink(missing_ok=True)

    def _read(self, label: str) -> Payload | None:
        path = self._payload(label)
        if not path.is_file():
            return None
        fields, _, words = path.read_bytes().partition(b"\n")
        if len(words) % _WORD.itemsize:
            return None
        vector = np.frombuffer(words, dtype=_WORD)
        return Payload(fields=fields.decode(errors="replace"), vector=vector, vector_sha256=vector_sha256(vector))

    def _append(self, line: Sent) -> None:
        """One line, on disk when this returns; a line that a crash cut short is taken away first: nothing was sent."""
        begun = not self._path.exists()
        with self._path.open("ab+") as handle:
            handle.seek(0)
            whole = handle.read().rfind(b"\n") + 1
            handle.truncate(whole)
            handle.seek(whole)
            handle.write(json.dumps(vars(line), sort_keys=True).encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
        if begun:
            sync_folder(self._path.parent)

    def _find(self, label: str) -> Sent | None:
        if not self._path.is_file():
            return None
        lines = self._path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline was never promised
            try:
                found = Sent(**json.loads(line))
            except (ValueError, TypeError):
                raise ProtocolError.of(
                    "damaged outbox", where=f"{self._path.name}, line {number}", expected="as it was written"
                ) from None
            if found.label == label:
                return found
        return None

    def _payload(self, label: str) -> Path:
        return self._folder / hashlib.sha256(label.encode()).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
