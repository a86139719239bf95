"""What one server keeps of one study, for one process at a time: journal, committed rounds, exchanges, the run's name.

In:  the server's folder, a plan, whether the study goes on.   Out: `Desk`, with the history that the loop replays.
Never: two servers on the same folder; a committed round that a fresh start overwrites; a resumed study of another plan.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import NonNegativeInt
from pydantic import ValidationError as PydanticError

from fairsynth import artefacts, plain_json
from fairsynth.config import Strict, StudyPlan
from fairsynth.errors import ArtefactError, ConfigError, EngineError
from fairsynth.federation import journal as journals
from fairsynth.federation.commits import Commits, Committed
from fairsynth.federation.exchanges import Exchanges
from fairsynth.federation.journal import RESUMED, Event, Journal, Progress
from fairsynth.federation.masking.roster import Hex32
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.server_folder import FINISHED, LOCK, PLAN, ROUND, STUDY, is_begun

DAMAGED = "journal.damaged.jsonl"
_RUN = "run.json"
_GLANCE_SECONDS = 1.0

Model = TypeVar("Model", bound=Strict)


class _Run(Strict):
    """`run.json`."""

    run: Hex32
    after: NonNegativeInt  # events that the journal had when the study began: those of another before it


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A server's folder, opened; `run` names the run to masked sites and stays while the study is resumed."""

    root: Path
    plan: StudyPlan
    journal: Journal
    commits: Commits
    exchanges: Exchanges
    run: str
    committed: tuple[Committed, ...] = ()  # sound, oldest first
    finished: bool = False

    def latest(self, arm: str) -> Committed | None:
        """The last committed round of an arm."""
        found = [one for one in self.committed if one.course.model.arm == arm]
        return found[-1] if found else None

    def close(self) -> None:
        """The study has finished: what was kept to go on from goes, the committed rounds aside."""
        self.exchanges.clear()


@contextlib.contextmanager
def opened(root: Path, *, plan: StudyPlan, resume: bool, progress: Progress, attempt: str = "") -> Iterator[Desk]:
    """The desk of `plan` at `root`: a new one, or with `resume` the one that is there.

    `attempt` names this start in the journal, so that whoever asked for it knows which events are its own.

    Raises EngineError when another process has it, ConfigError when a new one would overwrite committed rounds or there
    is nothing to resume, ArtefactError when what is there cannot be resumed.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root):
        yield _resumed(root, plan, progress, attempt) if resume else _new(root, plan, progress)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time; the lock ends with it, however it ends."""
    lock = os.open(root / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if not _got(lock):
            raise EngineError.of(
                "another server works in this folder",
                where=str(root),
                expected="one server a study",
                do="wait for its end, or stop its processes",
            )
        yield
    finally:
        os.close(lock)


def _got(lock: int) -> bool:
    """Whether the lock is ours; who only looks whether it is taken (`is_taken`) has it for a moment."""
    deadline = time.monotonic() + _GLANCE_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_GLANCE_SECONDS / 20)
        else:
            return True


def _new(root: Path, plan: StudyPlan, progress: Progress) -> Desk:
    run = secrets.token_hex(32)
    commits, exchanges = Commits(root, plan=plan, run=run), Exchanges(root, run=run)
    if commits.names() and is_begun(root):
        raise ConfigError.of(
            "a study with committed rounds is here",
            where=str(root),
            expected="an empty folder, or --resume",
            do="go on with --resume, or start in another folder",
        )
    commits.clear()
    exchanges.clear()
    journal = Journal(root, progress=progress)
    artefacts.write_json(root / _RUN, _Run(run=run, after=journal.position).model_dump())
    artefacts.write_text(root / PLAN, plan.model_dump_json(by_alias=True, indent=2) + "\n")
    return Desk(root=root, plan=plan, journal=journal, commits=commits, exchanges=exchanges, run=run)


