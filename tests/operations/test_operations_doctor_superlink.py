"""A real SuperLink behind a real proxy: the key is registered, unknown or revoked, and a running SuperNode stays so."""

import datetime
import json
import secrets
import shutil
from pathlib import Path

import pytest
from doctor_stories import change, found, join

from fairsynth.cli import main
from fairsynth.federation.engine.processes import LOOPBACK, Workshop, free_ports, listens, wait_for
from fairsynth.federation.engine.study import SUPERLINK, write_connection
from fairsynth.operations import checks_network as network
from fairsynth.operations import checks_server as server
from fairsynth.operations.checks_files import load_node_key
from fairsynth.operations.checks_server import Answer
from fairsynth.provisioning.connection import read_connection

pytestmark = pytest.mark.flower
CADDY = """{{
    admin off
    auto_https off
    persist_config off
    storage file_system {home}/caddy
    servers {{
        protocols h1 h2
    }}
}}
https://:{port} {{
    bind 127.0.0.1
    tls {home}/server.crt {home}/server.key
    @sites path /v1/fleet/* /health
    handle @sites {{
        reverse_proxy https://127.0.0.1:{superlink} {{
            transport http {{
                tls_trust_pool file {home}/ca.crt
            }}
        }}
    }}
    handle {{
        respond 404
    }}
}}
"""


@pytest.fixture(scope="module")
def place(authority):
    """A SuperLink, and a proxy in front of it: the workshop, and both ports."""
    with Workshop(threads=1) as workshop:
        home, (superlink, proxy) = workshop.home, free_ports(2)
        certificate = authority.issue_cert(LOOPBACK)
        authority.cert_pem.write_to_path(home / "ca.crt")
        certificate.private_key_pem.write_to_path(home / "server.key")
        certificate.cert_chain_pems[0].write_to_path(home / "server.crt")
        (home / "superlink.secret").touch(mode=0o600)
        (home / "superlink.secret").write_text(secrets.token_hex(32))
        start_superlink(workshop, superlink)
        (home / "Caddyfile").write_text(CADDY.format(port=proxy, home=home, superlink=superlink))
        caddy = workshop.start("caddy", "run", "--config", str(home / "Caddyfile"), log="caddy.log")
        wait_for(lambda: listens(proxy), seconds=60, what="caddy", process=caddy)
        yield workshop, superlink, proxy


def start_superlink(workshop, port):
    home = workshop.home
    process = workshop.start(
        "flower-superlink",
        f"--ssl-ca-certfile={home / 'ca.crt'}",
        f"--ssl-certfile={home / 'server.crt'}",
        f"--ssl-keyfile={home / 'server.key'}",
        "--enable-supernode-auth",
        f"--host={LOOPBACK}",
        f"--port={port}",
        f"--database={home / 'state.db'}",
        "--isolation=process",
        f"--superexec-auth-secret-file={home / 'superlink.secret'}",
        "--disable-runtime-dependency-installation",
        log="superlink.log",
    )
    wait_for(lambda: listens(port), seconds=60, what="SuperLink", process=process)
    write_connection(workshop, address=f"{LOOPBACK}:{port}", root_certificates=str(home / "ca.crt"))


@pytest.fixture
def joined(place, sound, tmp_path, authority):
    """A site of that server, whose key is not registered yet."""
    _, _, proxy = place
    root = Path(shutil.copytree(sound, tmp_path / "site"))
    join(root, port=proxy, host=LOOPBACK, authority=authority)
    return root


def register(workshop, site):
    answer = workshop.call("flwr", "supernode", "register", str(site / "supernode.pub"), SUPERLINK, "--format", "json")
    return str(json.loads(answer)["node-id"])


def state(workshop, node):
    nodes = json.loads(workshop.call("flwr", "supernode", "list", SUPERLINK, "--format", "json"))["nodes"]
    return {one["node-id"]: (one["status"], one["online-at"]) for one in nodes}.get(node)


