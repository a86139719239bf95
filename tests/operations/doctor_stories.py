"""A site small enough to spoil one thing of, and a server that answers what a test says."""

from __future__ import annotations

import datetime
import email.utils
import json
import secrets
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fairsynth.config import SimulationConfig
from fairsynth.governance.identity import ensure_identity
from fairsynth.operations import doctor
from fairsynth.operations.findings import Finding
from fairsynth.simulate import simulate

ROOT = Path(__file__).resolve().parents[2]
CLOSED_PORT = 9  # nobody listens on loopback there
SOUND = {
    "/health": (200, {"status": "ok"}),
    "/v1/control/list-runs": (401, {}),
    "/v1/runtime/acquire-task": (404, {}),
    "/v1/fleet/activate-node": (400, {"code": 2003}),
    "/v1/fleet/register-node": (412, {"code": 2001}),
}


@dataclass(kw_only=True)
class _Told:
    answers: dict[str, tuple[int, object]] = field(default_factory=lambda: dict(SOUND))
    skew: float | None = 0.0  # seconds that the server's clock is ahead; None: no Date
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)


class Stand:
    """An HTTPS server on loopback with a certificate of trustme's; use as a context manager."""

    def __init__(self, certificate, *, context: ssl.SSLContext | None = None, **told):
        self.told = _Told(**told)
        self.context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
        self._server = _Quiet(("127.0.0.1", 0), _handler(self.told))
        self._server.socket = self.context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that ends the handshake is what most tests are about."""


def _handler(told: _Told):
    class Handler(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp=None):
            now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=told.skew or 0.0)
            return email.utils.format_datetime(now, usegmt=True)

        def send_response(self, code, message=None):
            self.send_response_only(code, message)
            if told.skew is not None:
                self.send_header("Date", self.date_time_string())

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told.asked.append((self.command, self.path, body))
            status, content = told.answers.get(self.path, (404, {}))
            reply = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST = answer

        def log_message(self, *_):
            """Nothing to the test's output."""

    return Handler


def make_site(folder: Path) -> Path:
    """A site with simulated tables, before it joins."""
    raw = folder / "raw"
    simulate(SimulationConfig(source="pic", patients=30, seed=3, mix="study", detail=0.02), raw)
    values = {"site": "boston", "config": str(ROOT / "site_configs" / "pic"), "data": str(raw)}
    (folder / "site.json").write_text(json.dumps(values))
    return folder


def join(root: Path, *, port: int, authority, host: str = "localhost", **more) -> None:
    """What provisioning leaves in a site's folder; where it was copied from, its tables are its own."""
    root.chmod(0o700)
    change(root / "site.json", data=str(root / "raw"))
    values = {
        "schema": "fairsynth.connection/1",
        "consortium": "toys",
        "site": "boston",
        "host": host,
        "port": port,
        "granted": "2026-11-28T00:00:00+00:00",
        "serial": 1,
    }
    (root / "connection.json").write_text(json.dumps(values | more))
    authority.cert_pem.write_to_path(root / "ca.crt")
    write_node_key(root)
    ensure_identity(root)
    secret = root / "superexec.secret"
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(32))


def write_node_key(root: Path) -> None:
    """A new key pair for the site's SuperNode."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = root / "supernode.key"
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    )
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (root / "supernode.pub").write_bytes(line + b"\n")


def change(path: Path, **values) -> None:
    """Other values in a file of JSON."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def found(root: Path, *, tables: bool = False, supernode_port: int = CLOSED_PORT) -> dict[str, Finding]:
    """What the doctor finds, by name."""
    findings = list(doctor.examine(root, tables=tables, supernode_port=supernode_port))
    assert len({one.name for one in findings}) == len(findings)
    return {one.name: one for one in findings}


def failures(root: Path, **changes) -> set[str]:
    return {name for name, one in found(root, **changes).items() if one.state == "failed"}
