"""`fairsynth doctor`: everything that has to be right at a site before a study, each failure with its mend.

In:  the site's folder.   Out: findings, in an order that a person mends them in.
Never: root; a port that is opened; a connection to anything but the server of `connection.json` and this machine's
own SuperNode on loopback; a file that is changed; a patient's value.

A check that needs what another found missing is skipped, and says what it waits for.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from fairsynth.errors import FairSynthError
from fairsynth.federation.boundary import place_of
from fairsynth.governance.approval import Place
from fairsynth.operations import checks_data as data
from fairsynth.operations import checks_files as files
from fairsynth.operations import checks_machine as machine
from fairsynth.operations import checks_network as network
from fairsynth.operations import checks_server as server
from fairsynth.operations import checks_software as software
from fairsynth.operations.findings import Finding, failed, guarded, ok, refused, skipped
from fairsynth.provisioning.connection import CONNECTION, Connection, read_connection

SITE = "site.json"
SUPERNODE_PORT = 9094


def examine(root: Path, *, supernode_port: int = SUPERNODE_PORT, tables: bool = True) -> Iterator[Finding]:
    """What is found at the site whose folder is `root`, a finding after the other; `tables`: read them too."""
    if not root.is_dir():
        yield failed("folder", f"no folder {root}", do="give the site's folder, the one with site.json")
        return
    root = root.resolve()
    now = datetime.datetime.now(datetime.UTC)
    place, found = _place(root)
    yield from (files.folder_finding(root), found)
    connection, joined = _connection(root, place)
    yield joined
    ca, key = files.ca_finding(root, now=now), files.key_finding(root)
    yield from (ca, key, files.secret_finding(root), files.identity_finding(root))
    if connection is None:
        yield from (skipped(name, f"needs {CONNECTION}") for name in SERVER_CHECKS)
    else:
        yield from _server(root, connection, ca=ca, key=key, now=now)
    yield server.supernode_finding(supernode_port)
    yield from _software(connection)
    yield from _machine(root, place)
    yield from _decided(root, place, tables=tables)


SERVER_CHECKS = (
    network.PROXY,
    network.RESOLVE,
    network.PORT,
    network.TLS,
    server.HEALTH,
    server.CLOCK,
    server.CONTROL,
    server.RUNTIME,
    server.KEY,
    server.STRANGERS,
)


def _place(root: Path) -> tuple[Place | None, Finding]:
    """Where the site has what."""
    try:
        place = place_of(root)
    except FairSynthError as error:
        return None, refused(SITE, error)
    return place, ok(SITE, f"site {place.site}")


def _connection(root: Path, place: Place | None) -> tuple[Connection | None, Finding]:
    """The server that the site takes part at."""
    try:
        connection = read_connection(root)
    except FairSynthError as error:
        return None, refused(CONNECTION, error)
    if place is not None and connection.site != place.site:
        said = f"of site {connection.site}, while {SITE} says {place.site}"
        return None, failed(CONNECTION, said, do="install the grant of this site, or correct `site` in site.json")
    return connection, ok(CONNECTION, f"consortium {connection.consortium}, server {connection.address}")


def _server(
    root: Path, connection: Connection, *, ca: Finding, key: Finding, now: datetime.datetime
) -> Iterator[Finding]:
    """Name, port, certificate, then what the server says."""
    yield network.proxy_finding(connection)
    resolved, addresses = network.resolve(connection)
    yield resolved
    if not resolved.good:
        yield from _waiting(network.PORT, because=resolved)
        return
    port, address = network.reach(addresses, connection.port)
    yield port
    if not port.good:
        yield from _waiting(network.TLS, because=port)
        return
    if not ca.good:
        yield from _waiting(network.TLS, because=ca)
        return
    tls = network.tls_finding(connection, address, root / files.CA, now=now)
    yield tls
    if not tls.good:
        yield from _waiting(server.HEALTH, because=tls)
        return
    yield from _answers(root, server.Server(connection=connection, context=network.trusting(root / files.CA)), key=key)


def _answers(root: Path, there: server.Server, *, key: Finding) -> Iterator[Finding]:
    """What a server says whose certificate is verified."""
    health, answer = server.health_finding(there)
    yield health
    if answer is None:
        yield from _waiting(server.CLOCK, because=health)
        return
    yield server.clock_finding(answer)
    if not health.good:
        yield from _waiting(server.CONTROL, because=health)
        return
    yield server.hidden_finding(there, name=server.CONTROL, path=server.LIST_RUNS)
    yield server.hidden_finding(there, name=server.RUNTIME, path=server.ACQUIRE_TASK)
    if not key.good:
        yield from _waiting(server.KEY, because=key)
        return
    own = files.load_node_key(root / files.NODE_KEY)
    registered = server.key_finding(there, own, skew=answer.skew)
    yield registered
    if registered.state == "ok":
        yield server.strangers_finding(there, own)
    else:
        yield from _waiting(server.STRANGERS, because=registered)


def _waiting(first: str, *, because: Finding) -> Iterator[Finding]:
    """The server's checks from `first` on, skipped."""
    return (skipped(name, f"after: {because.name}") for name in SERVER_CHECKS[SERVER_CHECKS.index(first) :])


def _software(connection: Connection | None) -> Iterator[Finding]:
    yield software.versions_finding()
    yield software.equal_finding(connection.versions if connection else {})
    yield software.app_finding(software.search_path(), imported=tuple(sys.modules))


def _machine(root: Path, place: Place | None) -> Iterator[Finding]:
    yield guarded(machine.DISK, lambda: machine.disk_finding(root, place.data if place else None))
    yield machine.memory_finding()
    yield machine.processors_finding()
    yield machine.gpu_finding()
    yield machine.cores_finding()
    yield machine.swap_finding()
    yield machine.temporary_finding(root)
    yield machine.flower_home_finding(os.environ)


def _decided(root: Path, place: Place | None, *, tables: bool) -> Iterator[Finding]:
    """Tables, and what officers decided about them."""
    if place is None:
        yield from (skipped(name, f"after: {SITE}") for name in (data.TABLES, data.POLICY, data.APPROVALS))
        yield guarded(data.LEDGER, lambda: data.ledger_finding(root))
        yield skipped(data.BUDGET, f"after: {SITE}")
        return
    yield guarded(data.TABLES, lambda: data.tables_finding(place)) if tables else skipped(data.TABLES, "--quick")
    found, policy = data.policy_finding(place)
    yield found
    if policy is None:
        yield skipped(data.APPROVALS, f"after: {data.POLICY}")
    else:
        yield guarded(data.APPROVALS, lambda: data.approvals_finding(place, policy))
    yield guarded(data.LEDGER, lambda: data.ledger_finding(root))
    if policy is None:
        yield skipped(data.BUDGET, f"after: {data.POLICY}")
    else:
        yield guarded(data.BUDGET, lambda: data.budget_finding(root, policy))
