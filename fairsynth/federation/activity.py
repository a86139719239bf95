"""What a running study is doing now: who was asked, who has answered, how long that took, how much travelled.

In:  requests before they are sent, replies as they come, journal events.   Out: `activity.json` in the server's folder.
Never: a number of a reply; a name or text that a site wrote; an error that stops the study, or a part in its result.

`fairsynth status` and `fairsynth metrics` read it. It is no part of what a study resumes from: without it nothing is
lost but the present picture.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt
from pydantic import ValidationError as PydanticError

from fairsynth import artefacts, plain_json
from fairsynth.config import Strict, StudyPlan
from fairsynth.errors import ArtefactError, FairSynthError
from fairsynth.federation.journal import Event
from fairsynth.federation.logbook import Logbook
from fairsynth.federation.messages import Envelope, Failed, TrainRequest
from fairsynth.federation.plans import plan_sha256
from fairsynth.schemas import SiteId

if TYPE_CHECKING:
    from fairsynth.federation.conversation import Transport

NAME = "activity.json"
_CODE = re.compile(r"FS-\d{3}")


class Answer(Strict):
    """A site's answer to the present request."""

    at: str
    seconds: NonNegativeFloat
    bytes: NonNegativeInt
    code: str = ""  # where the site says that it failed


class Seen(Strict):
    """A site, over the whole study; bytes of fields and arrays."""

    last_seen: str | None = None
    received_bytes: NonNegativeInt = 0
    sent_bytes: NonNegativeInt = 0
    replies: NonNegativeInt = 0
    failures: NonNegativeInt = 0


class Asked(Strict):
    """A request that was sent to sites."""

    phase: str
    at: str
    deadline: str
    open: bool = True  # whether replies are waited for
    waiting: tuple[SiteId, ...] = ()
    answered: dict[SiteId, Answer] = {}


class Committed(Strict):
    """The last round that was committed."""

    arm: str
    round: NonNegativeInt
    at: str
    seconds: NonNegativeFloat


class Picture(Strict):
    """`activity.json`."""

    schema_: Literal["fairsynth.activity/1"] = Field(default="fairsynth.activity/1", alias="schema")
    plan_sha256: str
    asked: Asked | None = None
    committed: Committed | None = None
    sites: dict[SiteId, Seen] = {}


class Activity:
    """Keeps the picture of one study up to date in the server's folder `root`."""

    def __init__(self, root: Path, *, plan: StudyPlan, log: Logbook) -> None:
        self._path, self._log = root / NAME, log
        now = read(root)
        study = plan_sha256(plan)
        self._picture = now if now and now.plan_sha256 == study else Picture(plan_sha256=study)
        self._picture.sites.update({site: Seen() for site in plan.roster if site not in self._picture.sites})
        self._begun = time.monotonic()

    def asking(self, requests: Mapping[SiteId, Envelope], *, timeout: float) -> None:
        """A request is about to be sent."""
        now = datetime.datetime.now(datetime.UTC)
        deadline = now + datetime.timedelta(seconds=timeout)
        phase = phase_of(next(iter(requests.values())))
        asked = Asked(phase=phase, at=now.isoformat(), deadline=deadline.isoformat(), waiting=tuple(sorted(requests)))
        self._begun = time.monotonic()
        for site, request in requests.items():
            if site in self._picture.sites:
                seen = self._picture.sites[site]
                self._know(site, seen.model_copy(update={"sent_bytes": seen.sent_bytes + _size(request)}))
        self._write(self._picture.model_copy(update={"asked": asked}))
        self._log.tell("asked", phase=phase)

    def answered(self, site: SiteId, envelope: Envelope) -> None:
        """A reply came; of a site that was not asked, or that answered already, nothing is kept."""
        asked = self._picture.asked
        if asked is None or site not in asked.waiting or site not in self._picture.sites:
            return
        now, size, code = datetime.datetime.now(datetime.UTC).isoformat(), _size(envelope), _code(envelope)
        seconds = round(time.monotonic() - self._begun, 3)
        seen = self._picture.sites[site]
        self._know(
            site,
            Seen(
                last_seen=now,
                received_bytes=seen.received_bytes + size,
                sent_bytes=seen.sent_bytes,
                replies=seen.replies + 1,
                failures=seen.failures + bool(code),
            ),
        )
        answer = Answer(at=now, seconds=seconds, bytes=size, code=code)
        waiting = tuple(one for one in asked.waiting if one != site)
        changes = {"waiting": waiting, "answered": {**asked.answered, site: answer}}
        self._write(self._picture.model_copy(update={"asked": asked.model_copy(update=changes)}))
        self._log.tell("answered", phase=asked.phase, site=site, code=code, seconds=seconds)

    def over(self) -> None:
        """No reply is waited for any more."""
        if self._picture.asked is not None:
            closed = self._picture.asked.model_copy(update={"open": False})
            self._write(self._picture.model_copy(update={"asked": closed}))

    def __call__(self, event: Event) -> None:
        """Of the journal's events: a round that was committed."""
        if event["event"] == "round":
            now = datetime.datetime.now(datetime.UTC).isoformat()
            done = Committed(arm=event["arm"], round=event["round"], at=now, seconds=event["seconds"])
            self._write(self._picture.model_copy(update={"committed": done}))

    def _know(self, site: SiteId, seen: Seen) -> None:
        self._picture = self._picture.model_copy(update={"sites": {**self._picture.sites, site: seen}})

    def _write(self, picture: Picture) -> None:
        self._picture = picture
        with contextlib.suppress(OSError):  # of a full disk: it is told where the study itself writes
            artefacts.write_text(self._path, picture.model_dump_json(by_alias=True, indent=1) + "\n")


class Watched:
    """Asks as `transport` does, and tells `activity`."""

    def __init__(self, transport: Transport, activity: Activity) -> None:
        self._transport, self._activity = transport, activity

    def ask(self, requests: Mapping[SiteId, Envelope], *, timeout: float) -> Iterator[tuple[SiteId, Envelope]]:
        """As `Transport.ask`."""
        self._activity.asking(requests, timeout=timeout)
        try:
            for site, envelope in self._transport.ask(requests, timeout=timeout):
                self._activity.answered(site, envelope)
                yield site, envelope
                del envelope
        finally:
            self._activity.over()


def read(root: Path) -> Picture | None:
    """The picture in the server's folder `root`; None where there is none that can be read."""
    try:
        return Picture.model_validate(plain_json.read(root / NAME))
    except (ArtefactError, PydanticError):
        return None


def phase_of(request: Envelope) -> str:
    """What is asked, for people: the kind of the request, of training arm and round too."""
    if request.kind != TrainRequest.kind:
        return request.kind
    body = TrainRequest.unpack(request)
    return f"train, arm {body.arm}, round {body.round}"


def _size(envelope: Envelope) -> int:
    return len(envelope.fields.encode()) + sum(array.nbytes for array in envelope.arrays.values())


def _code(envelope: Envelope) -> str:
    """The code of a reply that says that the site failed; empty of any other."""
    if envelope.kind != Failed.kind:
        return ""
    try:
        code = Failed.unpack(envelope).code
    except FairSynthError:  # its door refuses it later
        return "FS-302"
    return code if _CODE.fullmatch(code) else "FS-302"
