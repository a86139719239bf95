"""Where a study stands, at its server.

In:  the server's folder; a study may run there.   Out: `ServerStatus`.
Never: a count of patients, of a group or of one site; a change in the folder; a wait for the server's lock.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError as PydanticError

from fairsynth import plain_json
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError
from fairsynth.federation import activity, journal
from fairsynth.federation.activity import Picture
from fairsynth.federation.journal import Event
from fairsynth.federation.plans import ARMS, FAIRSYNTH, plan_sha256
from fairsynth.federation.server_folder import FINISHED, PLAN, ROUND, STUDY, is_taken
from fairsynth.schemas import SiteId

State = Literal["waiting", "running", "stopped", "failed", "finished"]
MEAN_OF = 5  # last rounds, for the time that is left


@dataclass(frozen=True, kw_only=True)
class SiteSeen:
    """A site of the roster; bytes are those of fields and arrays, over the whole study."""

    site: str
    last_seen: str | None
    waited_for: bool
    code: str  # of its answer to the last request, where it says that it failed
    seconds: float | None  # that its last answer took
    received_bytes: int
    sent_bytes: int
    failures: int


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """What `fairsynth status` tells of a server. Times are UTC, in ISO 8601."""

    study: str
    plan_sha256: str
    profile: str
    state: State
    code: str  # why it failed
    started: str | None
    versions: dict[str, str]
    phase: str | None
    asked: str | None
    deadline: str | None
    answered: int  # sites, to the last request
    expected: int
    arm: str | None
    rounds: dict[str, int]  # committed, by arm
    planned: dict[str, int]
    last_commit: str | None
    last_round_seconds: float | None
    seconds_left: float | None  # of training; what follows it is not estimated
    loss: float | None  # L_F of the last round that has one
    nll_validation: float | None  # nats a visit
    refused: int
    restarts: int
    epsilon: float | None
    delta: float | None
    disk_used: int
    disk_free: int
    sites: tuple[SiteSeen, ...]


def server_status(root: Path) -> ServerStatus:
    """Where the study at `root` stands. Raises ArtefactError when there is no plan, or a damaged one."""
    plan = _plan(root / PLAN)
    path, taken = root / journal.NAME, is_taken(root)
    events = _since_begun(journal.scan(path).events)
    ever = _since_begun(tuple(journal.history(path)))
    study = plan_sha256(plan)
    found = activity.read(root)
    picture = found if found and found.plan_sha256 == study else Picture(plan_sha256=study)
    begun = next((event for event in events if event["event"] == STUDY), {})
    noise = next((event for event in events if event["event"] == "privacy"), {})
    rounds = [event for event in events if event["event"] == ROUND]
    committed = {arm: sum(event["arm"] == arm for event in rounds) for arm in ARMS}
    planned = {arm: _planned(plan, arm) for arm in ARMS}
    asked, waits = picture.asked, taken and picture.asked is not None and picture.asked.open
    return ServerStatus(
        study=plan.name,
        plan_sha256=study,
        profile=plan.privacy.profile,
        state=_state(events, ever, taken=taken),
        code=_code(ever, taken=taken),
        started=begun.get("started"),
        versions=begun.get("versions", {}),
        phase=asked.phase if asked else None,
        asked=asked.at if asked else None,
        deadline=asked.deadline if asked and waits else None,
        answered=len(asked.answered) if asked else 0,
        expected=len(asked.answered) + len(asked.waiting) if asked else len(plan.roster),
        arm=rounds[-1]["arm"] if rounds else None,
        rounds=committed,
        planned=planned,
        last_commit=picture.committed.at if picture.committed and rounds else None,
        last_round_seconds=rounds[-1]["seconds"] if rounds else None,
        seconds_left=_left(rounds, sum(planned.values()) - sum(committed.values())),
        loss=_last(rounds, "loss"),
        nll_validation=_last(rounds, "nll_validation"),
        refused=sum(event["event"] == "refused" for event in ever),
        restarts=sum(event["event"] == journal.RESUMED for event in ever),
        epsilon=noise.get("epsilon"),
        delta=noise.get("delta"),
        disk_used=_used(root),
        disk_free=shutil.disk_usage(root).free,
        sites=tuple(_seen(site, picture, waits=waits) for site in plan.roster),
    )


def _plan(path: Path) -> StudyPlan:
    try:
        return StudyPlan.model_validate(plain_json.read(path))
    except PydanticError:
        raise ArtefactError.of(
            "plan that this version cannot read",
            where=str(path),
            expected="as it was written",
            do="fairsynth upgrade check FOLDER, or the version that wrote it",
        ) from None


def _since_begun(events: Sequence[Event]) -> tuple[Event, ...]:
    """Those of the last study that began in this folder."""
    starts = [place for place, event in enumerate(events) if event["event"] == STUDY]
    return tuple(events[starts[-1] :] if starts else events)


def _state(events: Sequence[Event], ever: Sequence[Event], *, taken: bool) -> State:
    if events and events[-1]["event"] == FINISHED:
        return "finished"
    if taken:
        return "running"
    if not ever:
        return "waiting"
    return "failed" if ever[-1]["event"] == "failed" else "stopped"


def _code(ever: Sequence[Event], *, taken: bool) -> str:
    return str(ever[-1]["code"]) if ever and ever[-1]["event"] == "failed" and not taken else ""


def _planned(plan: StudyPlan, arm: str) -> int:
    """The requests of an arm: its rounds, and one without training where the model is counted at the end."""
    return plan.training.rounds + (not plan.privacy.noised or arm == FAIRSYNTH)


def _left(rounds: Sequence[Event], number: int) -> float | None:
    last = [float(event["seconds"]) for event in rounds[-MEAN_OF:]]
    return sum(last) / len(last) * number if last and number > 0 else None


def _last(rounds: Sequence[Event], name: str) -> float | None:
    """Of the last round that has one: counts with noise are not asked in every round."""
    return next((float(event[name]) for event in reversed(rounds) if event.get(name) is not None), None)


def _seen(site: SiteId, picture: Picture, *, waits: bool) -> SiteSeen:
    seen, asked = picture.sites.get(site, activity.Seen()), picture.asked
    answer = asked.answered.get(site) if asked else None
    return SiteSeen(
        site=site,
        last_seen=seen.last_seen,
        waited_for=bool(waits and asked and site in asked.waiting),
        code=answer.code if answer else "",
        seconds=answer.seconds if answer else None,
        received_bytes=seen.received_bytes,
        sent_bytes=seen.sent_bytes,
        failures=seen.failures,
    )


def _used(root: Path) -> int:
    """Bytes of the folder's files; what goes meanwhile is not counted."""
    total = 0
    for folder, _, names in os.walk(root):  # unlike a glob, it goes on past a folder that went
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).stat().st_size
    return total


def is_over(status: ServerStatus) -> bool:
    """Whether nothing more happens unless somebody goes on with it."""
    return status.state in ("finished", "failed", "stopped")


def seconds_since(moment: str) -> float:
    """Since a time in ISO 8601."""
    return (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(moment)).total_seconds()


__all__ = ["ServerStatus", "SiteSeen", "is_over", "seconds_since", "server_status"]
