"""Who may read a private file, and who may write the folder it is in.

In:  a folder of a coordinator, a server or a site.   Out: the problems, each with its mend; or the bytes of one key.
Never: a private file that is opened before its owner and mode are known; a link that is followed.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fairsynth.errors import KeyRefused, Problem

Who = Literal["coordinator", "server", "site"]

# What each must have; other files of these endings are private too.
REQUIRED: dict[Who, tuple[str, ...]] = {
    "coordinator": ("ca.key", "server/server.key", "server/superexec.secret", "server/control.secret"),
    "server": ("server.key", "superexec.secret"),  # the administrator's password need not be on the server
    "site": ("identity.key", "supernode.key", "superexec.secret"),
}
PRIVATE_ENDINGS = (".key", ".key.new", ".secret")
_FOLDERS: dict[Who, tuple[str, ...]] = {
    "coordinator": (".", "server", "server/supernodes", "kits", "sites", "grants", "flwr"),
    "server": (".", "supernodes", "flwr"),
    "site": (".",),
}
_EXTRA = ("config.toml",)  # in flwr/: holds the administrator's password


def check_permissions(folder: Path, who: Who) -> None:
    """Raise KeyRefused, with a problem for each wrong file, unless `folder` keeps its private files to this user."""
    if problems := permission_problems(folder, who):
        raise KeyRefused(problems)


def check_modes(site: Path) -> None:
    """Raise KeyRefused when a private file of a site can be read by others; whose it is does not count.

    For the process that works for the SuperNode: it may run as another user than that, with an identity of its own. A
    device in a key's place, as containers have where the key is not theirs, holds nothing.
    """
    modes = {path: path.lstat().st_mode for path in private_files(site)}
    paths = [path for path, mode in modes.items() if stat.S_IMODE(mode) & 0o177 and not stat.S_ISCHR(mode)]
    if problems := [problem for path in paths for problem in file_problems(path)]:
        raise KeyRefused(problems)


def permission_problems(folder: Path, who: Who, *, complete: bool = False) -> list[Problem]:
    """What is wrong with owner or mode of files and folders; with `complete`, private files that are missing too."""
    folders = [folder / name if name != "." else folder for name in _FOLDERS[who]]
    there = [one for one in folders if one.exists() or one.is_symlink()]
    problems = [problem for one in there for problem in _folder_problems(one)]
    problems += [problem for one in there for path in private_files(one) for problem in file_problems(path)]
    if complete:
        missing = [folder / name for name in REQUIRED[who] if not (folder / name).exists()]
        problems += [Problem(what="missing private file", where=str(path), do=_MAKES[who]) for path in missing]
    return problems


_MAKES: dict[Who, str] = {
    "coordinator": "restore the coordinator's folder from its backup",
    "server": "copy it from the coordinator's folder, or `fairsynth provision renew` makes a new one there",
    "site": "fairsynth provision request makes it",
}


def private_files(folder: Path) -> Iterator[Path]:
    """Files of `folder` itself that only their owner may read."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.endswith(PRIVATE_ENDINGS) or (folder.name == "flwr" and path.name in _EXTRA):
            yield path


def file_problems(path: Path) -> list[Problem]:
    """What is wrong with a private file."""
    return _status_problems(path.lstat(), path)


def read_private(path: Path) -> bytes:
    """The bytes of a private file. Raises KeyRefused when it is missing, or not this user's alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise KeyRefused.of("missing private file", where=str(path)) from None
    except OSError:
        raise KeyRefused.of("private file cannot be read", where=str(path), expected="a file of this user") from None
    with os.fdopen(descriptor, "rb") as handle:
        if problems := _status_problems(os.fstat(handle.fileno()), path):
            raise KeyRefused(problems)
        return handle.read()


def _status_problems(status: os.stat_result, path: Path) -> list[Problem]:
    where, mode = str(path), stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return [Problem(what="private file is a link or no file", where=where, do="put the file itself there")]
    if status.st_uid != os.geteuid():
        return [
            Problem(what=f"private file of another user (uid {status.st_uid})", where=where, do=_chown(path)),
        ]
    if mode & 0o177:
        what = f"private file of mode {mode:04o}"
        return [Problem(what=what, where=where, expected="0600", do=f"chmod 600 {shlex.quote(where)}")]
    return []


def _folder_problems(path: Path) -> list[Problem]:
    status, where = path.stat(), str(path)
    if not stat.S_ISDIR(status.st_mode):
        return [Problem(what="not a folder", where=where)]
    if status.st_uid != os.geteuid():
        return [Problem(what=f"folder of another user (uid {status.st_uid})", where=where, do=_chown(path))]
    if stat.S_IMODE(status.st_mode) & 0o022:
        what = f"folder of mode {stat.S_IMODE(status.st_mode):04o}, which others can write"
        return [Problem(what=what, where=where, expected="0700", do=f"chmod 700 {shlex.quote(where)}")]
    return []


def _chown(path: Path) -> str:
    return f"chown {os.geteuid()} {shlex.quote(str(path))}"
