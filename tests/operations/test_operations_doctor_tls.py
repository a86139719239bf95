"""Each way in which a server fails to prove its name is told apart, and has its own mend."""

import datetime
import socket
import ssl
import threading
from contextlib import closing, contextmanager

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from doctor_stories import Stand, change, found, join

from fairsynth.operations import checks_network as network

TLS = network.TLS
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def told(site, authority, *, certificate=None, names=("localhost",), context=None, **dates):
    """What is said of a server with this certificate; nothing may be asked of it."""
    certificate = certificate or authority.issue_cert(*names, **dates)
    with Stand(certificate, context=context) as stand:
        change(site / "connection.json", port=stand.port)
        findings = found(site)
        asked = list(stand.told.asked)
    tls = findings[TLS]
    if tls.state == "failed":
        assert asked == []  # not a byte after a handshake that did not verify
        assert {findings[name].state for name in ("server's health", "clock", "control API", "key registered")} == {
            "skipped"
        }
        assert tls.do
    return tls


def test_a_good_certificate_is_told_with_its_days(site, authority):
    tls = told(site, authority, not_after=NOW + 200 * DAY)
    assert (tls.state, "199 days left" in tls.said or "200 days left" in tls.said) == ("ok", True)
    assert "TLSv1.3" in tls.said


def test_a_certificate_that_ends_soon_is_a_warning(site, authority):
    tls = told(site, authority, not_after=NOW + 29 * DAY)
    assert (tls.state, "renew" in tls.do) == ("warning", True)
    assert told(site, authority, not_after=NOW + 32 * DAY).state == "ok"


def test_an_ended_certificate(site, authority):
    tls = told(site, authority, not_before=NOW - 20 * DAY, not_after=NOW - DAY)
    assert (tls.state, tls.said.startswith("ended on"), "renew" in tls.do) == ("failed", True, True)


def test_a_certificate_that_begins_later_tells_of_the_clock(site, authority):
    tls = told(site, authority, not_before=NOW + DAY, not_after=NOW + 30 * DAY)
    assert (tls.state, tls.said.startswith("begins on"), "clock" in tls.do) == ("failed", True, True)


def test_a_certificate_for_another_name_tells_both(site, authority):
    tls = told(site, authority, names=("elsewhere.example.org", "10.0.0.5"))
    assert (tls.state, "elsewhere.example.org, 10.0.0.5, not for localhost" in tls.said) == ("failed", True)
    assert "server.also" in tls.do


def test_an_address_that_the_certificate_does_not_name(site, authority):
    change(site / "connection.json", host="127.0.0.1")
    tls = told(site, authority, names=("localhost",))
    assert (tls.state, "not for 127.0.0.1" in tls.said) == ("failed", True)


def test_a_certificate_of_another_ca_shows_its_issuer(site, authority):
    device = trustme.CA(organization_name="Inspecting Device", organization_unit_name="Gateway")
    tls = told(site, authority, certificate=device.issue_cert("localhost"))
    assert (tls.state, "Inspecting Device" in tls.said, "TLS inspection" in tls.do) == ("failed", True, True)
    assert "never add" in tls.do


def test_another_ca_of_the_same_name_tells_to_compare(site, authority):
    twin = trustme.CA(organization_name="Consortium", organization_unit_name="CA")
    tls = told(site, authority, certificate=twin.issue_cert("localhost"))
    assert (tls.state, "same name" in tls.said, "telephone" in tls.do) == ("failed", True, True)


def test_a_self_signed_certificate(site, authority):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alone")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 99 * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    alone = trustme.LeafCert(pem, certificate.public_bytes(serialization.Encoding.PEM), [])
    tls = told(site, authority, certificate=alone)
    assert (tls.state, "self-signed by CN=alone" in tls.said) == ("failed", True)


