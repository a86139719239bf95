"""A study among hospitals: submitted to the consortium's SuperLink, then followed by its journal.

In:  a plan, the provisioned server folder, the folder that the ServerApp works in, on this machine.
Out: that folder, filled by `federation.rounds`; journal events, told to a callback.
Never: a SuperLink that this process starts or stops; the administrator's password in an argument, a log or an error.

Whoever follows a study may stop doing so: the study goes on at the server, and can be followed again. A run of Flower
that ended although the study has not is submitted again, to go on from the last committed round.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from pathlib import Path

from fairsynth import artefacts, plain_json
from fairsynth.config import StudyPlan
from fairsynth.errors import ConfigError, EngineError
from fairsynth.federation import journal
from fairsynth.federation.engine.processes import Workshop
from fairsynth.federation.engine.signals import deferred
from fairsynth.federation.engine.study import Job, OnEvent, follow, run_status, submit, write_connection
from fairsynth.federation.masking.roster import SignedRoster, read_roster, write_roster
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.server_folder import PLAN, has_finished, is_taken
from fairsynth.provisioning.connection import ADMINISTRATOR, ServerFolder, read_server
from fairsynth.provisioning.permissions import check_permissions, read_private

ASKED = "asked-plan.json"  # in the study's folder: what the ServerApp is told to run
FLOWER = "flower.json"  # beside it: Flower's number of the last run
RESTARTS = 5
PAUSE_SECONDS = 15.0  # before the next: Flower takes up to a minute to give a dead process up


def run_network(
    app: Path,
    *,
    plan: StudyPlan,
    server: Path,
    workdir: Path,
    roster: SignedRoster | None = None,
    resume: bool = False,
    address: str | None = None,
    restarts: int = RESTARTS,
    on_event: OnEvent = lambda _: None,
) -> None:
    """Run the study of `plan` with the sites of the consortium; with `resume` go on with it, or follow what runs.

    `server` is the folder that `fairsynth provision` made, `roster` the one that all sites signed for a masked study;
    `address` is that of the SuperLink itself, on loopback, where no password is asked for and of `server` only
    `server.json` and `ca.crt` are needed; None: of the proxy. Raises ConfigError or ProtocolError when the study cannot
    start, the study's own error when it stopped, EngineError when Flower failed more than `restarts` times.
    """
    workdir = workdir.resolve()
    _check_folder(workdir, resume=resume)
    if resume and has_finished(workdir):
        return
    folder = read_server(server.resolve())
    _check_sites(plan, folder)
    workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_roster(plan, workdir, roster)
    artefacts.write_text(workdir / ASKED, plan.model_dump_json(by_alias=True, indent=2) + "\n")
    secret = "" if address else _password(folder)
    on_event({"event": "starting", "engine": folder.facts.consortium})
    with Workshop(threads=1, reach=(folder.facts.host,), secret=secret) as workshop:
        at = address or f"{ADMINISTRATOR}:{secret}@{folder.facts.address}"
        write_connection(workshop, address=at, root_certificates=str(folder.ca.resolve()))
        job = Job(
            app=app.resolve(),
            plan_path=workdir / ASKED,
            workdir=workdir,
            sites=(),
            on_event=on_event,
            plan=plan,
            resume=resume and (workdir / PLAN).is_file(),
        )
        _persist(workshop, job, restarts=restarts)


def _persist(workshop: Workshop, job: Job, *, restarts: int) -> None:
    """Follow the study to its end, submitting it as often as Flower gives it up."""
    while True:
        offset = journal.size(job.workdir)
        try:
            if run := _taken(job) or _starting(workshop, job):
                follow(workshop, replace(job, resume=False), run=run, offset=offset)  # another's attempt: from here on
            else:
                job = replace(job, attempt=secrets.token_hex(8))
                follow(workshop, job, run=_submitted(workshop, job), offset=offset)
            return
        except EngineError as error:
            if has_finished(job.workdir):  # between its last event and the end of Flower's run
                return
            if restarts == 0:
                raise
            restarts -= 1
            job.on_event({"event": "restarting", "left": restarts, "problem": str(error.problems[0].what)})
            time.sleep(PAUSE_SECONDS)
            job = replace(job, resume=(job.workdir / PLAN).is_file())  # a fresh start would throw rounds away


def _taken(job: Job) -> str:
    """Flower's number of the run that works on the study now; empty where none does."""
    return str(plain_json.read(job.workdir / FLOWER)["run"]) if is_taken(job.workdir) else ""


def _starting(workshop: Workshop, job: Job) -> str:
    """Flower's number of the run that was submitted and has not come to the study's folder yet; empty where none was.

    Whoever submitted it may have been interrupted then.
    """
    if (job.workdir / PLAN).is_file() or not (job.workdir / FLOWER).is_file():
        return ""
    run = str(plain_json.read(job.workdir / FLOWER)["run"])
    return "" if run_status(workshop, run)[0].startswith("finished") else run


def _submitted(workshop: Workshop, job: Job) -> str:
    with deferred():  # a run that nobody knows the number of could not be followed
        run = submit(workshop, job)
        artefacts.write_json(job.workdir / FLOWER, {"run": run})
    return run


def _password(folder: ServerFolder) -> str:
    """The administrator's password. Raises KeyRefused when it is not here, or open to others."""
    check_permissions(folder.folder, "server")
    return read_private(folder.control_secret).decode().strip()


def _check_folder(workdir: Path, *, resume: bool) -> None:
    """Raise ConfigError unless a study may start, or go on, in this folder."""
    submitted = (workdir / PLAN).is_file() or (workdir / FLOWER).is_file()
    if resume and not submitted:
        raise ConfigError.of("no study to resume", where=str(workdir), do="start it without --resume")
    if not resume and (submitted or is_taken(workdir)):
        raise ConfigError.of(
            "a study is here", where=str(workdir), do="--resume to go on with it or follow it, or another --out"
        )


def _check_sites(plan: StudyPlan, folder: ServerFolder) -> None:
    """Raise ConfigError when a site of the plan has no grant."""
    if missing := [site for site in plan.roster if site not in folder.granted]:
        raise ConfigError.of(
            "sites without a grant",
            where=", ".join(missing),
            expected=f"sites of the consortium: {', '.join(folder.granted) or 'none yet'}",
            do="fairsynth provision accept, then apply (docs/provisioning.md)",
        )


def _check_roster(plan: StudyPlan, workdir: Path, roster: SignedRoster | None) -> None:
    """Put the roster in its place. Raises ProtocolError unless every site of a masked plan signed one for it."""
    if not plan.privacy.masked:
        return
    signed = roster or read_roster(workdir)
    signed.verified(plan_sha256=plan_sha256(plan), sites=plan.roster)
    write_roster(workdir, signed)
