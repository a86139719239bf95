"""A SuperNode speaks to its own server alone, and a server to registered SuperNodes alone: real processes of both."""

from __future__ import annotations

import contextlib
import datetime
import json
import select
import shutil
import socket
import socketserver
import ssl
import threading
from dataclasses import dataclass, field

import pytest
import trustme
from bare import Bare
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fairsynth.errors import EngineError
from fairsynth.federation.engine.processes import LOOPBACK, Workshop, wait_for
from fairsynth.federation.engine.study import SUPERLINK
from fairsynth.provisioning.node_keys import write_node_key

pytestmark = pytest.mark.flower

DAY = datetime.timedelta(days=1)
HOST = "fairsynth.example.org"


# --- the server's certificate ----------------------------------------------------------------------------------------


@dataclass
class Recorder:
    """A server with some certificate: who completed a handshake with it, and what they then sent."""

    context: ssl.SSLContext
    asked: int = 0
    heard: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Recorder:
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._socket.accept()
            except OSError:
                return
            self.asked += 1
            raw.settimeout(30)
            with contextlib.suppress(OSError), self.context.wrap_socket(raw, server_side=True) as stream:
                data = stream.recv(65536)
                if data:
                    self.heard.append(data)
                    stream.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            raw.close()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def self_signed(folder) -> ssl.SSLContext:
    """A certificate for the right address that no CA has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")]), datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, form, plain)
    (folder / "self.pem").write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "self.pem")
    return context


def contexts(folder, authority: trustme.CA) -> dict[str, ssl.SSLContext]:
    """Servers by what is wrong with their certificate."""
    now = datetime.datetime.now(datetime.UTC)
    issue = authority.issue_cert
    return {
        "nothing": server_context(issue("localhost")),
        "wrong CA": server_context(trustme.CA().issue_cert("localhost")),
        "expired": server_context(issue("localhost", not_before=now - 2 * DAY, not_after=now - DAY)),
        "not yet valid": server_context(issue("localhost", not_before=now + DAY, not_after=now + 2 * DAY)),
        "wrong name": server_context(issue(HOST)),
        "self-signed": self_signed(folder),
    }


WRONG = ("wrong CA", "expired", "not yet valid", "wrong name", "self-signed")


@pytest.fixture(scope="module")
def impostors(tmp_path_factory):
    """The CA that a site was given, and servers that are not or no longer its server."""
    authority = trustme.CA()
    return authority, contexts(tmp_path_factory.mktemp("impostors"), authority)


def site_of(host, authority: trustme.CA, recorder: Recorder) -> Bare:
    bare = Bare(host=host)
    bare.provide_site("boston", server=f"localhost:{recorder.port}")
    authority.cert_pem.write_to_path(bare.site_folder("boston") / "ca.crt")
    return bare


@pytest.mark.parametrize("fault", ["nothing", *WRONG])
def test_a_supernode_sends_nothing_to_a_server_whose_certificate_is_wrong(fault, impostors, tmp_path):
    authority, servers = impostors
    with Recorder(servers[fault]) as recorder, site_of(tmp_path / "host", authority, recorder) as bare:
        bare.start("site", "fairsynth-supernode@", "boston")
        bare.ended("fairsynth-supernode@boston")  # with the right certificate too: the recorder is no SuperLink
        said = bare.log("fairsynth-supernode@boston")
    assert recorder.asked
    if fault == "nothing":
        assert recorder.heard[0].startswith(b"POST /v1/fleet/")
    else:
        assert recorder.heard == []
        assert "CERTIFICATE_VERIFY_FAILED" in said


@pytest.mark.parametrize("fault", ["nothing", *WRONG])
def test_flwr_sends_no_password_to_a_server_whose_certificate_is_wrong(fault, impostors, tmp_path):
    authority, servers = impostors
    with Recorder(servers[fault]) as recorder, Workshop(threads=1) as desk:
        authority.cert_pem.write_to_path(tmp_path / "ca.crt")
        text = f'[superlink.{SUPERLINK}]\naddress = "admin:secret@localhost:{recorder.port}"\n'
        (desk.home / "config.toml").write_text(f'{text}root-certificates = "{tmp_path / "ca.crt"}"\n')
        with contextlib.suppress(EngineError):
            assert json.loads(desk.call("flwr", "supernode", "list", SUPERLINK, "--format", "json"))["success"] is False
    assert recorder.asked
    sent = b"".join(recorder.heard)
    assert (b"\r\nAuthorization: Basic " in sent) == (fault == "nothing")
    assert bool(sent) == (fault == "nothing")


# --- the site's key --------------------------------------------------------------------------------------------------


def nodes(desk: Workshop) -> dict[str, str]:
    """Status of the registered nodes by their ids."""
    answer = json.loads(desk.call("flwr", "supernode", "list", SUPERLINK, "--format", "json"))
    return {node["node-id"]: node["status"] for node in answer["nodes"]}


@pytest.fixture(scope="module")
def lyon(server, desk):
    """A registered site whose SuperNode is online through the proxy."""
    public = server.provide_site("lyon")
    server.register(desk, "lyon", public)
    server.start_site("lyon")
    supernode = server.process("fairsynth-supernode@lyon")
    wait_for(lambda: "online" in nodes(desk).values(), seconds=60, what="lyon", process=supernode)
    return server


def unregistered(folder, registered, lyons):
    """A good key that the coordinator has not seen."""


def exchanged(folder, registered, lyons):
    """The site's key file was changed for another after it had been registered."""
    registered()
    write_node_key(folder / "other" / "supernode.key", folder / "other" / "supernode.pub")
    shutil.move(folder / "other" / "supernode.key", folder / "supernode.key")