def test_a_key_is_unknown_registered_and_revoked(place, joined):
    workshop, _, _ = place
    unknown = found(joined)
    assert (unknown[server.KEY].state, "not registered yet, or revoked" in unknown[server.KEY].said) == ("failed", True)
    node = register(workshop, joined)
    before = state(workshop, node)
    findings = found(joined)
    assert (findings[server.KEY].state, findings[server.STRANGERS].state) == ("ok", "ok")
    assert state(workshop, node) == before == ("registered", "N/A")  # no trace of having been asked
    workshop.call("flwr", "supernode", "unregister", node, SUPERLINK, "--format", "json")
    assert found(joined)[server.KEY].state == "failed"


def test_a_running_supernode_does_not_notice(place, joined):
    workshop, _, proxy = place
    (port,) = free_ports(1)
    node = register(workshop, joined)
    supernode = workshop.start(
        "flower-supernode",
        f"--root-certificates={joined / 'ca.crt'}",
        f"--superlink={LOOPBACK}:{proxy}",
        f"--auth-supernode-private-key={joined / 'supernode.key'}",
        f"--host={LOOPBACK}",
        f"--port={port}",
        "--isolation=process",
        f"--superexec-auth-secret-file={joined / 'superexec.secret'}",
        log="supernode.log",
    )
    wait_for(lambda: (state(workshop, node) or ("",))[0] == "online", seconds=60, what="SuperNode", process=supernode)
    before = state(workshop, node)
    findings = found(joined, supernode_port=port)
    assert (findings[server.KEY].state, findings["SuperNode"].said) == ("ok", f"runs (127.0.0.1 port {port})")
    assert state(workshop, node) == before
    assert supernode.poll() is None


@pytest.mark.parametrize(("ahead", "refused"), [(-290, False), (-320, True), (3, False), (20, True)])
def test_flower_refuses_clocks_as_the_check_says(ahead, refused, place, joined):
    key = load_node_key(joined / "supernode.key")
    there = server.Server(connection=read_connection(joined), context=network.trusting(joined / "ca.crt"))
    now = datetime.datetime.now(datetime.UTC)
    body, headers = server.activation(key, at=now + datetime.timedelta(seconds=ahead))
    answer = there.ask("POST", server.ACTIVATE, body=body, headers=headers)
    assert (answer.status == 401) == refused
    skewed = Answer(
        status=200,
        date=now,
        body=b"",
        sent=now + datetime.timedelta(seconds=ahead),
        received=now + datetime.timedelta(seconds=ahead),
    )
    assert (server.clock_finding(skewed).state == "failed") == refused


def test_a_superlink_without_a_proxy_shows_its_control_api(place, joined):
    _, superlink, _ = place
    assert found(joined)[server.CONTROL].state == "ok"
    change(joined / "connection.json", port=superlink)
    findings = found(joined)
    assert (findings[server.CONTROL].state, "answers 200" in findings[server.CONTROL].said) == ("failed", True)
    assert findings[server.RUNTIME].state == "ok"  # this SuperLink's own secret


def typed(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *map(str, arguments)])
    return stopped.value.code, capsys.readouterr().out


def test_a_sound_site_ends_with_0_and_a_site_with_a_fault_with_2(place, joined, capsys):
    workshop, _, _ = place
    register(workshop, joined)
    code, out = typed(capsys, joined)
    assert (code, "0 failed" in out) == (0, True), out
    joined.joinpath("supernode.key").chmod(0o644)
    code, out = typed(capsys, joined, "--json", "--quick")
    told = json.loads(out)
    assert (code, told["failed"]) == (2, 1)
    (finding,) = [one for one in told["findings"] if one["state"] == "failed"]
    assert (finding["name"], "chmod 600" in finding["do"]) == ("supernode.key", True)
    code, out = typed(capsys, joined, "--quick")
    assert (code, "do: chmod 600" in out, "1 failed" in out) == (2, True, True)
