"""What the server says to this site: health, clock, what it hides, whether it knows the site's key.

In:  a connection whose certificate is verified, the SuperNode's key.   Out: findings.
Never: a request that changes anything at the server, or that a running SuperNode would notice; a redirect; a proxy.

Whether the key is registered is asked by a signed activation with a heartbeat of 0 s. Flower 1.41 looks the key up
first and the heartbeat next, and refuses both with different codes before it changes anything
(`superlink/servicer/fleet/fleet_handlers.py`), so the answer is the same whether the SuperNode runs or not.
"""

from __future__ import annotations

import datetime
import email.utils
import http.client
import json
import os
import ssl
from base64 import b64encode
from contextlib import closing
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fairsynth.operations.findings import Finding, failed, ok, warning
from fairsynth.provisioning.connection import Connection

HEALTH, CLOCK, CONTROL, RUNTIME, KEY = "server's health", "clock", "control API", "runtime API", "key registered"
STRANGERS = "other SuperNodes"
SECONDS = 15.0  # for an answer
MAXIMUM_BYTES = 65_536  # of an answer that is read
BEHIND_WARNS, BEHIND_FAILS = 60.0, 300.0  # seconds behind the server's clock; Flower refuses signatures of 305 s ago
AHEAD_WARNS, AHEAD_FAILS = 2.0, 5.0  # seconds ahead of it; Flower refuses signatures of more than 5 s to come
CLOSED = {401, 403, 404}
AWAY = {429, 500, 502, 503, 504}
INVALID_HEARTBEAT, NOT_ACTIVATED = 2003, 2004  # Flower's codes: the key is known; it is not
NO_SELF_REGISTRATION = 2001  # only the coordinator may register a SuperNode
PROTOBUF = "application/protobuf"
LIST_RUNS, ACQUIRE_TASK, ACTIVATE = "/v1/control/list-runs", "/v1/runtime/acquire-task", "/v1/fleet/activate-node"
REGISTER = "/v1/fleet/register-node"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server answered, and when."""

    status: int
    date: datetime.datetime | None  # the server's clock; None where it does not tell
    body: bytes
    sent: datetime.datetime
    received: datetime.datetime

    @property
    def skew(self) -> float | None:
        """Seconds that this machine's clock is ahead of the server's; negative where it is behind.

        The server tells whole seconds, and looks at its clock once a second: it is one second later, give or take one.
        """
        if self.date is None:
            return None
        middle = self.sent + (self.received - self.sent) / 2
        return (middle - self.date).total_seconds() - 1.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """The server, spoken to over verified TLS."""

    connection: Connection
    context: ssl.SSLContext

    def ask(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request. Raises OSError or http.client.HTTPException."""
        there = http.client.HTTPSConnection(
            self.connection.host, self.connection.port, timeout=SECONDS, context=self.context
        )
        with closing(there):
            sent = _now()
            there.request(method, path, body=body, headers=headers or {})
            response = there.getresponse()
            received = _now()
            content = response.read(MAXIMUM_BYTES)
            return Answer(
                status=response.status,
                date=_date(response.getheader("Date")),
                body=content,
                sent=sent,
                received=received,
            )


def health_finding(server: Server) -> tuple[Finding, Answer | None]:
    """Whether the SuperLink answers behind the proxy."""
    try:
        answer = server.ask("GET", "/health")
    except (OSError, http.client.HTTPException) as error:
        said = f"no answer to GET /health ({_told(error)})"
        return failed(HEALTH, said, do="ask the coordinator to look at the server's proxy and SuperLink"), None
    if answer.status == 200:
        return ok(HEALTH, "GET /health answers 200"), answer
    if answer.status in AWAY:
        do = "the proxy runs, the SuperLink behind it does not: ask the coordinator to start it"
        return failed(HEALTH, f"GET /health answers {answer.status}", do=do), answer
    do = "check host and port in connection.json: something else than a FairSynth server answers there"
    return failed(HEALTH, f"GET /health answers {answer.status}", do=do), answer


def clock_finding(answer: Answer) -> Finding:
    """This machine's clock against the server's. Flower forgives one that is behind more than one that is ahead."""
    skew = answer.skew
    if skew is None:
        do = "compare `date -u` with the coordinator's: 5 s ahead or 300 s behind, the server refuses the site"
        return warning(CLOCK, "the server does not tell its time", do=do)
    ahead = skew > 0
    said = f"{abs(skew):.0f} s {'ahead of' if ahead else 'behind'} the server's"
    warns, fails = (AHEAD_WARNS, AHEAD_FAILS) if ahead else (BEHIND_WARNS, BEHIND_FAILS)
    do = "let NTP set the clock on both machines (chronyc tracking, timedatectl)"
    if abs(skew) > fails:
        return failed(CLOCK, f"{said}: every message is refused (401), the SuperNode cannot start", do=do)
    if abs(skew) > warns:
        return warning(CLOCK, f"{said}: refused beyond {fails:.0f} s", do=do)
    return ok(CLOCK, said)


