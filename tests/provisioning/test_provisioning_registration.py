"""`apply` and a SuperLink that runs for real: granted keys are in, replaced and revoked ones are out."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from consortium_stories import CONSORTIUM, begun

from fairsynth.errors import ConfigError, EngineError, KeyRefused
from fairsynth.federation.engine.processes import LOOPBACK, Workshop, free_ports, listens, wait_for
from fairsynth.operations.registration import CONFIG, HOME, REGISTERED, Node, Pending, Registered, apply
from fairsynth.provisioning import coordinator, documents, node_keys
from fairsynth.provisioning.connection import read_server

pytestmark = pytest.mark.flower
CADDY = Path(sys.executable).with_name("caddy")


class Served:
    """A SuperLink that was started from the server's folder, as docs/provisioning.md says."""

    def __init__(self, workshop: Workshop, hub: Path) -> None:
        server = read_server(hub)
        (self.port,) = free_ports(1)
        self.workshop, self.address = workshop, f"{LOOPBACK}:{self.port}"
        process = workshop.start(
            "flower-superlink",
            f"--ssl-ca-certfile={server.ca}",
            f"--ssl-certfile={server.certificate}",
            f"--ssl-keyfile={server.key}",
            "--enable-supernode-auth",
            f"--host={LOOPBACK}",
            f"--port={self.port}",
            f"--database={workshop.home / 'state.db'}",
            "--isolation=process",
            f"--superexec-auth-secret-file={server.superexec_secret}",
            "--disable-runtime-dependency-installation",
            log="superlink.log",
        )
        wait_for(lambda: listens(self.port), seconds=60, what="SuperLink", process=process)

    def knock(self, site: Path, *, name: str) -> subprocess.Popen[bytes]:
        """A SuperNode with the keys of `site`."""
        (port,) = free_ports(1)
        return self.workshop.start(
            "flower-supernode",
            f"--root-certificates={site / 'ca.crt'}",
            f"--superlink={self.address}",
            f"--auth-supernode-private-key={site / 'supernode.key'}",
            f"--host={LOOPBACK}",
            f"--port={port}",
            "--isolation=process",
            f"--superexec-auth-secret-file={site / 'superexec.secret'}",
            log=name,
        )

    def states(self, hub: Path) -> dict[str, str]:
        """The state of every node, by number, as Flower lists them with the connection that `apply` wrote."""
        answer = self.workshop.call(
            "env", f"FLWR_HOME={hub / HOME}", "flwr", "supernode", "list", "lungs", "--format", "json"
        )
        return {one["node-id"]: one["status"] for one in json.loads(answer[answer.index("{") :])["nodes"]}


@pytest.fixture
def served(tmp_path):
    story = begun(tmp_path / "story")
    for site in ("boston", "lyon"):
        story.joined(site)
    with Workshop(threads=1) as workshop:
        yield story, Served(workshop, story.hub)


def book(hub):
    return documents.read(hub / HOME / REGISTERED, Registered)


def test_renewed_keys_replace_and_revoked_ones_go(served):
    story, superlink = served
    first = apply(story.hub, address=superlink.address)
    assert (first.registered, first.unregistered) == (("boston", "lyon"), ())
    assert sorted(superlink.states(story.hub).values()) == ["registered", "registered"]
    again = apply(story.hub, address=superlink.address)
    assert (again.registered, again.unregistered, again.unchanged) == ((), (), ("boston", "lyon"))

    old = [one.node for one in book(story.hub).nodes.values()]
    story.joined("boston", renew=True)
    coordinator.revoke(story.hub, "lyon")
    then = apply(story.hub, address=superlink.address)
    assert (then.registered, sorted(then.unregistered)) == (("boston",), ["boston", "lyon"])
    states = superlink.states(story.hub)
    (new,) = set(states) - set(old)
    assert states == {**dict.fromkeys(old, "unregistered"), new: "registered"}


def test_a_registration_that_was_stopped_is_found_or_made_anew(served):
    story, superlink = served
    apply(story.hub, address=superlink.address)
    whole = book(story.hub)
    (key,) = [sha256 for sha256, one in whole.nodes.items() if one.site == "lyon"]
    before = {sha256: one for sha256, one in whole.nodes.items() if sha256 != key}
    pending = Pending(site="lyon", supernode_sha256=key, there=[one.node for one in before.values()])
    documents.write(story.hub / HOME / REGISTERED, Registered(nodes=before, pending=pending))
    assert apply(story.hub, address=superlink.address).registered == ()  # Flower had heard of it
    assert book(story.hub) == whole

    story.joined("lyon", renew=True)
    pending = Pending(site="lyon", supernode_sha256="0" * 64, there=list(superlink.states(story.hub)))
    documents.write(story.hub / HOME / REGISTERED, whole.model_copy(update={"pending": pending}))
    assert apply(story.hub, address=superlink.address).registered == ("lyon",)  # Flower had not
    assert book(story.hub).pending is None
    assert sorted(superlink.states(story.hub).values()) == ["registered", "registered", "unregistered"]


def test_a_key_that_was_unregistered_by_hand_does_not_come_back(served):
    story, superlink = served
    apply(story.hub, address=superlink.address)
    node = next(iter(book(story.hub).nodes.values())).node
    environment = f"FLWR_HOME={story.hub / HOME}"
    superlink.workshop.call("env", environment, "flwr", "supernode", "unregister", node, "lungs", "--format", "json")
    with pytest.raises(EngineError, match="unregistered by hand"):
        apply(story.hub, address=superlink.address)


