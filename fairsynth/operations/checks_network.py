"""From the site to the server: name, port, TLS.

In:  the connection, the CA's certificate.   Out: findings, and an address that answers.
Never: a byte of application data before the certificate is verified; a connection to anything but the server; a proxy;
a port that is opened here.

The name is asked of the machine's own resolver. Where verification fails, a second handshake without verification reads
the certificate that was shown, so that the reason can be told, and ends there.
"""

from __future__ import annotations

import datetime
import errno
import ipaddress
import os
import socket
import ssl
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from fairsynth.operations.checks_files import SOON_DAYS, read_ca, spoken
from fairsynth.operations.findings import Finding, failed, ok, warning
from fairsynth.provisioning.connection import Connection

RESOLVE, PORT, PROXY, TLS = "server's name", "server's port", "proxy", "server's certificate"
SECONDS = 5.0  # for a connection, and for a handshake
MAXIMUM_SHOWN = 5  # names of a certificate, addresses of a name

EXPIRED, NOT_YET, WRONG_NAME = {10}, {9}, {62, 64}  # OpenSSL's verification codes: X509_V_ERR_...
OLD_PROTOCOL = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"}
_CLOCK = "this machine's clock is wrong, most likely: let NTP set it (chronyc tracking, timedatectl)"
_COMPARE = "compare ca.crt with the coordinator's by telephone ({}), then install the newest grant"
UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The certificate that whoever answered showed, verified or not."""

    certificate: x509.Certificate

    @property
    def issuer(self) -> str:
        """Who issued it, in one line."""
        return printable(self.certificate.issuer.rfc4514_string()) or "nobody"

    @property
    def names(self) -> str:
        """The names and addresses that it is for."""
        try:
            found = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            common = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            return ", ".join(printable(str(one.value)) for one in common) or "no name"
        return ", ".join(printable(str(name.value)) for name in list(found)[:MAXIMUM_SHOWN]) or "no name"

    @property
    def is_self_signed(self) -> bool:
        """Whether it names itself as its issuer."""
        return self.certificate.issuer == self.certificate.subject


def resolve(connection: Connection) -> tuple[Finding, list[str]]:
    """The addresses behind the server's name."""
    host = connection.host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return ok(RESOLVE, f"{host}: an address, nothing to resolve"), [host]
    try:
        found = socket.getaddrinfo(host, connection.port, type=socket.SOCK_STREAM)
    except OSError as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            said, do = f"no nameserver told of {host}", "check /etc/resolv.conf, and that DNS may leave this network"
        else:
            said = f"{host} is not known here"
            do = "ask the network's administrators to resolve it; if it is misspelt, the coordinator for another grant"
        return failed(RESOLVE, said, do=do), []
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    return ok(RESOLVE, f"{host} is {', '.join(addresses[:MAXIMUM_SHOWN])}"), addresses


def reach(addresses: list[str], port: int, *, seconds: float = SECONDS) -> tuple[Finding, str]:
    """Whether the port accepts a connection at one of the addresses, and at which."""
    told: list[tuple[str, str]] = []
    for address in addresses:
        try:
            with closing(socket.create_connection((address, port), timeout=seconds)):
                return ok(PORT, f"{address} port {port} accepts connections"), address
        except OSError as error:
            told.append(_no_connection(error, address=address, port=port, seconds=seconds))
    said, do = told[0]
    return failed(PORT, said, do=do), ""


def proxy_finding(connection: Connection) -> Finding:
    """Whether this environment names a proxy, which the checks here do not use and Flower's own client would."""
    proxies = urllib.request.getproxies_environment()
    named = [name for name in ("https", "all") if proxies.get(name)]
    if not named:
        return ok(PROXY, "none in this environment: straight to the server")
    if urllib.request.proxy_bypass(connection.host):
        return ok(PROXY, f"one is set, and NO_PROXY leaves {connection.host} out")
    variables = ", ".join(f"{name.upper()}_PROXY" for name in named)
    return warning(
        PROXY,
        f"{variables} is set: these checks went straight, flower-supernode would go through it",
        do=f"leave it out of the SuperNode's environment, or add {connection.host} to NO_PROXY",
    )


def tls_finding(
    connection: Connection, address: str, ca: Path, *, now: datetime.datetime, seconds: float = SECONDS
) -> Finding:
    """Whether the server proves its name by a certificate of the consortium's CA, over TLS 1.2 or later."""
    try:
        with closing(_handshake(connection, address, trusting(ca), seconds=seconds)) as secured:
            shown = _shown(secured)
            protocol = secured.version() or "TLS"
    except ssl.SSLCertVerificationError as error:
        return _unverified(connection, address, read_ca(ca), code=error.verify_code, now=now, seconds=seconds)
    except (ssl.SSLEOFError, TimeoutError, ConnectionError):
        do = f"ask the network's administrators whether a firewall inspects {connection.address}"
        return failed(TLS, "the connection is cut in the TLS handshake", do=do)
    except ssl.SSLError as error:
        return _no_tls(connection, reason=error.reason or "")
    except OSError as error:
        return failed(TLS, f"no handshake: {os.strerror(error.errno or 0)}", do="run doctor again")
    ends = shown.certificate.not_valid_after_utc
    left = (ends - now).days
    said = f"{protocol}, for {shown.names}, until {ends:%Y-%m-%d}, {left} days left"
    if left < SOON_DAYS:
        return warning(TLS, said, do="the coordinator renews it: fairsynth provision renew FOLDER --server")
    return ok(TLS, said)