def _resumed(root: Path, plan: StudyPlan, progress: Progress, attempt: str) -> Desk:
    """The desk as it was left; the journal is mended first, then tells where the study goes on."""
    _check_plan(root, plan)
    known = _read(root / _RUN, _Run)
    run = known.run
    commits, exchanges = Commits(root, plan=plan, run=run), Exchanges(root, run=run)
    sound, spoilt = commits.all()
    _mend(root, sound)
    events = journals.scan(root / journals.NAME).events
    before = min(known.after, len(events))
    begun = max((place for place, event in enumerate(events, start=1) if event["event"] == STUDY), default=0)
    if begun > before and events[-1]["event"] == FINISHED:
        journal = Journal(root, progress=progress)
        return Desk(root=root, plan=plan, journal=journal, commits=commits, exchanges=exchanges, run=run, finished=True)
    begun = begun if begun > before else before + 1  # killed before it told that it began: there is nothing to replay
    commits.drop(spoilt)
    spoilt += exchanges.drop(after=_trained(events, begun, sound))
    after = max([min(begun, len(events)), exchanges.position(), *(one.position for one in sound)])
    after = min(after, len(events))
    journal = Journal(root, progress=progress)
    journal.append(RESUMED, after=after, spoilt=spoilt, attempt=attempt, **_place(sound))
    journal.replay(_history(events[:after], begun))
    return Desk(
        root=root,
        plan=plan,
        journal=journal,
        commits=commits,
        exchanges=exchanges,
        run=run,
        committed=tuple(sound),
    )


def _trained(events: tuple[Event, ...], begun: int, sound: list[Committed]) -> int | None:
    """The journal's events until the last sound round, where it tells of later ones; until the first, where none is.

    What came later rests on rounds that are made anew, perhaps of other sites, and is asked again. None: no round is
    missing.
    """
    rounds = [place for place, event in enumerate(events, start=1) if place > begun and event["event"] == ROUND]
    last = sound[-1].position if sound else 0
    if not rounds or rounds[-1] <= last:
        return None
    return last or rounds[0] - 1


def _read(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate(plain_json.read(path))
    except PydanticError:
        raise ArtefactError.of(
            "damaged file of a study",
            where=str(path),
            expected="as it was written",
            do="put back the backup, or start again in another folder",
        ) from None


def _check_plan(root: Path, plan: StudyPlan) -> None:
    path = root / PLAN
    if not path.is_file() or not (root / _RUN).is_file():
        raise ConfigError.of(
            "no study to resume", where=str(root), expected="the folder of a study that began", do="start it first"
        )
    if plan_sha256(_read(path, StudyPlan)) != plan_sha256(plan):
        raise ConfigError.of(
            "another study is in this folder",
            where=str(path),
            expected="the plan that is resumed, unchanged",
            do="resume with the study file as it was, or start in another folder",
        )


def _mend(root: Path, sound: list[Committed]) -> None:
    """Bring the journal to its last sound line, and to the last committed round's where that is further.

    A journal with a damaged line is kept as `journal.damaged.jsonl`.
    """
    path = root / journals.NAME
    found = journals.scan(path)
    content = path.read_bytes() if path.is_file() else b""
    mended = content[: found.sound]
    if sound and len(found.events) < sound[-1].position:
        mended = sound[-1].journal
    if mended != content:
        if found.damaged is not None:
            artefacts.write_bytes(root / DAMAGED, content)
        artefacts.write_bytes(path, mended)


def _place(sound: list[Committed]) -> dict[str, object]:
    """Where the study goes on, for people."""
    if not sound:
        return {"arm": None, "round": None}
    course = sound[-1].course
    return {"arm": course.model.arm, "round": course.done}


def _history(events: tuple[Event, ...], begun: int) -> list[tuple[int, Event]]:
    """The events to replay, with their places: those of the study since it began."""
    return [
        (place, event) for place, event in enumerate(events, start=1) if place >= begun and event["event"] != RESUMED
    ]
