"""Whose folder it is: a server's, a site's, a coordinator's.

In:  a path.   Out: `Folder`: what it is, and where the files are.
Never: a guess: a folder that is none of the three is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairsynth.errors import ConfigError
from fairsynth.federation import journal
from fairsynth.federation.server_folder import PLAN
from fairsynth.operations.archive import Kind

SITE, AUTHORITY, SERVER = "site.json", "ca.key", "server"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder that FairSynth made."""

    kind: Kind
    root: Path  # of a run: its `server/`


def find_folder(path: Path) -> Folder:
    """What is at `path`: a run or its server's folder, a site's folder, a coordinator's. Raises ConfigError."""
    if (path / SITE).is_file():
        return Folder(kind="site", root=path)
    if (path / AUTHORITY).exists():
        return Folder(kind="coordinator", root=path)
    for root in (path / SERVER, path):
        if (root / PLAN).is_file() or (root / journal.NAME).is_file():
            return Folder(kind="server", root=root)
    raise ConfigError.of(
        "no folder of FairSynth",
        where=str(path),
        expected=f"a run or its server's folder ({PLAN}), a site's ({SITE}), or a coordinator's ({AUTHORITY})",
        do="give the folder itself; of a study that was only just submitted, wait for its first request",
    )