def trusting(ca: Path) -> ssl.SSLContext:
    """TLS as the SuperNode speaks it: this CA and no other, the server's name checked. Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=ca)
    return context


def printable(text: str, *, most: int = 120) -> str:
    """`text` of others, made fit for a terminal."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def _handshake(connection: Connection, address: str, context: ssl.SSLContext, *, seconds: float) -> ssl.SSLSocket:
    """A secured connection on which nothing has been said."""
    plain = socket.create_connection((address, connection.port), timeout=seconds)
    try:
        return context.wrap_socket(plain, server_hostname=connection.host)
    except BaseException:
        plain.close()
        raise


def _shown(secured: ssl.SSLSocket) -> Shown:
    """The certificate of the other side. Raises OSError when it is none that can be read."""
    try:
        return Shown(certificate=x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b""))
    except ValueError:
        raise OSError(errno.EPROTO, "no certificate") from None


def _unverified(
    connection: Connection,
    address: str,
    authority: x509.Certificate,
    *,
    code: int,
    now: datetime.datetime,
    seconds: float,
) -> Finding:
    """Why a certificate was refused, from the certificate itself."""
    try:
        shown = _look(connection, address, seconds=seconds)
    except OSError:
        return failed(TLS, f"refused (OpenSSL's code {code})", do=_COMPARE.format(spoken(authority)))
    certificate = shown.certificate
    if code in EXPIRED and certificate.not_valid_after_utc <= now:
        said = f"ended on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; here it is {now:%Y-%m-%d %H:%M}"
        return failed(
            TLS, said, do="if this clock is right: the coordinator runs fairsynth provision renew FOLDER --server"
        )
    if code in NOT_YET and certificate.not_valid_before_utc > now:
        said = f"begins on {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; here it is {now:%Y-%m-%d %H:%M}"
        return failed(TLS, said, do=_CLOCK)
    if code in EXPIRED | NOT_YET:
        return failed(TLS, "a certificate of its chain is out of its time", do=_CLOCK)
    if code in WRONG_NAME:
        said = f"it is for {shown.names}, not for {connection.host}"
        do = f"the coordinator adds {connection.host} under server.also and renews the server's certificate"
        return failed(TLS, said, do=do)
    if shown.is_self_signed:
        said = f"self-signed by {shown.issuer}, not from the consortium's CA"
        return failed(TLS, said, do="the server must use the server.crt that fairsynth provision made for it")
    if certificate.issuer == authority.subject:
        said = "from another CA of the same name as the one in ca.crt"
        return failed(TLS, said, do=_COMPARE.format(spoken(authority)))
    said = (
        f"issued by {shown.issuer}, not by the consortium's CA: another server, or a device that opens TLS on the way"
    )
    do = f"exempt {connection.address} from TLS inspection; never add that issuer to ca.crt"
    return failed(TLS, said, do=do)


def _look(connection: Connection, address: str, *, seconds: float) -> Shown:
    """The certificate that is shown, whoever shows it; nothing is sent to them. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with closing(_handshake(connection, address, context, seconds=seconds)) as secured:
        return _shown(secured)


def _no_tls(connection: Connection, *, reason: str) -> Finding:
    """Why there was no handshake."""
    if reason in OLD_PROTOCOL:
        do = "the server, or a device on the way, must speak TLS 1.2 or 1.3"
        return failed(TLS, "only TLS older than 1.2 is spoken there", do=do)
    do = f"check the port in connection.json, and whether a proxy answers for {connection.address}"
    return failed(TLS, f"whoever answers does not speak TLS ({printable(reason) or 'no handshake'})", do=do)


def _no_connection(error: OSError, *, address: str, port: int, seconds: float) -> tuple[str, str]:
    """What an error of a connection means, and what mends it."""
    rule = f"ask the network's administrators to let this machine connect out to {address} port {port} (TCP)"
    if isinstance(error, TimeoutError):
        said = f"no answer from {address} port {port} in {seconds:g} s: a firewall drops it, most likely"
        return said, f"{rule}; nothing need be open inwards"
    if isinstance(error, ConnectionRefusedError):
        return f"{address} port {port} is closed", f"ask the coordinator whether the server runs; if it does, {rule}"
    if error.errno in UNREACHABLE:
        return f"there is no way to {address}", f"check this machine's network; {rule}"
    return f"{address} port {port}: {os.strerror(error.errno or 0)}", rule