def hidden_finding(server: Server, *, name: str, path: str) -> Finding:
    """Whether the server keeps `path` from sites. The request is empty: it lists, or takes, nothing."""
    try:
        answer = server.ask("POST", path, body=b"", headers={"Content-Type": PROTOBUF})
    except (OSError, http.client.HTTPException) as error:
        return warning(name, f"no answer ({_told(error)})", do="run doctor again")
    if answer.status in CLOSED:
        return ok(name, f"closed to sites ({answer.status})")
    if answer.status in AWAY:
        return warning(name, f"could not be told ({answer.status})", do="run doctor again when the server is well")
    return failed(
        name,
        f"the server shows its {name}: {path} answers {answer.status}",
        do="stop this site's SuperNode, and tell the coordinator: whoever reaches it can run code at every site",
    )


def key_finding(server: Server, key: ec.EllipticCurvePrivateKey, *, skew: float | None) -> Finding:
    """Whether the server knows this site's SuperNode by its key."""
    body, headers = activation(key, at=_now())
    try:
        answer = server.ask("POST", ACTIVATE, body=body, headers=headers)
    except (OSError, http.client.HTTPException) as error:
        return warning(KEY, f"no answer ({_told(error)})", do="run doctor again")
    code = _code(answer.body)
    if code == INVALID_HEARTBEAT:
        return ok(KEY, "the server knows this site's SuperNode")
    if code == NOT_ACTIVATED:
        do = "send request.json to the coordinator (fairsynth provision accept, then apply); if it was revoked, ask why"
        return failed(KEY, "the server does not know this site's key: not registered yet, or revoked", do=do)
    if answer.status == 401:
        if skew is not None and not -BEHIND_WARNS <= skew <= AHEAD_WARNS:
            return failed(KEY, "the server refuses the signature for its time", do="mend the clock first")
        return failed(KEY, "the server refuses the signature", do="the coordinator looks at the SuperLink's log")
    if answer.status in CLOSED:
        return failed(KEY, f"the server's proxy keeps sites out ({answer.status})", do="it must let /v1/fleet/ through")
    do = "compare the versions of Flower here and at the server; ask the coordinator whether the key is registered"
    return warning(KEY, f"could not be told ({answer.status})", do=do)


def strangers_finding(server: Server, key: ec.EllipticCurvePrivateKey) -> Finding:
    """Whether the server keeps out SuperNodes that the coordinator did not register.

    Asked with a key that is registered: a server that lets SuperNodes register themselves refuses it as one in use.
    """
    body, headers = activation(key, at=_now())
    try:
        answer = server.ask("POST", REGISTER, body=body, headers=headers)
    except (OSError, http.client.HTTPException) as error:
        return warning(STRANGERS, f"no answer ({_told(error)})", do="run doctor again")
    if answer.status in CLOSED or _code(answer.body) == NO_SELF_REGISTRATION:
        return ok(STRANGERS, "kept out: only the coordinator registers them")
    if answer.status in AWAY:
        return warning(STRANGERS, f"could not be told ({answer.status})", do="run doctor again when the server is well")
    do = "the coordinator starts the SuperLink with --enable-supernode-auth"
    return failed(STRANGERS, "let in: whoever reaches the server may pose as a site", do=do)


def activation(key: ec.EllipticCurvePrivateKey, *, at: datetime.datetime) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a signed activation whose heartbeat, 0 s, is refused.

    The body is a protobuf message with the public key (PEM) as field 1; a heartbeat of 0, field 2, is not written.
    """
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed_at = at.isoformat()
    signature = key.sign(signed_at.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    headers = {
        "Content-Type": PROTOBUF,
        "flwr-public-key": b64encode(public).decode("ascii"),
        "flwr-timestamp": signed_at,
        "flwr-signature": b64encode(signature).decode("ascii"),
    }
    return b"\x0a" + _varint(len(public)) + public, headers


def supernode_finding(port: int) -> Finding:
    """Whether this site's own SuperNode answers, on loopback."""
    name = "SuperNode"
    there = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        with closing(there):
            there.request("GET", "/health")
            status = there.getresponse().status
    except (OSError, http.client.HTTPException):
        return ok(name, f"none runs here (127.0.0.1 port {port})")
    if status == 200:
        return ok(name, f"runs (127.0.0.1 port {port})")
    return warning(
        name, f"127.0.0.1 port {port} answers {status}", do="something else uses its port: see --supernode-port"
    )


def _varint(number: int) -> bytes:
    """A whole number as protobuf writes it: seven bits a byte, the lowest first."""
    low, rest = number % 128, number // 128
    return bytes([low]) if not rest else bytes([low + 128]) + _varint(rest)


def _code(body: bytes) -> int | None:
    """Flower's code in the body of a refusal."""
    try:
        code = json.loads(body).get("code")
    except (ValueError, AttributeError, RecursionError):
        return None
    return code if isinstance(code, int) else None


def _date(text: str | None) -> datetime.datetime | None:
    """The time in a `Date` header; None where there is none that can be read."""
    try:
        found = email.utils.parsedate_to_datetime(text or "")
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def _told(error: Exception) -> str:
    """What kind of error, without text of others."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
