"""The site's ledger: what left, when, to which study; every line chained to the one before and signed by the site.

In:  facts of a release, the site's key.   Out: `ledger.jsonl`, on disk before anything leaves; what is wrong with one.
Never: a line that is changed or removed; a number, a code or a name of a patient.

A line is a JSON object. `previous` is the `hash` of the line before it (64 zeros in the first), `hash` the SHA-256 of
the line's other fields in canonical JSON, `signature` Ed25519 over that hash. `ledger.head` repeats the last line's
number and hash after each append: a ledger that ends earlier was cut. Whoever may write both files can put back an
older pair of them; only a hash noted elsewhere shows that (`find_fault` with `expected`).
"""

from __future__ import annotations

import datetime
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic import ValidationError as PydanticError

from fairsynth import artefacts
from fairsynth.config import Strict
from fairsynth.errors import LedgerDamaged
from fairsynth.governance.identity import Identity, read_public, verify

NAME, HEAD, LOCK = "ledger.jsonl", "ledger.head", "ledger.lock"
TORN = "ledger.torn"  # then a number: what a crash left of a line
START = "0" * 64
PURPOSE = b"fairsynth.ledger/1\0"

Happened = Literal["approved", "released", "resent", "repaired", "restored", "settled"]


class Facts(Strict):
    """What happened, as the site writes it down."""

    event: Happened
    study: str = ""  # SHA-256 of the plan; empty where a refused request named none
    kind: str = ""  # of the message
    label: str = ""  # which message of its kind: the same request gives the same label
    bytes: NonNegativeInt = 0  # of fields and arrays
    sha256: str = ""  # of what left; of an approval's file; of what a crash left
    arrays: dict[str, NonNegativeInt] = {}  # name in the policy -> values that left under it
    masked: tuple[str, ...] = ()  # those that were masked
    epsilon: NonNegativeFloat | None = None  # privacy loss that this release adds, where it was measured
    cohort: str = ""  # hash of the site's events, from its first release on
    officer: str = ""  # who approved, or settled
    resend_of: PositiveInt | None = None


class Entry(Facts):
    """One line."""

    number: PositiveInt
    time: str
    previous: str
    hash: str
    signature: str

    @property
    def expected_hash(self) -> str:
        """The hash that the line's own fields give."""
        return artefacts.sha256_json(self.model_dump(mode="json", exclude={"hash", "signature"}))


