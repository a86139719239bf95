"""One run of the app, whatever the engine: submit it, follow its journal, and tell why it failed.

In:  a workshop with a SuperLink, a job.   Out: journal events, told to a callback; an error with the site's own reason.
Never: a wait without end; Flower's status where our journal says more.
"""

from __future__ import annotations

import datetime
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairsynth import artefacts, plain_json
from fairsynth.config import StudyPlan
from fairsynth.errors import (
    ArtefactError,
    CohortError,
    ConfigError,
    EgressRefused,
    EngineError,
    ExtractionError,
    FairSynthError,
    KeyRefused,
    LedgerDamaged,
    NotApproved,
    PolicyMissing,
    PolicyRefusal,
    Problem,
    ProtocolError,
    ReleaseBlocked,
    StateRestored,
)
from fairsynth.fairness.planning import SELECTED
from fairsynth.federation import journal
from fairsynth.federation.conversation import PATIENCE
from fairsynth.federation.engine.processes import Workshop, parse_answer
from fairsynth.federation.masking.opening import ATTEMPTS
from fairsynth.federation.plans import ARMS, is_taught
from fairsynth.federation.site_folder import LOG
from fairsynth.federation.teaching import MAXIMUM_REQUESTS
from fairsynth.schemas import SiteId

SUPERLINK = "study"  # the connection's name in the workshop's Flower configuration
SERVER_LOG = "superlink.log"
STATUS_SECONDS = 10.0  # between two questions for Flower's status; each starts a process
TAIL_SECONDS = 0.2
START_SECONDS = 300.0
MINIMUM_PATIENCE = 600.0

_ERRORS: dict[str, type[FairSynthError]] = {
    kind.code: kind
    for kind in (
        ConfigError,
        ExtractionError,
        CohortError,
        ProtocolError,
        PolicyRefusal,
        PolicyMissing,
        NotApproved,
        EgressRefused,
        LedgerDamaged,
        KeyRefused,
        StateRestored,
        ReleaseBlocked,
        ArtefactError,
        EngineError,
    )
}

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One site of a local run."""

    site: SiteId
    folder: Path  # with `site.json`


@dataclass(frozen=True, kw_only=True)
class Job:
    """One study on this machine."""

    app: Path
    plan_path: Path
    workdir: Path
    sites: tuple[Site, ...]
    on_event: OnEvent
    plan: StudyPlan
    resume: bool = False  # go on from the last committed round
    attempt: str = field(default_factory=lambda: secrets.token_hex(8))  # how the journal names this start then
    started: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    @property
    def seconds(self) -> float:
        """The longest that the study may take, if every request waits to its deadline."""
        asked = {"enrol": 1, "agree": 1, "train": len(ARMS) * (self.plan.training.rounds + 1), "audit": 1}
        if self.plan.privacy.masked:
            asked |= {"join": 1}
        if is_taught(self.plan):
            asked |= {"teach": MAXIMUM_REQUESTS, "feedback": len(SELECTED) + 1}
        attempts = ATTEMPTS if self.plan.privacy.masked else 1
        deadlines = attempts * sum(PATIENCE[kind] * number for kind, number in asked.items())
        return START_SECONDS + max(MINIMUM_PATIENCE, float(deadlines * self.plan.training.round_deadline_seconds))


def open_job(
    app: Path, *, plan: Path, workdir: Path, sites: Sequence[Site], on_event: OnEvent, resume: bool = False
) -> Job:
    """A job with absolute paths. Raises ConfigError when the sites are not the plan's roster."""
    parsed = StudyPlan.model_validate(plain_json.read(plan, error=ConfigError))
    ordered = tuple(Site(site=one.site, folder=one.folder.resolve()) for one in sorted(sites, key=lambda one: one.site))
    if tuple(one.site for one in ordered) != parsed.roster:
        raise ConfigError.of(
            "sites are not the plan's roster", where=str(plan), expected=f"one of each: {', '.join(parsed.roster)}"
        )
    return Job(
        app=app.resolve(),
        plan_path=plan.resolve(),
        workdir=workdir.resolve(),
        sites=ordered,
        on_event=on_event,
        plan=parsed,
        resume=resume,
    )


def write_connection(workshop: Workshop, **settings: str | bool) -> None:
    """The workshop's Flower configuration: one SuperLink, named `study`."""
    lines = [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in settings.items()]
    text = "\n".join(["[superlink]", f'default = "{SUPERLINK}"', "", f"[superlink.{SUPERLINK}]", *lines, ""])
    artefacts.write_text(workshop.home / "config.toml", text)  # readable by this user alone: it may have a password


