"""What was drawn at random for a release: drawn once a label, kept, and given again.

In:  a label, the exact input.   Out: noised values, or the secret key of a training, the same whenever asked.
Never: a second draw for a label (its mean would be the value without noise); the input itself on disk.

Kept in `drawn.jsonl`, mode 0600, before the caller sees them. The input is told from another by an HMAC-SHA256 under a
key of the site (`drawn.key`, mode 0600), so that the file gives no count away to who can read it alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fairsynth.errors import ArtefactError, PolicyRefusal
from fairsynth.governance.chained import Chained, Entry, sync_folder
from fairsynth.schemas import IntArray

NAME, KEY = "drawn.jsonl", "drawn.key"
KEY_BYTES = 32

Draw = Callable[[IntArray], IntArray]


class Drawn:
    """The journal of draws in a site's folder."""

    def __init__(self, root: Path) -> None:
        self._root, self._file = root, Chained(root / NAME)

    @classmethod
    def begin(cls, root: Path) -> Drawn:
        """A new journal with a new key. Raises ArtefactError when the folder has one."""
        if not (root / NAME).exists():  # its key must not be written over
            _write_key(root)
        Chained.begin(root / NAME)
        return cls(root)

    def noised(self, label: str, values: IntArray, *, draw: Draw, asked: bytes = b"") -> IntArray:
        """`draw(values)` the first time, what it gave then ever after.

        `asked` is what others decided of the question. Another question is refused even where its answer is the same:
        whether it is would tell something of the values. Raises PolicyRefusal when the label was drawn for another
        question or other values, ArtefactError when the journal is missing or damaged.
        """

        def entry() -> Entry:
            found = draw(values)
            return {"values": found.ravel().tolist(), "shape": list(found.shape)}

        question = f"asked {len(asked)} ".encode() + asked if asked else b""
        given = question + f"values {values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes()
        kept = self._once(label, given=given, entry=entry)
        return np.array(kept["values"], dtype=np.int64).reshape(kept["shape"])

    def secret(self, label: str, *, given: bytes) -> bytes:
        """32 bytes from the system for a computation on `given`, the same whenever it is done again.

        Who knows them can take the noise off: they never leave the site. Raises as `noised` does.
        """
        kept = self._once(label, given=b"secret " + given, entry=lambda: {"secret": secrets.token_hex(KEY_BYTES)})
        return bytes.fromhex(kept["secret"])

    def _once(self, label: str, *, given: bytes, entry: Callable[[], Entry]) -> Entry:
        mark = hmac.new(self._key(), given, hashlib.sha256).hexdigest()
        with self._file.appending() as journal:
            for known in journal.entries:
                if known["label"] == label:
                    _refuse_other(known, mark=mark, label=label)
                    return known
            made = {"label": label, "given": mark, **entry()}
            journal.append(made)
            return made

    def _key(self) -> bytes:
        path = self._root / KEY
        if not path.is_file() or path.stat().st_mode & 0o077 or path.stat().st_size != KEY_BYTES:
            raise ArtefactError.of(
                "key of the journal is missing, cut short or open to others",
                where=KEY,
                expected=f"{KEY_BYTES} bytes, mode 0600",
                do="fairsynth restore (docs/operations.md): alone it would go back in time",
            )
        return path.read_bytes()


def _write_key(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / KEY, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(secrets.token_bytes(KEY_BYTES))
        handle.flush()
        os.fsync(handle.fileno())
    sync_folder(root)


def _refuse_other(known: Entry, *, mark: str, label: str) -> None:
    if not hmac.compare_digest(known["given"], mark):
        raise PolicyRefusal.of(
            "noise was drawn for another input under this label",
            where=label,
            expected="the same input: a label is released once",
            do="use a new label, and charge it",
        )
