"""An artefact is a folder with a manifest, written atomically and checked when it is read.

In:  a root folder and a kind.   Out: `root/<kind>/`, whose `manifest.json` names schema, inputs' hashes and facts.
Never: a half-written artefact under its final name; pickle.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fairsynth import plain_json
from fairsynth.errors import ArtefactError

MANIFEST = "manifest.json"
LOCK = ".lock"  # in a temporary folder: held by the process that writes it
SCHEMA = 1
VERSIONED = ("fairsynth", "flwr", "numpy", "polars", "torch")


@cache
def code_version() -> str:
    """The installed version of FairSynth."""
    try:
        return version("fairsynth")
    except PackageNotFoundError:
        return "unknown"


def software_versions() -> dict[str, str]:
    """The versions of what a study's last bits depend on; `unknown` of what is not installed as a package."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_folder(folder: Path) -> str:
    """Hex SHA-256 over the names and contents of a folder's files, manifest and lock excepted."""
    entries = [
        (path.relative_to(folder).as_posix(), sha256_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, LOCK)
    ]
    return sha256_json(entries)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` so that readers see the old file or the new one, never a part."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write `parts`, one after the other, to `path` as `write_text` does; readable by this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            for part in parts:
                handle.write(part)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


@contextmanager
def new(root: Path, *, kind: str, inputs: Mapping[str, str], facts: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A temporary folder that becomes `root/kind` when the block ends well, and vanishes when it does not.

    `inputs` maps each input's name to its hash, `facts` are others (seed, counts, ...); both are stored in the manifest
    as they are when the block ends, so a caller may fill them inside the block.
    """
    facts = {} if facts is None else facts
    if not root.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        sync_folder(root.parent)
    temporary, lock = _claimed(root, kind)
    try:
        yield temporary
        manifest = {
            "schema": SCHEMA,
            "kind": kind,
            "code_version": code_version(),
            "inputs": dict(inputs),
            "content": sha256_folder(temporary),
            "facts": dict(facts),
        }
        write_json(temporary / MANIFEST, manifest)
        for path in temporary.rglob("*"):
            if path.is_file():
                _sync_file(path)
        with guarded(root):
            (temporary / LOCK).unlink()
            _swap(temporary, root / kind)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


def _claimed(root: Path, kind: str) -> tuple[Path, int]:
    """A new temporary folder and its lock, which ends with this process, however that ends.

    What a killed process left behind is removed first: temporary folders that nobody holds. The lock is on a file in
    the folder, not on the folder: an artefact may be written inside another's temporary folder.
    """
    with guarded(root):
        _sweep(root, kind)
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{kind}."))
        lock = os.open(temporary / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return temporary, lock


def sweep(root: Path, *, kind: str) -> None:
    """Remove what killed processes left of artefacts of this kind."""
    if root.is_dir():
        with guarded(root):
            _sweep(root, kind)


@contextmanager
def guarded(root: Path) -> Iterator[None]:
    """One process at a time: it looks for what was left, makes a temporary folder, or gives one its name."""
    guard = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _sweep(root: Path, kind: str) -> None:
    for left in (*root.glob(f".{kind}.*"), *root.glob(f".old.{kind}.*")):
        if not _is_held(left / LOCK):
            shutil.rmtree(left, ignore_errors=True)


def _is_held(path: Path) -> bool:
    """Whether a process holds this lock."""
    try:
        lock = os.open(path, os.O_RDWR)
    except OSError:  # no lock, nobody
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def read_manifest(folder: Path, *, kind: str, verify: bool = False) -> dict[str, Any]:
    """The manifest of the artefact at `folder`; with `verify`, its files' hash is compared too.

    Raises ArtefactError when the folder is missing, of another kind or schema, or (with `verify`) altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtefactError.of(f"no {kind} artefact", where=str(folder), do="run the step that writes it first")
    try:
        manifest: dict[str, Any] = dict(plain_json.read(path))
    except (ArtefactError, ValueError, TypeError):
        raise ArtefactError.of("damaged manifest", where=str(path), do="run its step again") from None
    if manifest.get("schema") != SCHEMA or manifest.get("kind") != kind:
        raise ArtefactError.of(
            "artefact of another kind or schema",
            where=str(path),
            expected=f"kind {kind!r}, schema {SCHEMA}",
            do="delete the folder, then run its step again",
        )
    if verify and manifest.get("content") != sha256_folder(folder):
        raise ArtefactError.of("artefact altered since it was written", where=str(folder), do="run its step again")
    return manifest


def read_flow(folder: Path) -> dict[str, int]:
    """The cohort flow (step -> count) that an events or visits artefact keeps in `flow.json`, in order."""
    flow: dict[str, int] = plain_json.read(folder / "flow.json")
    return flow


def _swap(temporary: Path, final: Path) -> None:
    """Put `temporary` in the place of `final`."""
    if final.exists():
        old = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".old.{final.name}."))
        final.rename(old / final.name)
        temporary.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(final)
    sync_folder(final.parent)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk."""
    _sync_file(path)