def test_a_node_that_was_registered_by_hand_is_told_after_what_is_revoked_is_out(served):
    story, superlink = served
    apply(story.hub, address=superlink.address)
    node_keys.write_node_key(story.root / "own.key", story.root / "own.pub")
    environment, own = f"FLWR_HOME={story.hub / HOME}", str(story.root / "own.pub")
    superlink.workshop.call("env", environment, "flwr", "supernode", "register", own, "lungs", "--format", "json")
    coordinator.revoke(story.hub, "boston")
    story.joined("lyon", renew=True)
    with pytest.raises(EngineError, match="nodes that `apply` did not register"):
        apply(story.hub, address=superlink.address)
    assert sorted(superlink.states(story.hub).values()) == ["registered", "unregistered", "unregistered"]


def test_a_superlink_with_a_new_database_gets_all_keys(served):
    story, superlink = served
    gone = {
        one.supernode_sha256: Node(site=site, node=str(number))
        for number, (site, one) in enumerate(read_server(story.hub).granted.items(), start=1)
    }
    (story.hub / HOME).mkdir(mode=0o700)
    documents.write(story.hub / HOME / REGISTERED, Registered(nodes=gone))
    assert apply(story.hub, address=superlink.address).registered == ("boston", "lyon")
    assert sorted(superlink.states(story.hub)) == sorted(one.node for one in book(story.hub).nodes.values())


def test_a_copy_of_the_server_part_is_enough_and_the_connection_is_private(served, tmp_path):
    story, superlink = served
    server = Path(shutil.copytree(story.hub / "server", tmp_path / "server"))
    (server / "control.secret").unlink()
    assert apply(server, address=superlink.address).registered == ("boston", "lyon")
    assert stat.S_IMODE((server / HOME).stat().st_mode) == 0o700
    assert stat.S_IMODE((server / HOME / CONFIG).stat().st_mode) == 0o600
    (server / HOME / CONFIG).chmod(0o640)
    with pytest.raises(KeyRefused, match=r"config\.toml"):
        apply(server, address=superlink.address)


def test_a_server_that_does_not_answer_is_told_without_the_password(tmp_path):
    (port,) = free_ports(1)
    text = CONSORTIUM.replace("fairsynth.example.org, port: 8443", f"{LOOPBACK}, port: {port}")
    story = begun(tmp_path, text=text)
    password = (story.hub / "server" / "control.secret").read_text()
    with pytest.raises(EngineError, match="flwr supernode list failed") as failed:
        apply(story.hub)
    assert f"admin:{password}@{LOOPBACK}:{port}" in (story.hub / HOME / CONFIG).read_text()
    assert "admin:***@" in str(failed.value)  # Flower repeats the address
    assert password not in str(failed.value)
    with pytest.raises(ConfigError, match="address with a password"):
        apply(story.hub, address=f"admin:{password}@{LOOPBACK}:{port}")


CADDYFILE = """{{
    admin off
    auto_https off
    persist_config off
    storage file_system {home}/caddy
}}
https://127.0.0.1:{port} {{
    tls {server}/server.crt {server}/server.key
    handle /v1/control/* {{
        basic_auth {{
            import {server}/control.users
        }}
        reverse_proxy https://{superlink} {{
            header_up -Authorization
            transport http {{
                tls_trust_pool file {server}/ca.crt
            }}
        }}
    }}
    handle {{
        respond 404
    }}
}}
"""


@pytest.mark.skipif(not CADDY.is_file(), reason="needs the proxy")
def test_through_the_proxy_the_password_of_the_folder_is_asked_for_and_given(tmp_path):
    (port,) = free_ports(1)
    text = CONSORTIUM.replace("fairsynth.example.org, port: 8443", f"{LOOPBACK}, port: {port}")
    story = begun(tmp_path / "story", text=text)
    story.joined("boston")
    with Workshop(threads=1) as workshop:
        superlink = Served(workshop, story.hub)
        settings = {"home": workshop.home, "port": port, "server": story.hub / "server", "superlink": superlink.address}
        (workshop.home / "Caddyfile").write_text(CADDYFILE.format(**settings))
        proxy = workshop.start(str(CADDY), "run", "--config", "Caddyfile", "--adapter", "caddyfile", log="proxy.log")
        wait_for(lambda: listens(port), seconds=60, what="proxy", process=proxy)
        with pytest.raises(EngineError, match="flwr supernode list failed"):
            apply(story.hub, address=f"{LOOPBACK}:{port}")  # without the password
        assert apply(story.hub).registered == ("boston",)
        assert list(superlink.states(story.hub).values()) == ["registered"]


@pytest.mark.slow
def test_a_supernode_comes_in_with_its_grant_and_is_refused_once_that_is_revoked(served):
    story, superlink = served
    apply(story.hub, address=superlink.address)
    boston = superlink.knock(story.site("boston"), name="boston.log")
    (node,) = [one.node for one in book(story.hub).nodes.values() if one.site == "boston"]
    wait_for(
        lambda: superlink.states(story.hub)[node] == "online", seconds=60, what="SuperNode of boston", process=boston
    )
    for site in ("boston", "lyon"):
        coordinator.revoke(story.hub, site)
    apply(story.hub, address=superlink.address)
    boston.wait(timeout=90)  # one that is connected leaves
    for site in ("boston", "lyon"):
        refused = superlink.knock(story.site(site), name=f"{site}.refused.log")
        assert refused.wait(timeout=60) != 0
        assert "305" in superlink.workshop.log(f"{site}.refused.log")
