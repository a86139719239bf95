"""A real deployment on loopback: one SuperLink, one SuperNode per site, each with its own processes.

In:  the app, a plan, the sites' folders.   Out: the server's folder.
Never: a connection without TLS between SuperLink and SuperNodes, or a SuperNode without a registered key.

What a real deployment has beyond this: machines and users of their own for every site, keys that never leave it, and a
proxy in front of the SuperLink that lets sites reach `/v1/fleet/` only.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from fairsynth.federation import journal
from fairsynth.federation.engine.processes import LOOPBACK, Workshop, free_ports, listens, wait_for
from fairsynth.federation.engine.study import (
    SERVER_LOG,
    SUPERLINK,
    OnEvent,
    Site,
    follow,
    open_job,
    submit,
    write_connection,
)
from fairsynth.provisioning.authority import create_authority, write_server
from fairsynth.provisioning.node_keys import write_node_key

SITE_FOLDER = "site-folder"
_DAYS = 7  # of certificates that are gone with the run


def run_deployment(
    app: Path,
    *,
    plan: Path,
    workdir: Path,
    sites: Sequence[Site],
    resume: bool = False,
    on_event: OnEvent = lambda _: None,
) -> None:
    """Run the study of the plan at `plan` with a SuperLink and SuperNodes; the server writes to `workdir`.

    With `resume` it goes on from the last committed round there. Raises the failing site's or server's error, or
    EngineError when Flower fails.
    """
    job = open_job(app, plan=plan, workdir=workdir, sites=sites, on_event=on_event, resume=resume)
    on_event({"event": "starting", "engine": "deployment"})
    with Workshop(threads=job.plan.training.threads) as workshop:
        port, *node_ports = free_ports(1 + len(job.sites))
        authority = create_authority("FairSynth local run CA", days=_DAYS)  # its key is never on disk
        write_server(workshop.home, authority, names=[LOOPBACK], days=_DAYS)
        _start_superlink(workshop, port)
        for site, node_port in zip(job.sites, node_ports, strict=True):
            _start_supernode(workshop, site, superlink=port, port=node_port)
        offset = journal.size(job.workdir)
        run = submit(workshop, job)
        follow(workshop, job, run=run, offset=offset)


def _start_superlink(workshop: Workshop, port: int) -> None:
    """The SuperLink and the process that runs the ServerApp for it."""
    home = workshop.home
    secret = _secret(home / "superlink.secret")
    superlink = workshop.start(
        "flower-superlink",
        f"--ssl-ca-certfile={home / 'ca.crt'}",
        f"--ssl-certfile={home / 'server.crt'}",
        f"--ssl-keyfile={home / 'server.key'}",
        "--enable-supernode-auth",
        f"--host={LOOPBACK}",
        f"--port={port}",
        f"--database={home / 'state.db'}",
        "--isolation=process",
        f"--superexec-auth-secret-file={secret}",
        "--disable-runtime-dependency-installation",
        log=SERVER_LOG,
    )
    wait_for(lambda: listens(port), seconds=60, what="SuperLink", process=superlink)
    write_connection(workshop, address=f"{LOOPBACK}:{port}", root_certificates=str(home / "ca.crt"))
    workshop.start(
        "flower-superexec",
        f"--root-certificates={home / 'ca.crt'}",
        f"--runtime-api-address={LOOPBACK}:{port}",
        f"--superexec-auth-secret-file={secret}",
        log=SERVER_LOG,
    )


def _start_supernode(workshop: Workshop, site: Site, *, superlink: int, port: int) -> None:
    """A site's SuperNode, registered under the site's id, and the process that runs the ClientApp for it."""
    home = workshop.home
    private, public = home / f"{site.site}.key", home / f"{site.site}.pub"
    write_node_key(private, public)
    workshop.call("flwr", "supernode", "register", str(public), SUPERLINK, "--name", site.site, "--format", "json")
    secret = _secret(home / f"{site.site}.secret")
    supernode = workshop.start(
        "flower-supernode",
        f"--root-certificates={home / 'ca.crt'}",
        f"--superlink={LOOPBACK}:{superlink}",
        f"--auth-supernode-private-key={private}",
        f"--host={LOOPBACK}",
        f"--port={port}",
        f"--node-config={SITE_FOLDER}={json.dumps(str(site.folder))}",
        "--isolation=process",
        f"--superexec-auth-secret-file={secret}",
        log=f"{site.site}.log",
    )
    wait_for(lambda: listens(port), seconds=60, what=f"SuperNode of {site.site}", process=supernode)
    workshop.start(
        "flower-superexec",
        "--insecure",  # between two processes of one site, over its own loopback
        f"--runtime-api-address={LOOPBACK}:{port}",
        f"--superexec-auth-secret-file={secret}",
        log=f"{site.site}.log",
    )


def _secret(path: Path) -> Path:
    """A new shared secret, readable by this user alone."""
    path.touch(mode=0o600)
    path.write_bytes(secrets.token_hex(32).encode())
    return path