def submit(workshop: Workshop, job: Job, *, sites: str = "", federation: str = "") -> str:
    """Start the run; returns Flower's run id. `sites` is the run configuration of a simulation."""
    values = {
        "plan": str(job.plan_path),
        "workdir": str(job.workdir),
        "sites": sites,
        "resume": job.attempt if job.resume else "",
    }
    settings = workshop.home / "run.toml"
    settings.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()), encoding="utf-8")
    options = ["--federation-config", federation] if federation else []
    command = ["flwr", "run", str(job.app), SUPERLINK, "--format", "json", "-c", str(settings), *options]
    answer = parse_answer(workshop.call(*command))
    if not answer.get("success"):
        raise EngineError.of("flwr run failed", where="flwr run", expected=str(answer.get("error-message", answer)))
    return str(answer["run-id"])


def follow(workshop: Workshop, job: Job, *, run: str, offset: int) -> None:
    """Tell every journal event after byte `offset` until the study has finished; of a study that this job resumes,
    every event after the one that names the job's attempt: the journal may have been mended before it.

    Raises the site's or the server's own error when the study failed, EngineError when Flower did or the time is up.
    """
    tail = Tail(path=job.workdir / journal.NAME, offset=offset, attempt=job.attempt if job.resume else "")
    deadline = time.monotonic() + job.seconds
    next_status = time.monotonic() + STATUS_SECONDS
    while time.monotonic() < deadline:
        for event in tail.new():
            job.on_event(event)
            if event["event"] == "finished":
                return
            if event["event"] == "failed":
                raise reason(job, event)
        if time.monotonic() > next_status:
            status, details = run_status(workshop, run)
            if status.startswith("finished") and not tail.waits():
                raise EngineError.of(
                    f"the run ended: {status}", where=details or "Flower", expected=workshop.log(SERVER_LOG)
                )
            next_status = time.monotonic() + STATUS_SECONDS
        time.sleep(TAIL_SECONDS)
    raise EngineError.of("the study did not finish in time", where=f"{job.seconds:.0f} s", do="see the sites' site.log")


def run_status(workshop: Workshop, run: str) -> tuple[str, str]:
    """Flower's status of a run, such as `running` or `finished:failed`, and its details."""
    answer = parse_answer(workshop.call("flwr", "list", SUPERLINK, "--run-id", run, "--format", "json"))
    (row,) = answer.get("runs") or [{}]
    return str(row.get("status", "unknown")), str(row.get("status-details", ""))


def reason(job: Job, event: dict[str, Any]) -> FairSynthError:
    """The error of a failed study: what the sites' own logs say, for they are on this machine; else the server's."""
    for site in job.sites:
        lines = [line for line in _site_log(site.folder / LOG) if _since(line, job.started)]
        if lines:
            return _site_error(site, lines[-1])
    problems = [Problem(**problem) for problem in event["problems"]]
    return _ERRORS.get(event["code"], EngineError)(problems)


@dataclass(kw_only=True)
class Tail:
    """Reads whole lines of a journal that grows; with an `attempt`, from the event on that names it."""

    path: Path
    offset: int
    attempt: str = ""

    def new(self) -> Iterator[dict[str, Any]]:
        """The events since the last call. Raises ArtefactError when one is damaged."""
        if self.attempt and not self._found():
            return
        if not self.path.is_file():
            return
        with self.path.open("rb") as handle:
            handle.seek(self.offset)
            for line in handle:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                yield journal.parse(line)

    def _found(self) -> bool:
        """Whether the attempt has begun; from then on its events are read."""
        place = 0
        for line in self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []:
            if line.endswith(b"\n") and self.attempt.encode() in line:
                self.attempt, self.offset = "", place
                return True
            place += len(line)
        return False

    def waits(self) -> bool:
        """Whether there is something that `new` has not told yet."""
        return not self.attempt and self.path.is_file() and self.path.stat().st_size > self.offset


def _site_error(site: Site, line: dict[str, Any]) -> FairSynthError:
    kind = _ERRORS.get(line["code"])
    if kind is None or not line["problems"]:
        return EngineError.of(
            f"site {site.site} failed: {line['type']}",
            where=f"{line['phase']}, {line['at']}",
            do=f"see {site.folder / LOG}, then report it",
        )
    return kind(
        Problem(**{**problem, "where": f"site {site.site}: {problem['where']}"}) for problem in line["problems"]
    )


def _site_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a site's log."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [plain_json.parse(line.decode(), where=str(path)) for line in lines if line.endswith(b"\n")]


def _since(line: dict[str, Any], started: datetime.datetime) -> bool:
    return datetime.datetime.fromisoformat(line["time"]) >= started
