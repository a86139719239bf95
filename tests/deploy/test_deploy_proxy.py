"""The server's one port: sites reach `/v1/fleet/*` and `/health`, an administrator the control API, nobody the rest."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import stat
import subprocess
import sys

import pytest
from bare import PASSWORD, URL_PASSWORD, Bare, write_certificates
from units import DEPLOY

from fairsynth.errors import EngineError
from fairsynth.federation.engine.processes import LOOPBACK, Workshop, free_ports, listens
from fairsynth.federation.engine.study import SUPERLINK

pytestmark = pytest.mark.flower

FLEET = "/v1/fleet/pull-messages"
CONTROL = "/v1/control/list-runs"
ABSOLUTE = f"http://127.0.0.1{CONTROL}"
PROTOBUF = "Content-Type: application/protobuf\r\nAccept: application/protobuf\r\n"
# Request lines that mean the control or the Runtime API to some reader of URLs, or that nobody needs.
TRICKS = (
    "/",
    "/docs",
    "/openapi.json",
    "/v1/runtime/acquire-task",
    "/v1/runtime/get-nodes",
    "/v1/responses",
    "/v1/fleet",
    "/v1/fleet/",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/../runtime/acquire-task",
    "/v1/fleet/./../control/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/%2E%2E/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/%2e%2e%2fcontrol%2flist-runs",
    "/v1/fleet/%252e%252e/control/list-runs",
    "/v1/fleet/..%5ccontrol%5clist-runs",
    "/v1/fleet/..;/control/list-runs",
    "/v1/fleet//../control/list-runs",
    "//v1//control/list-runs",
    "//v1/control/list-runs",
    "/v1//control/list-runs",
    "/v1/control//list-runs",
    "/v1/./control/list-runs",
    "/v1/%63ontrol/list-runs",
    "/v1/control%2flist-runs",
    "/V1/CONTROL/list-runs",
    "/v1/Control/list-runs",
    "/v1/control/list-runs/",
    "/v1/control/list-runs?x=/v1/fleet/pull-messages",
    "/v1/control/list-runs#/v1/fleet/pull-messages",
    "/v1/fleet/pull-messages?next=/v1/control/list-runs",
    "/v1/fleet/pull-messages/../../control/list-runs",
    "/v1/fleet/pull-messages%00",
    "/v1/fleet/pull-messages%0a/v1/control/list-runs",
    "/health/../v1/control/list-runs",
    "/health?x",
    "*",
    ABSOLUTE,
    "https://127.0.0.1:8000/v1/runtime/acquire-task",
    "https://127.0.0.1:8000//v1/control/list-runs",
)
TLS_ALERT = "alert protocol version"


def context(server, **changes) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=server.keys / "ca.crt")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def said(server, request: bytes, *, tls: ssl.SSLContext | None = None) -> bytes:
    """What the proxy answers to bytes as they are: no client library tidies them."""
    with (
        socket.create_connection((LOOPBACK, server.port), timeout=30) as raw,
        (tls or context(server)).wrap_socket(raw, server_hostname=LOOPBACK) as stream,
    ):
        stream.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := stream.recv(65536):
                answer += part
        return answer


def asked(server, line: str, *, method: str = "POST", headers: str = "", tls=None) -> tuple[int, str]:
    """Status and whole answer to one request without a body."""
    head = f"{method} {line} HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Length: 0\r\nConnection: close\r\n{PROTOBUF}"
    answer = said(server, f"{head}{headers}\r\n".encode(), tls=tls).decode(errors="replace")
    return int(answer.split(" ", 2)[1]), answer


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}\r\n"


def reached(server) -> list[str]:
    """The requests that the SuperLink has answered, as its own log has them."""
    lines = server.log("fairsynth-superlink").splitlines()
    return [line for line in lines if "uvicorn.access" in line and "/health" not in line]


def test_health_is_answered_for_everybody(server):
    assert asked(server, "/health", method="GET")[0] == 200


def test_the_fleet_api_is_reached_and_asks_for_a_nodes_key_itself(server):
    before = len(reached(server))
    status, answer = asked(server, FLEET)
    assert status == 401
    assert "www-authenticate" not in answer.lower()  # Flower's own answer, not the proxy's
    assert len(reached(server)) == before + 1


def test_no_request_line_finds_another_way_in(server):
    before = len(reached(server))
    answers = {line: asked(server, line)[0] for line in TRICKS}
    assert set(answers.values()) <= {400, 401, 404}, answers
    assert asked(server, FLEET)[0] == 401
    assert len(reached(server)) == before + 1  # that one alone


def test_with_the_password_only_the_plain_path_is_the_control_api(server):
    before = len(reached(server))
    answers = {line: asked(server, line, headers=basic("admin", PASSWORD))[0] for line in TRICKS}
    # an absolute URI asks this proxy for its path, whatever host it names
    assert [line for line, status in answers.items() if status not in (400, 404)] == [ABSOLUTE]
    assert answers[ABSOLUTE] == 200
    assert len(reached(server)) == before + 1


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "CONNECT", "TRACE", "post"])
def test_other_methods_find_nothing(method, server):
    before = len(reached(server))
    for line in (FLEET, CONTROL, "/v1/runtime/acquire-task"):
        assert asked(server, line, method=method)[0] in (400, 404, 405)
    assert len(reached(server)) == before


def test_two_requests_that_a_header_tries_to_hide_in_one_are_not_smuggled(server):
    before = len(reached(server))
    inner = f"POST {CONTROL} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    head = f"POST {FLEET} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n"
    for lengths in (
        f"Content-Length: {len(inner) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        f"Content-Length: 0\r\nContent-Length: {len(inner)}\r\n\r\n{inner}",
        f"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}",
    ):
        said(server, (head + lengths).encode())
    assert not [line for line in reached(server)[before:] if "/v1/control" in line]


def test_headers_that_name_another_path_change_nothing(server):
    before = len(reached(server))
    for header in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-HTTP-Method-Override"):
        assert asked(server, "/", headers=f"{header}: {CONTROL}\r\n")[0] == 404
    assert len(reached(server)) == before


def test_the_control_api_asks_for_the_administrators_password(server):
    before = len(reached(server))
    for headers in (
        "",
        basic("admin", "wrong"),
        basic("admin", ""),
        basic("Admin", PASSWORD),
        basic("root", PASSWORD),
        basic("", ""),
        "Authorization: Bearer x\r\n",
        "X-Forwarded-For: 127.0.0.1\r\n",
    ):
        assert asked(server, CONTROL, headers=headers)[0] == 401
    assert len(reached(server)) == before
    status, answer = asked(server, CONTROL, headers=basic("admin", PASSWORD))
    assert status == 200
    assert len(reached(server)) == before + 1
    assert "application/" in answer


def test_only_http_1_is_offered_so_no_other_framing_has_to_be_checked(server):
    tls = context(server)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((LOOPBACK, server.port)) as raw,
        tls.wrap_socket(raw, server_hostname=LOOPBACK) as stream,
    ):
        assert stream.selected_alpn_protocol() == "http/1.1"
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
    assert not said(server, preface).startswith(b"\0")  # no frame of HTTP/2 comes back


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_1_1_is_refused_and_1_2_is_not(server):
    def version(latest: ssl.TLSVersion) -> str:
        tls = context(server)
        tls.set_ciphers("ALL:@SECLEVEL=0")  # this side would take it
        tls.minimum_version, tls.maximum_version = ssl.TLSVersion.TLSv1, latest
        with (
            socket.create_connection((LOOPBACK, server.port)) as raw,
            tls.wrap_socket(raw, server_hostname=LOOPBACK) as stream,
        ):
            return stream.version()

    assert version(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises(ssl.SSLError, match=TLS_ALERT):
            version(old)


def test_plain_http_is_not_spoken(server):
    with socket.create_connection((LOOPBACK, server.port), timeout=30) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = raw.recv(1000)
    assert b"400" in answer.split(b"\r\n")[0]


def test_more_than_a_chunk_of_flowers_passes_and_a_flood_does_not(server):
    def sent(size: int) -> int:
        head = f"POST {FLEET} HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Length: {size}\r\nConnection: close\r\n"
        try:
            return int(said(server, f"{head}{PROTOBUF}\r\n".encode() + bytes(size)).split(b" ")[1])
        except OSError:  # cut off while it was still sending
            return 413

    before = len(reached(server))
    assert sent(12_000_000) == 400  # Flower's own answer: zeros are no message of its
    assert len(reached(server)) == before + 1
    assert sent(40_000_000) == 413
    assert asked(server, FLEET)[0] == 401
    assert len(reached(server)) == before + 2  # the flood is not among them


def test_neither_the_password_nor_a_nodes_key_is_in_the_proxys_log_even_when_the_superlink_is_gone(tmp_path):
    with Bare(host=tmp_path / "server") as bare:
        bare.start_proxy()
        headers = basic("admin", PASSWORD) + "flwr-public-key: secret-of-a-node\r\n"
        assert asked(bare, CONTROL, headers=headers)[0] == 502
        bare.until("fairsynth-proxy", CONTROL)  # it did log the failure
        log = bare.log("fairsynth-proxy")
    assert basic("admin", PASSWORD).split()[-1] not in log
    assert "secret-of-a-node" not in log
    assert PASSWORD not in log


def test_outside_the_administrators_networks_the_control_api_is_not_even_there(tmp_path):
    with Bare(host=tmp_path / "server") as bare:
        bare.configure_server(FAIRSYNTH_CONTROL_FROM="192.0.2.0/24")
        bare.start_proxy()
        assert asked(bare, CONTROL, headers=basic("admin", PASSWORD))[0] == 404
        assert asked(bare, CONTROL, headers=basic("admin", PASSWORD) + "X-Forwarded-For: 192.0.2.1\r\n")[0] == 404
        assert asked(bare, FLEET)[0] == 502  # there, with nobody behind it


def test_the_superlink_and_the_proxy_listen_where_their_units_say_and_nowhere_else(server):
    assert listens(server.port)
    assert listens(server.superlink_port)
    elsewhere = socket.gethostbyname(socket.gethostname())
    if elsewhere.startswith("127."):
        elsewhere = "127.0.0.2"  # loopback's other addresses are open to what listens on all
    for port in (server.port, server.superlink_port):
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex((elsewhere, port)) != 0


def test_the_containers_health_check_asks_for_the_certificate_and_the_answer(server, tmp_path):
    def well(*arguments) -> bool:
        command = [sys.executable, DEPLOY / "health.py", LOOPBACK, *arguments]
        return subprocess.run([str(one) for one in command], capture_output=True, check=False).returncode == 0

    write_certificates(tmp_path, host=LOOPBACK)
    for port in (server.port, server.superlink_port):
        assert well(port, LOOPBACK, server.keys / "ca.crt")
        assert not well(port, "fairsynth.example.org", server.keys / "ca.crt")
        assert not well(port, LOOPBACK, tmp_path / "ca.crt")
        assert not well(port)  # without TLS
    (unused,) = free_ports(1)
    assert not well(unused)


# --- the coordinator's `flwr` ----------------------------------------------------------------------------------------


def test_flwr_works_through_the_proxy_with_a_password_from_its_private_configuration(server, desk):
    settings = desk.home / "config.toml"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    answer = desk.call("flwr", "supernode", "list", SUPERLINK, "--format", "json")
    assert json.loads(answer)["success"] is True
    assert PASSWORD not in answer
    assert URL_PASSWORD not in answer


def test_flwr_prints_its_password_where_json_is_not_asked_for(desk):
    """Why docs/deployment.md says `--format json`; when this fails, Flower has mended it and the page can say so."""
    assert URL_PASSWORD in desk.call("flwr", "supernode", "list", SUPERLINK)


def test_flwr_with_a_wrong_password_is_refused(server):
    with Workshop(threads=1) as other:
        server.connect(other, password="wrong")
        with pytest.raises(EngineError, match=r"[Aa]uthentication|log in|login"):
            other.call("flwr", "supernode", "list", SUPERLINK)