def test_letters_of_a_certificate_cannot_move_the_terminals_cursor(site, authority):
    device = trustme.CA(organization_name="evil\x1b[2J", organization_unit_name="x")
    tls = told(site, authority, certificate=device.issue_cert("localhost"))
    assert (tls.state, "\x1b" in tls.said) == ("failed", False)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_before_1_2_is_refused(site, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    tls = told(site, authority, context=context)
    assert (tls.state, "older than 1.2" in tls.said) == ("failed", True)


@contextmanager
def talking(reply):
    """A port that answers the first bytes with `reply`, or with nothing and an end."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve():
            while True:
                try:
                    one, _ = listening.accept()
                except OSError:
                    return
                with closing(one):
                    one.settimeout(5)
                    if one.recv(4096) and reply:
                        one.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]


def test_a_port_that_does_not_speak_tls(site):
    with talking(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        change(site / "connection.json", port=port)
        tls = found(site)[TLS]
    assert (tls.state, "does not speak TLS" in tls.said) == ("failed", True)


def test_a_handshake_that_is_cut(site):
    with talking(b"") as port:
        change(site / "connection.json", port=port)
        tls = found(site)[TLS]
    assert (tls.state, bool(tls.do)) == ("failed", True)
    assert "cut in the TLS handshake" in tls.said


def test_a_handshake_that_nobody_answers_ends(connection, site, authority):
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        there = connection.model_copy(update={"port": silent.getsockname()[1]})
        tls = network.tls_finding(there, "127.0.0.1", site / "ca.crt", now=NOW, seconds=0.3)
    assert (tls.state, "cut in the TLS handshake" in tls.said) == ("failed", True)


def test_a_closed_port_a_dropped_packet_and_a_missing_route_are_told_apart(monkeypatch):
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))  # no listen: the kernel refuses
        port, _ = network.reach(["127.0.0.1"], bound.getsockname()[1])
    assert (port.state, "is closed" in port.said) == ("failed", True)
    for error, words in (
        (TimeoutError(), "a firewall drops it"),
        (OSError(113, "No route to host"), "there is no way"),
        (OSError(101, "Network is unreachable"), "there is no way"),
        (PermissionError(1, "Operation not permitted"), "Operation not permitted"),
    ):

        def refuse(*_, error=error, **__):
            raise error

        monkeypatch.setattr(socket, "create_connection", refuse)
        port, address = network.reach(["192.0.2.7"], 8443)
        assert (port.state, words in port.said, "8443" in port.do, address) == ("failed", True, True, "")


def test_the_second_address_of_a_name_is_tried(server):
    port, address = network.reach(["127.0.0.2", "127.0.0.1"], server.port)
    assert (port.state, address) == ("ok", "127.0.0.1")


def test_a_name_that_nobody_knows_and_a_nameserver_that_is_away(site, monkeypatch):
    change(site / "connection.json", host="no-such-host.invalid")
    for number, words in ((socket.EAI_NONAME, "is not known here"), (socket.EAI_AGAIN, "no nameserver told")):

        def fail(*_, number=number, **__):
            raise socket.gaierror(number, "x")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        findings = found(site)
        name = findings[network.RESOLVE]
        assert (name.state, words in name.said, bool(name.do)) == ("failed", True, True)
        assert findings[network.PORT].state == "skipped"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_told_and_not_used(variable, site, monkeypatch):
    assert found(site)[network.PROXY].state == "ok"
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    findings = found(site)
    assert (findings[network.PROXY].state, findings["server's health"].state) == ("warning", "ok")
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert found(site)[network.PROXY].state == "ok"


def test_an_ended_ca_is_told_of_itself(site, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA")])
    for number, (ends, state) in enumerate(
        ((NOW - DAY, "failed"), (NOW + 20 * DAY, "warning"), (NOW + 90 * DAY, "ok"))
    ):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(number + 1)
            .not_valid_before(NOW - 99 * DAY)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        (site / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        assert found(site)["ca.crt"].state == state


def test_the_servers_own_certificate_is_no_ca(site, authority):
    authority.issue_cert("localhost").cert_chain_pems[0].write_to_path(site / "ca.crt")
    findings = found(site)
    assert (findings["ca.crt"].state, findings[TLS].state) == ("failed", "skipped")


def test_an_address_needs_no_nameserver(sound, site, authority, server, monkeypatch):
    join(site, port=server.port, authority=authority, host="127.0.0.1")
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: pytest.fail(host) if not host[0].isdigit() else real(host, *a, **k)
    )
    findings = found(site)
    assert {findings[name].state for name in (network.RESOLVE, TLS, "server's health")} == {"ok"}