class Head(Strict):
    """`ledger.head`: where the ledger ends."""

    number: NonNegativeInt
    hash: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The first thing wrong with a ledger, and the line that it is on."""

    line: int
    what: str


@dataclass(kw_only=True)
class Ledger:
    """The ledger of one site, for the process that holds its lock: read and checked once, then only added to."""

    root: Path
    identity: Identity
    _entries: list[Entry] | None = field(default=None, init=False)

    def append(self, facts: Facts, *, now: datetime.datetime) -> Entry:
        """Write a line and wait until it is on disk. Raises LedgerDamaged when the ledger is not as it was written."""
        entries = self.entries(now=now)
        entries.append(self._written(entries, facts, now=now))
        return entries[-1]

    def entries(self, *, now: datetime.datetime) -> list[Entry]:
        """All lines, after what a crash left was moved aside. Raises LedgerDamaged."""
        if self._entries is None:
            self._entries = self._sound(now)
        return self._entries

    def _written(self, entries: list[Entry], facts: Facts, *, now: datetime.datetime) -> Entry:
        previous = entries[-1].hash if entries else START
        values = {**facts.model_dump(), "number": len(entries) + 1, "time": now.isoformat(), "previous": previous}
        unsigned = Entry(**values, hash="", signature="")
        digest = unsigned.expected_hash
        signature = self.identity.sign(_signed(digest)).hex()
        entry = unsigned.model_copy(update={"hash": digest, "signature": signature})
        if entry.number == 1 and not (self.root / HEAD).is_file():
            artefacts.write_json(
                self.root / HEAD, {"number": 0, "hash": START}
            )  # so that lines without a head are a fault
        _write_line(self.root / NAME, entry.model_dump_json() + "\n")
        _write_head(self.root, entry)
        return entry

    def _sound(self, now: datetime.datetime) -> list[Entry]:
        """The lines, each checked; the chain is, and the last signature, which stands for all before it."""
        torn = _take_torn(self.root)
        entries, fault = _chained(self.root)
        if fault is None and entries and not _is_signed(entries[-1], self.identity.public):
            fault = Fault(line=len(entries), what="not signed by this site")
        if fault is not None:
            raise _damaged(self.root, fault)
        if entries and _head(self.root).number < len(entries):  # killed between the two; a second time would be a fault
            _write_head(self.root, entries[-1])
        if torn is not None:
            entries.append(self._written(entries, torn, now=now))
        return entries


@contextmanager
def opened(root: Path, *, identity: Identity) -> Iterator[Ledger]:
    """The ledger of the site at `root`, for one process at a time."""
    lock = os.open(root / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Ledger(root=root, identity=identity)
    finally:
        os.close(lock)


def read(root: Path) -> list[Entry]:
    """The whole lines of a ledger, oldest first, whether it is sound or not; those that are no entries are left out."""
    entries = []
    for line in _lines(root):
        try:
            entries.append(Entry.model_validate_json(line))
        except PydanticError:
            continue
    return entries


def find_fault(root: Path, *, public: bytes | None = None, expected: str | None = None) -> Fault | None:
    """What is wrong with the ledger of the site at `root`, by its first line; None if it is as it was written.

    `public` is the site's key where it is known from elsewhere, `expected` a hash that was noted: a line must have it.
    Raises KeyRefused when no public key is to be had.
    """
    key = read_public(root) if public is None else public
    entries, fault = _chained(root)
    for entry in entries:
        if not _is_signed(entry, key):
            return Fault(line=entry.number, what="not signed by this site")
    if fault is not None:
        return fault
    if expected is not None and expected not in {entry.hash for entry in entries}:
        return Fault(line=len(entries) + 1, what="no line has the hash that was noted: lines are missing, or rewritten")
    return None


def has_torn_line(root: Path) -> bool:
    """Whether a crash left part of a line, which the next release moves aside."""
    path = root / NAME
    content = path.read_bytes() if path.is_file() else b""
    return bool(content) and not content.endswith(b"\n")


def _chained(root: Path) -> tuple[list[Entry], Fault | None]:
    """The lines up to the first that does not follow from the one before, or does not agree with the head."""
    entries: list[Entry] = []
    previous = START
    for number, line in enumerate(_lines(root), start=1):
        entry = _entry(line)
        if entry is None:
            return entries, Fault(line=number, what="no line of a ledger")
        if entry.number != number:
            return entries, Fault(line=number, what=f"numbered {entry.number}: lines are missing or out of order")
        if entry.previous != previous:
            return entries, Fault(line=number, what="does not follow from the line before it")
        if entry.hash != entry.expected_hash:
            return entries, Fault(line=number, what="altered since it was written")
        entries.append(entry)
        previous = entry.hash
    return entries, _disagreement(root, entries)


def _entry(line: bytes) -> Entry | None:
    """The line, if it is written exactly as the ledger writes: nothing can hide in spaces or in a second key."""
    try:
        entry = Entry.model_validate_json(line)
    except PydanticError:
        return None
    return entry if entry.model_dump_json().encode() == line else None


def _disagreement(root: Path, entries: list[Entry]) -> Fault | None:
    """What the head says against the lines. A crash between the two leaves the head one line behind, no more."""
    path = root / HEAD
    if not path.is_file():
        return Fault(line=len(entries), what=f"{HEAD} is missing") if entries else None
    try:
        head = _head(root)
    except (PydanticError, UnicodeDecodeError):
        return Fault(line=len(entries), what=f"{HEAD} is damaged")
    if head.number > len(entries):
        return Fault(line=len(entries) + 1, what=f"cut: {head.number} lines were written")
    if len(entries) - head.number > 1:
        return Fault(line=head.number + 1, what=f"{HEAD} is older than the lines")
    if head.number and entries[head.number - 1].hash != head.hash:
        return Fault(line=head.number, what=f"another line than {HEAD} says")
    return None


def _head(root: Path) -> Head:
    return Head.model_validate_json((root / HEAD).read_text(encoding="utf-8"))


def _write_head(root: Path, last: Entry) -> None:
    artefacts.write_json(root / HEAD, {"number": last.number, "hash": last.hash})


def _lines(root: Path) -> list[bytes]:
    """Whole lines, without their ends; what follows the last end is none."""
    path = root / NAME
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _take_torn(root: Path) -> Facts | None:
    """Move what a crash left after the last whole line into a file of its own; the facts of that."""
    path = root / NAME
    content = path.read_bytes() if path.is_file() else b""
    whole = content.rfind(b"\n") + 1
    torn = content[whole:]
    if not torn:
        return None
    number = len(list(root.glob(f"{TORN}.*"))) + 1
    aside = root / f"{TORN}.{number}"
    with aside.open("xb") as handle:
        handle.write(torn)
        handle.flush()
        os.fsync(handle.fileno())
    with path.open("r+b") as handle:
        handle.truncate(whole)
        os.fsync(handle.fileno())
    return Facts(event="repaired", bytes=len(torn), sha256=artefacts.sha256_file(aside), label=aside.name)


def _write_line(path: Path, line: str) -> None:
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as handle:
        handle.write(line)
        handle.flush()
        os.fsync(handle.fileno())
    if is_new:
        artefacts.sync_folder(path.parent)


def _is_signed(entry: Entry, public: bytes) -> bool:
    try:
        signature = bytes.fromhex(entry.signature)
    except ValueError:
        return False
    is_canonical = signature.hex() == entry.signature  # one way to write it, so that no byte is free
    return is_canonical and verify(public, _signed(entry.hash), signature)


def _signed(digest: str) -> bytes:
    return PURPOSE + digest.encode()


def _damaged(root: Path, fault: Fault) -> LedgerDamaged:
    return LedgerDamaged.of(
        f"ledger damaged: {fault.what}",
        where=f"{root / NAME}:{fault.line}",
        expected="the lines as they were written",
        do="nothing leaves until it is mended: find out who changed it, then put back a copy",
    )


__all__ = ["Entry", "Facts", "Fault", "Ledger", "find_fault", "has_torn_line", "opened", "read"]
