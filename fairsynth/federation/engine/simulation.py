"""Flower's simulation engine: one SuperLink, the sites as workers of one process pool.

In:  the app, a plan, the sites' folders.   Out: the server's folder.
Never: more separation than the code itself gives: the sites share a machine and a user. For development and demos.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fairsynth.federation import journal
from fairsynth.federation.engine.processes import LOOPBACK, Workshop, free_ports, listens, wait_for
from fairsynth.federation.engine.study import (
    SERVER_LOG,
    Job,
    OnEvent,
    Site,
    follow,
    open_job,
    submit,
    write_connection,
)


def run_simulation(
    app: Path,
    *,
    plan: Path,
    workdir: Path,
    sites: Sequence[Site],
    resume: bool = False,
    on_event: OnEvent = lambda _: None,
) -> None:
    """Run the study of the plan at `plan` with simulated nodes; the server writes to `workdir`.

    With `resume` it goes on from the last committed round there. Raises the failing site's or server's error, or
    EngineError when Flower fails.
    """
    job = open_job(app, plan=plan, workdir=workdir, sites=sites, on_event=on_event, resume=resume)
    on_event({"event": "starting", "engine": "simulation"})
    with Workshop(threads=job.plan.training.threads) as workshop:
        _start(workshop)
        offset = journal.size(job.workdir)
        run = submit(workshop, job, sites=_sites(job), federation=_federation(job))
        follow(workshop, job, run=run, offset=offset)


def _start(workshop: Workshop) -> None:
    (port,) = free_ports(1)
    superlink = workshop.start(
        "flower-superlink",
        "--insecure",  # loopback only, and gone when the study ends
        "--simulation",
        "--isolation=subprocess",
        f"--host={LOOPBACK}",
        f"--port={port}",
        f"--database={workshop.home / 'state.db'}",
        "--disable-runtime-dependency-installation",
        log=SERVER_LOG,
    )
    wait_for(lambda: listens(port), seconds=60, what="SuperLink", process=superlink)
    write_connection(workshop, address=f"{LOOPBACK}:{port}", insecure=True)


def _sites(job: Job) -> str:
    return json.dumps([{"site": one.site, "folder": str(one.folder)} for one in job.sites])


def _federation(job: Job) -> str:
    values = {"num-supernodes": len(job.sites), "client-resources-num-cpus": 1, "init-args-logging-level": '"ERROR"'}
    return " ".join(f"{key}={value}" for key, value in values.items())
