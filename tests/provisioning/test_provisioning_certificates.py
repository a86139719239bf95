"""What the authority signs: who accepts it, for which names, until when."""

from __future__ import annotations

import base64
import contextlib
import datetime
import shutil
import ssl
import subprocess

import bcrypt
import pytest
from consortium_stories import CONSORTIUM, begun, hashes
from cryptography import x509

from fairsynth.errors import ConfigError, ProvisioningRefused
from fairsynth.provisioning import authority, coordinator
from fairsynth.provisioning.connection import read_server


@pytest.fixture
def story(tmp_path):
    return begun(tmp_path / "story")


def test_the_certificate_is_good_for_the_server_by_every_name_and_for_nothing_else(story):
    server = read_server(story.hub)
    context = ssl.create_default_context(cafile=str(server.ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python 3.13 asks for on its own
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(server.certificate, server.key)

    def greet(name):
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server, server_hostname=name)
        other = own.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(4):
            for one in (client, other):
                with contextlib.suppress(ssl.SSLWantReadError):
                    one.do_handshake()
        return client.version()

    for name in ("fairsynth.example.org", "10.0.0.5", "localhost", "127.0.0.1"):
        assert greet(name) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        greet("elsewhere.example.org")


def test_the_proxy_asks_for_the_password_that_is_in_the_secret(story):
    server = read_server(story.hub)
    name, hashed = server.control_users.read_text().split()
    assert name == "admin"
    assert bcrypt.checkpw(server.control_secret.read_bytes(), hashed.encode())


def test_fingerprints_are_those_that_openssl_and_ssh_keygen_show(story):
    story.joined("boston")
    shown = coordinator.show(story.hub)
    for program, command, digest in (
        ("openssl", ["x509", "-in", str(story.hub / "ca.crt"), "-noout", "-fingerprint", "-sha256"], None),
        ("ssh-keygen", ["-l", "-E", "sha256", "-f", str(story.site("boston") / "supernode.pub")], "ssh"),
    ):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
        said = subprocess.run([program, *command], capture_output=True, text=True, check=True).stdout
        if digest is None:
            assert said.strip().rpartition("=")[2].replace(":", "").lower() == shown["authority"]["sha256"]
        else:
            raw = base64.b64decode(said.split()[1].removeprefix("SHA256:") + "=")
            assert raw.hex() == shown["sites"][0]["supernode_sha256"]


def test_a_renewed_server_certificate_is_of_the_same_authority_and_has_the_names_of_now(story):
    before = read_server(story.hub).key.read_bytes()
    path = story.hub / "consortium.yaml"
    path.write_text(path.read_text().replace("10.0.0.5", "10.0.0.6"))
    until = coordinator.renew_server(story.hub)
    assert abs(until - datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=365)) < datetime.timedelta(days=2)
    server = read_server(story.hub)
    certificate = authority.read_certificate(server.certificate)
    certificate.verify_directly_issued_by(authority.read_certificate(story.hub / "ca.crt"))
    assert "10.0.0.6" in authority.names_of(certificate)
    assert server.key.read_bytes() != before
    authority.check_server(server.folder)


def test_a_server_that_moves_needs_a_new_consortium(story):
    path = story.hub / "consortium.yaml"
    path.write_text(path.read_text().replace("8443", "443"))
    before = hashes(story.hub)
    for change in (lambda: coordinator.renew_server(story.hub), lambda: coordinator.show(story.hub)):
        with pytest.raises(ConfigError, match="name, host or port changed"):
            change()
    assert hashes(story.hub) == before


def test_an_expired_certificate_is_shown(story, monkeypatch):
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=400)
    with monkeypatch.context() as patch:
        patch.setattr(authority, "_now", lambda: past)
        coordinator.renew_server(story.hub)
    shown = coordinator.show(story.hub)
    assert (shown["certificate"]["expired"], shown["certificate"]["days_left"]) == (True, 0)
    assert shown["authority"]["expired"] is False
    with pytest.raises(ProvisioningRefused, match="certificate has expired"):
        authority.check_server(story.hub / "server")


def test_a_certificate_of_another_key_or_authority_is_found(story):
    other = begun(story.root / "other")
    shutil.copy(other.hub / "server" / "server.crt", story.hub / "server" / "server.crt")
    with pytest.raises(ProvisioningRefused) as refused:
        authority.check_server(story.hub / "server")
    found = [problem.what for problem in refused.value.problems]
    assert found == ["certificate of another key than server.key", "certificate of another authority"]


@pytest.mark.parametrize("host", ["fairsynth.example.org", "10.0.0.5", "2001:db8::1", "hub"])
def test_a_server_may_be_a_name_or_an_address(tmp_path, host):
    text = CONSORTIUM.replace("fairsynth.example.org", f'"{host}"')
    story = begun(tmp_path, text=text)
    certificate = authority.read_certificate(read_server(story.hub).certificate)
    assert authority.names_of(certificate)[0] == host
    kind = x509.DNSName if host in ("fairsynth.example.org", "hub") else x509.IPAddress
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert isinstance(next(iter(names)), kind)
    shown = read_server(story.hub).facts.address
    assert shown == (f"[{host}]:8443" if ":" in host else f"{host}:8443")
