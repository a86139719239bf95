"""A backup's file: an uncompressed tar with a manifest before the files, each with its SHA-256.

In:  named files of a folder.   Out: one file, the same bytes for the same content; or the files again, each checked.
Never: a link, a device, a name that leaves the folder; a file that the manifest does not have, or has otherwise; a
member that is written before its name and size are checked; anything in place before all of it is sound.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import Field, NonNegativeInt
from pydantic import ValidationError as PydanticError

from fairsynth import artefacts, plain_json
from fairsynth.config import Strict
from fairsynth.errors import ArtefactError

MANIFEST = "manifest.json"
FILES = "files/"
MOST_FILES = 20_000
MOST_BYTES = 256 << 30  # of all files
MOST_MANIFEST_BYTES = 8 << 20
CHUNK = 1 << 20

Kind = Literal["server", "coordinator", "site"]

# Names of ASCII without a space at a part's ends, no `.` or `..` part, no leading slash, no backslash or colon.
_NAME = re.compile(
    r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._-][A-Za-z0-9._ -]*(?:/[A-Za-z0-9._-][A-Za-z0-9._ -]*){0,15}"
)


class Stored(Strict):
    """A file."""

    bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Strict):
    """`manifest.json`."""

    schema_: Literal["fairsynth.backup/1"] = Field(default="fairsynth.backup/1", alias="schema")
    kind: Kind
    name: str  # of the study, the site or the consortium
    versions: dict[str, str]
    files: dict[str, Stored]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(one.bytes for one in self.files.values())


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A backup's file that was read whole: its manifest and the SHA-256 of that."""

    manifest: Manifest
    sha256: str


def write(out: Path, files: Mapping[str, Path], *, kind: Kind, name: str, versions: Mapping[str, str]) -> Archive:
    """Write `files`, by the name that they are to have, to `out`, mode 0600.

    Raises ArtefactError when `out` exists, or a file has a name that no backup can have.
    """
    if unfit := [one for one in files if not _is_name(one)]:
        raise ArtefactError.of(
            "file of a name that a backup cannot have", where=unfit[0], expected="letters and digits"
        )
    if out.exists():
        raise ArtefactError.of("file exists already", where=str(out), do="another --out")
    stored = {
        one: Stored(bytes=path.stat().st_size, sha256=artefacts.sha256_file(path))
        for one, path in sorted(files.items())
    }
    manifest = Manifest(kind=kind, name=name, versions=dict(sorted(versions.items())), files=stored)
    text = (manifest.model_dump_json(by_alias=True, indent=1) + "\n").encode()
    partial = out.with_name(f".{out.name}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            with tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as tar:
                tar.addfile(_member(MANIFEST, len(text)), io.BytesIO(text))
                for one, facts in stored.items():
                    with files[one].open("rb") as source:
                        tar.addfile(_member(f"{FILES}{one}", facts.bytes), source)
            handle.flush()
            os.fsync(handle.fileno())
        _verify(partial, manifest)  # a file that changed meanwhile
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    artefacts.sync_folder(out.parent)
    return Archive(manifest=manifest, sha256=hashlib.sha256(text).hexdigest())


def read(path: Path, to: Path | None = None) -> Archive:
    """Check the whole backup at `path`; with `to`, an empty folder, write its files there, mode 0600.

    Raises ArtefactError on the first thing wrong with it: what stands in `to` then is of no use.
    """
    try:
        with tarfile.open(path, mode="r:") as tar:  # uncompressed: as long as it says
            manifest, text = _manifest(tar, path)
            left = dict(manifest.files)
            for number, member in enumerate(tar, start=0):
                if number == 0:
                    continue  # the manifest
                name = member.name.removeprefix(FILES)
                facts = left.pop(name, None) if member.name.startswith(FILES) else None
                _check_member(member, facts, path, to=to)
                source = tar.extractfile(member)
                if facts is None or source is None or _copied(source, to / name if to else None) != facts.sha256:
                    raise _unfit(path, f"{name}: as the manifest has it")
    except (tarfile.TarError, EOFError, OSError, UnicodeDecodeError):
        raise _unfit(path, "a file that `fairsynth backup` wrote, whole") from None
    if left:
        raise _unfit(path, f"{min(left)}, which the manifest has")
    return Archive(manifest=manifest, sha256=hashlib.sha256(text).hexdigest())


def _verify(path: Path, manifest: Manifest) -> None:
    if read(path).manifest != manifest:
        raise _unfit(path, "what was to be written")


def _manifest(tar: tarfile.TarFile, path: Path) -> tuple[Manifest, bytes]:
    first = tar.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > MOST_MANIFEST_BYTES:
        raise _unfit(path, "a manifest before everything else")
    source = tar.extractfile(first)
    text = source.read() if source is not None else b""
    try:
        manifest = Manifest.model_validate(plain_json.parse(text.decode(), where=str(path)))
    except PydanticError:
        raise _unfit(path, "a manifest of this version of FairSynth") from None
    if len(manifest.files) > MOST_FILES or manifest.bytes > MOST_BYTES:
        raise _unfit(path, f"at most {MOST_FILES:,} files of {MOST_BYTES:,} bytes in all")
    if unfit := [one for one in manifest.files if not _is_name(one)]:
        raise _unfit(path, f"names within the folder; {len(unfit)} are not")
    return manifest, text


def _check_member(member: tarfile.TarInfo, facts: Stored | None, path: Path, *, to: Path | None) -> None:
    if facts is None:
        raise _unfit(path, "files of the manifest, each once, and none beside them")
    if not member.isreg() or member.issparse() or member.linkname or member.size != facts.bytes:
        raise _unfit(path, "plain files of the size that the manifest tells")
    if to is not None:
        tarfile.data_filter(member, str(to))  # Python's own rules beside ours: raises FilterError, a TarError


def _copied(source: IO[bytes], target: Path | None) -> str:
    """SHA-256 of `source`, which is written to `target` if there is one."""
    digest = hashlib.sha256()
    if target is None:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
        return digest.hexdigest()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            handle.write(chunk)
        handle.flush()
        os.fsync(handle.fileno())
    return digest.hexdigest()


def _member(name: str, size: int) -> tarfile.TarInfo:
    """What a tar tells of a file; nothing of the machine, the user or the time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, 0
    return member


def _is_name(name: str) -> bool:
    return len(name) <= 240 and _NAME.fullmatch(name) is not None


def _unfit(path: Path, expected: str) -> ArtefactError:
    return ArtefactError.of(
        "backup cannot be restored", where=str(path), expected=expected, do="another copy of it, or an older backup"
    )