def anothers(folder, registered, lyons):
    """The key of a site that is online."""
    registered()
    shutil.copy(lyons / "supernode.key", folder)


def public_for_private(folder, registered, lyons):
    registered()
    shutil.copy(folder / "supernode.pub", folder / "supernode.key")


def empty(folder, registered, lyons):
    registered()
    (folder / "supernode.key").write_bytes(b"")


def keyless(folder, registered, lyons):
    """No key at all: the SuperNode is started without the option."""


FAULTS = (unregistered, exchanged, anothers, public_for_private, empty, keyless)


@pytest.fixture(scope="module")
def refused(lyon, desk):
    """One SuperNode for each fault has tried to join: the nodes before and after, exit codes and logs."""
    for fault in FAULTS:
        site = fault.__name__
        public, folder = lyon.provide_site(site), lyon.site_folder(site)
        (folder / "other").mkdir()
        fault(folder, lambda site=site, public=public: lyon.register(desk, site, public), lyon.site_folder("lyon"))
    before = nodes(desk)
    for fault in FAULTS:
        without = "--auth-supernode-private-key" if fault is keyless else "-"
        lyon.start("site", "fairsynth-supernode@", fault.__name__, without=without)
    names = {fault: f"fairsynth-supernode@{fault.__name__}" for fault in FAULTS}
    codes = {fault: lyon.ended(name) for fault, name in names.items()}
    return before, nodes(desk), codes, {fault: lyon.log(name) for fault, name in names.items()}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_supernode_with_a_wrong_key_is_refused(fault, refused, lyon):
    _, _, codes, logs = refused
    assert codes[fault] != 0
    assert "SuperNode ID" in lyon.log("fairsynth-supernode@lyon")  # what one that is let in says
    assert "SuperNode ID" not in logs[fault]


def test_after_all_refusals_the_server_knows_what_it_knew(refused):
    before, after, _, _ = refused
    assert before == after
    assert sorted(after.values()) == ["online", *["registered"] * 4]  # lyon, and what was registered for the faults


def test_a_superexec_with_a_wrong_secret_gets_no_task(lyon):
    """Whoever may run code for a SuperNode has shown that it knows the site's secret."""
    lyon.provide_site("stranger")
    path = lyon.etc / "sites" / "stranger.env"
    port = next(one for one in lyon.process("fairsynth-supernode@lyon").args if one.startswith("--port=")).split("=")[1]
    path.write_text(f"FAIRSYNTH_NODE_PORT={port}\n")
    lyon.start("site", "fairsynth-superexec@", "stranger")
    lyon.until("fairsynth-supernode@lyon", "SuperExec authentication failed")


def test_a_site_that_is_revoked_is_refused_the_next_time(lyon, desk):
    public = lyon.provide_site("leaver")
    before = set(nodes(desk))
    lyon.register(desk, "leaver", public)
    (number,) = set(nodes(desk)) - before
    desk.call("flwr", "supernode", "unregister", number, SUPERLINK, "--format", "json")
    lyon.start("site", "fairsynth-supernode@", "leaver")
    assert lyon.ended("fairsynth-supernode@leaver") != 0
    assert nodes(desk)[number] == "unregistered"


# --- a site behind a web proxy ---------------------------------------------------------------------------------------


class WebProxy(socketserver.ThreadingTCPServer):
    """A hospital's proxy: it passes on what it is asked to CONNECT to, and remembers where that was."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), Tunnel)
        self.asked: list[str] = []


class Tunnel(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        verb, target, _ = self.rfile.readline().decode().split()
        self.server.asked.append(f"{verb} {target}")
        while self.rfile.readline().strip():
            pass
        host, _, port = target.partition(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as onward:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            other = {self.connection: onward, onward: self.connection}
            while True:
                for ready in select.select(list(other), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    other[ready].sendall(data)


def test_a_site_that_has_only_a_web_proxy_reaches_the_server_through_it_with_tls_from_end_to_end(server, desk):
    server.register(desk, "nice", server.provide_site("nice"))
    with WebProxy() as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        with (server.etc / "sites" / "nice.env").open("a") as settings:
            settings.write(f"HTTPS_PROXY=http://{LOOPBACK}:{web.server_address[1]}\n")
        server.start_site("nice")
        server.until("fairsynth-supernode@nice", "SuperNode ID")
        server.stop("fairsynth-superexec@nice")
        server.stop("fairsynth-supernode@nice")
        web.shutdown()
    assert set(web.asked) == {f"CONNECT {LOOPBACK}:{server.port}"}
