"""A site's part of one run: its key, and the others' keys; in the site's folder, for each message is a process.

In:  join and enrol requests.   Out: `masking/session.json`, `masking/epoch.key`, and `PairKeys`.
Never: a key of an earlier run; a run that is joined a second time; a private key that others can read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import NonNegativeInt
from pydantic import ValidationError as PydanticError

from fairsynth.artefacts import write_bytes, write_text
from fairsynth.config import Strict
from fairsynth.errors import PolicyRefusal, ProtocolError
from fairsynth.federation.masking.keys import Announcement, PairKeys, announce, check_announcements, pair_keys
from fairsynth.federation.masking.roster import Hex32, Roster
from fairsynth.governance.identity import Identity
from fairsynth.schemas import SiteId

FOLDER = "masking"
_SESSION, _KEY, _LOCK = "session.json", "epoch.key", "lock"


class Session(Strict):
    """`session.json`."""

    run: Hex32
    epoch: NonNegativeInt
    roster_sha256: Hex32
    own: Announcement
    announced: tuple[Announcement, ...] = ()  # of all sites, once they are known
    earlier: tuple[Hex32, ...] = ()  # runs of which the keys are gone


@dataclass(frozen=True, kw_only=True)
class Here:
    """The site that takes part."""

    root: Path
    site: SiteId
    identity: Identity
    roster: Roster

    @property
    def folder(self) -> Path:
        """Where the session is kept."""
        return self.root / FOLDER


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """One request of a site at a time: two at once could find the same label unused, and mask two vectors alike."""
    folder = root / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def join(here: Here, *, run: str, epoch: int) -> Announcement:
    """The site's key for this run: a new one, or the same when it is asked again.

    Raises PolicyRefusal for another epoch than the roster's, and for an earlier run.
    """
    if epoch != here.roster.epoch:
        raise PolicyRefusal.of("run of another epoch", where="join", expected=f"epoch {here.roster.epoch}")
    before = _read(here)
    if before and before.run == run and before.roster_sha256 == here.roster.sha256:
        return before.own
    earlier = (*before.earlier, before.run) if before else ()
    if run in earlier:
        raise PolicyRefusal.of("a run that is over", where="join", expected="a run of its own for each start")
    private = X25519PrivateKey.generate()
    own = announce(private, site=here.site, run=run, roster=here.roster, identity=here.identity)
    here.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes(here.folder / _KEY, private.private_bytes_raw())
    session = Session(run=run, epoch=epoch, roster_sha256=here.roster.sha256, own=own, earlier=earlier)
    _write(here, session)
    return own


def meet(here: Here, announced: Sequence[Announcement]) -> None:
    """Keep the keys of all sites. Raises ProtocolError unless they are valid, PolicyRefusal when others were kept."""
    session = _joined(here)
    check_announcements(announced, roster=here.roster, run=session.run)
    if session.announced and session.announced != tuple(announced):
        raise PolicyRefusal.of("other keys than before", where="enrol", expected="the keys of this run")
    _pair_keys(here, session, announced)
    _write(here, session.model_copy(update={"announced": tuple(announced)}))


def met(here: Here) -> tuple[Session, PairKeys]:
    """The session, and the site's pair keys. Raises ProtocolError before join and enrol."""
    session = _joined(here)
    if not session.announced:
        raise ProtocolError.of("request before the keys are known", where="masking", expected="join, then enrol")
    return session, _pair_keys(here, session, session.announced)


def _joined(here: Here) -> Session:
    session = _read(here)
    if session is None or session.roster_sha256 != here.roster.sha256:
        raise ProtocolError.of("request before join", where="masking", expected="join, then enrol")
    return session


def _pair_keys(here: Here, session: Session, announced: Sequence[Announcement]) -> PairKeys:
    path = here.folder / _KEY
    if not path.is_file() or path.stat().st_mode & 0o077:
        raise PolicyRefusal.of("key that is missing or that others can read", where=str(path), expected="mode 0600")
    private = X25519PrivateKey.from_private_bytes(path.read_bytes())
    return pair_keys(private, announced, site=here.site, roster=here.roster, run=session.run)


def _read(here: Here) -> Session | None:
    path = here.folder / _SESSION
    if not path.is_file():
        return None
    try:
        return Session.model_validate_json(path.read_text(encoding="utf-8"))
    except PydanticError:
        raise ProtocolError.of("damaged session", where=str(path), expected="as it was written") from None


def _write(here: Here, session: Session) -> None:
    write_text(here.folder / _SESSION, session.model_dump_json(indent=2) + "\n")
