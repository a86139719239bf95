"""Who may read what, what travels, what one site's change does to the others, and what a stopped command leaves."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import ssl
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import bcrypt
import pytest
from consortium_stories import CONSORTIUM, begun, hashes
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fairsynth import artefacts
from fairsynth.config import read_consortium
from fairsynth.errors import ArtefactError, ConfigError, FairSynthError, KeyRefused, ProvisioningRefused
from fairsynth.governance.identity import load_identity
from fairsynth.provisioning import authority, coordinator, documents, grants, node_keys, records, request
from fairsynth.provisioning.connection import read_connection, read_server
from fairsynth.provisioning.permissions import check_permissions, permission_problems

PRIVATE_SITE = {"identity.key", "supernode.key", "superexec.secret"}
PRIVATE_HUB = {"ca.key", "server/server.key", "server/superexec.secret", "server/control.secret"}


@pytest.fixture
def story(tmp_path):
    return begun(tmp_path / "story")


def secrets_of(folder, names):
    """The text and the bytes that a private file holds, however they might be written elsewhere."""
    found = []
    for name in names:
        content = (folder / name).read_bytes()
        found.append(content.strip())
        if b"PRIVATE KEY" in content:
            load = serialization.load_ssh_private_key if b"OPENSSH" in content else serialization.load_pem_private_key
            key = load(content, password=None)
            if hasattr(key, "private_numbers"):
                number = key.private_numbers().private_value
                raw = number.to_bytes((key.key_size + 7) // 8, "big")
                found += [str(number).encode(), f"{number:x}".encode()]
            else:
                raw = key.private_bytes_raw()
            found += [raw, raw.hex().encode()]
    return found


def test_nothing_private_is_in_a_file_that_travels(story):
    for site in ("boston", "lyon"):
        story.joined(site)
    story.joined("boston", renew=True)
    travelled = [path.read_bytes() for path in sorted(story.mail.iterdir())]
    assert {path.name for path in story.mail.iterdir()} == {
        f"{site}.{what}.json" for site in ("boston", "lyon") for what in ("kit", "request", "grant")
    }
    private = secrets_of(story.hub, PRIVATE_HUB)
    for site in ("boston", "lyon"):
        private += secrets_of(story.site(site), PRIVATE_SITE)
    assert len(private) == 5 + 2 + 4 + 2 * (4 + 3 + 1) + 2 * 0 + 1 or len(private) > 20
    assert not [1 for content in travelled for secret in private if secret in content]
    assert not [1 for content in travelled if b"PRIVATE" in content]
    # the search finds what it is for
    assert any(secret in (story.hub / "server" / "server.key").read_bytes() for secret in private)


def test_private_files_are_their_owners_alone_from_the_first_moment(story):
    story.joined("boston")
    for folder, names in ((story.hub, PRIVATE_HUB), (story.site("boston"), PRIVATE_SITE)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {name: stat.S_IMODE((folder / name).stat().st_mode) for name in names} == dict.fromkeys(names, 0o600)


def test_the_certificate_is_good_for_the_server_by_every_name_and_for_nothing_else(story):
    server = read_server(story.hub)
    context = ssl.create_default_context(cafile=str(server.ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python 3.13 asks for on its own
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(server.certificate, server.key)

    def greet(name):
        (to_server, to_client), (from_client, from_server) = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _ in range(2)]
        client = context.wrap_bio(to_client, to_server, server_hostname=name)
        other = own.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(4):
            for one in (client, other):
                try:
                    one.do_handshake()
                except ssl.SSLWantReadError:
                    pass
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


def test_what_server_and_site_are_started_from_can_be_read(story):
    story.joined("boston")
    story.granted("lyon")
    coordinator.revoke(story.hub, "lyon")
    connection, server = read_connection(story.site("boston")), read_server(story.hub)
    assert (connection.consortium, connection.site, connection.address, connection.serial) == (
        "lungs",
        "boston",
        "fairsynth.example.org:8443",
        1,
    )
    assert server == read_server(story.hub / "server")
    assert {site: one.state for site, one in server.facts.sites.items()} == {"boston": "granted", "lyon": "revoked"}
    assert server.granted["boston"].identity == load_identity(story.site("boston")).public.hex()
    assert server.supernode("boston").read_bytes() == (story.site("boston") / "supernode.pub").read_bytes()
    assert not server.supernode("lyon").exists()
    assert (story.site("boston") / "ca.crt").read_bytes() == server.ca.read_bytes()
    for folder in (story.site("lyon"), story.root):
        with pytest.raises(ArtefactError, match="site without a grant"):
            read_connection(folder)
        with pytest.raises(ArtefactError, match="no server folder"):
            read_server(folder)


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
            import base64

            raw = base64.b64decode(said.split()[1].removeprefix("SHA256:") + "=")
            assert raw.hex() == shown["sites"][0]["supernode_sha256"]


CHANGES = {
    "add": lambda story: coordinator.add(story.hub, "graz"),
    "renew": lambda story: story.joined("boston", renew=True),
    "revoke": lambda story: coordinator.revoke(story.hub, "boston"),
    "return": lambda story: (coordinator.revoke(story.hub, "boston"), coordinator.add(story.hub, "boston")),
    "server": lambda story: coordinator.renew_server(story.hub),
    "show": lambda story: coordinator.show(story.hub),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_happens_to_one_site_or_the_server_touches_no_file_of_another(story, change):
    for site in ("boston", "lyon"):
        story.joined(site)
    site, hub = hashes(story.site("lyon")), hashes(story.hub)
    stamps = {path: path.stat().st_mtime_ns for path in story.hub.rglob("*lyon*")}
    CHANGES[change](story)
    assert hashes(story.site("lyon")) == site
    lyons = {name: digest for name, digest in hub.items() if "lyon" in name}
    assert len(lyons) == 4
    now = hashes(story.hub)
    assert {name: now[name] for name in lyons} == lyons
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    changed = {name for name in hub.keys() | now.keys() if hub.get(name) != now.get(name)}
    assert (
        changed
        == {
            "add": {"consortium.yaml", "kits/graz.kit.json", "sites/graz.json"},
            "renew": {
                "sites/boston.json",
                "grants/boston.grant.json",
                "server/supernodes/boston.pub",
                "server/server.json",
            },
            "revoke": {
                "sites/boston.json",
                "grants/boston.grant.json",
                "server/supernodes/boston.pub",
                "server/server.json",
            },
            "return": {
                "sites/boston.json",
                "grants/boston.grant.json",
                "server/supernodes/boston.pub",
                "server/server.json",
            },
            "server": {"server/server.crt", "server/server.key"},
            "show": set(),
        }[change]
    )


def test_a_renewal_changes_the_supernode_key_and_keeps_the_identity(story):
    site = story.joined("boston")
    before = {name: (site / name).read_bytes() for name in ("supernode.key", "identity.key", "ca.crt")}
    grant = story.granted("boston", renew=True)
    assert (site / "supernode.key").read_bytes() == before["supernode.key"]  # in use until the grant is installed
    request.install(grant, site)
    assert (site / "supernode.key").read_bytes() != before["supernode.key"]
    assert not (site / "supernode.key.new").exists()
    assert (site / "identity.key").read_bytes() == before["identity.key"]
    assert (site / "ca.crt").read_bytes() == before["ca.crt"]
    after = hashes(site)
    request.install(grant, site)
    assert hashes(site) == after


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
    assert authority.server_problems(server.folder) == []


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
    (problem,) = authority.server_problems(story.hub / "server")
    assert problem.what == "certificate has expired"


def test_a_certificate_of_another_key_or_authority_is_found(story):
    other = begun(story.root / "other")
    shutil.copy(other.hub / "server" / "server.crt", story.hub / "server" / "server.crt")
    found = [problem.what for problem in authority.server_problems(story.hub / "server")]
    assert found == ["certificate of another key than server.key", "certificate of another authority"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o601])
@pytest.mark.parametrize("name", [*sorted(PRIVATE_HUB), *sorted(PRIVATE_SITE)])
def test_a_private_file_of_another_mode_is_refused(story, name, mode):
    story.joined("boston")
    folder, who = (story.hub, "coordinator") if name in PRIVATE_HUB else (story.site("boston"), "site")
    (folder / name).chmod(mode)
    with pytest.raises(KeyRefused, match=f"private file of mode {mode:04o}") as refused:
        check_permissions(folder, who)
    (problem,) = refused.value.problems
    assert problem.do == f"chmod 600 {folder / name}"
    subprocess.run(problem.do.split(), check=True)
    check_permissions(folder, who)


VERBS = {
    "accept": lambda story, asked: grants.accept(story.hub, asked),
    "add": lambda story, _: coordinator.add(story.hub, "graz"),
    "revoke": lambda story, _: coordinator.revoke(story.hub, "boston"),
    "renew": lambda story, _: coordinator.renew_server(story.hub),
    "show": lambda story, _: coordinator.show(story.hub),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_of_the_coordinator_works_with_a_key_that_others_can_read(story, verb):
    asked = story.asked("boston")
    (story.hub / "ca.key").chmod(0o644)
    before = hashes(story.hub)
    with pytest.raises(KeyRefused, match=r"ca\.key"):
        VERBS[verb](story, asked)
    assert hashes(story.hub) == before


@pytest.mark.parametrize("name", ["supernode.key", "supernode.key.new", "identity.key", "superexec.secret"])
def test_no_verb_of_a_site_works_with_a_key_that_others_can_read(story, name):
    story.joined("boston")
    grant = story.granted("boston", renew=True)
    (story.site("boston") / name).chmod(0o644)
    before = hashes(story.site("boston"))
    for verb in (
        lambda: request.install(grant, story.site("boston")),
        lambda: story.asked("boston"),
        lambda: story.asked("boston", renew=True),
    ):
        with pytest.raises(KeyRefused, match=name.replace(".", r"\.")):
            verb()
    assert hashes(story.site("boston")) == before


def test_folders_that_others_can_write_links_and_missing_files_are_problems(story):
    site = story.joined("boston")
    site.chmod(0o777)
    shutil.move(site / "supernode.key", story.root / "elsewhere.key")
    (site / "supernode.key").symlink_to(story.root / "elsewhere.key")
    (site / "superexec.secret").unlink()
    found = permission_problems(site, "site", complete=True)
    assert [problem.what for problem in found] == [
        "folder of mode 0777, which others can write",
        "private file is a link or no file",
        "missing private file",
    ]
    with pytest.raises(KeyRefused, match="cannot be read"):
        node_keys.read_node_key(site / "supernode.key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_private_file_of_another_user_is_refused(story):
    site = story.joined("boston")
    os.chown(site / "supernode.key", 12345, -1)
    (problem,) = permission_problems(site, "site")
    assert (problem.what, problem.do) == (
        "private file of another user (uid 12345)",
        f"chown 0 {site / 'supernode.key'}",
    )
    with pytest.raises(KeyRefused, match="another user"):
        node_keys.read_node_key(site / "supernode.key")


def test_init_makes_a_whole_folder_or_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(records, "kit_of", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            begun(tmp_path)
    assert not (tmp_path / "hub").exists()
    story = begun(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["consortium.yaml", "hub"]
    before = hashes(story.hub)
    with pytest.raises(ConfigError, match="something is here"):
        begun(tmp_path)
    assert hashes(story.hub) == before
    (tmp_path / "empty").mkdir()
    coordinator.init(tmp_path / "consortium.yaml", tmp_path / "empty")
    assert hashes(tmp_path / "empty").keys() == before.keys()


STOPPED = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    import fairsynth.artefacts as artefacts
    from fairsynth.provisioning import grants, request

    left = int(sys.argv[1])
    write = artefacts.write_bytes

    def counted(*arguments):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        write(*arguments)

    artefacts.write_bytes = counted
    replace = Path.replace

    def renamed(path, target):
        global left
        if path.name == "supernode.key.new":
            if left == 0:
                os._exit(9)
            left -= 1
        return replace(path, target)

    Path.replace = renamed
    verb, one, other = sys.argv[2:]
    if verb == "accept":
        grants.accept(Path(one), Path(other))
    else:
        request.install(Path(other), Path(one))
    """
)


def stopped(number, verb, folder, file):
    """Run a verb in a process of its own that dies before its write `number`; whether it died."""
    code = subprocess.run(
        [sys.executable, "-c", STOPPED, str(number), verb, str(folder), str(file)], check=False
    ).returncode
    assert code in (0, 9)
    return code == 9


def test_an_accept_that_is_killed_leaves_the_old_state_or_the_new_one_and_can_be_repeated(story):
    story.joined("boston")
    asked = story.asked("boston", renew=True)
    start = hashes(story.hub)
    number = 0
    while True:
        shutil.rmtree(story.root / "try", ignore_errors=True)
        hub = Path(shutil.copytree(story.hub, story.root / "try"))
        if not stopped(number, "accept", hub, asked):
            break
        assert number > 0 or hashes(hub) == start
        server = read_server(hub)
        keys = {server.granted["boston"].supernode_sha256}
        shown = coordinator.show(hub)  # any verb finishes what was entered
        granted = next(one for one in shown["sites"] if one["site"] == "boston")
        assert granted["serial"] == (1 if number == 0 else 2)
        grants.accept(hub, asked)
        server = read_server(hub)
        assert server.granted["boston"].supernode_sha256 not in keys or len(keys) == 1
        final = grants.accept(hub, asked)[1]
        assert final.serial == 2
        assert server.granted["boston"].supernode_sha256 == final.supernode_sha256
        grant = documents.read(hub / "grants" / "boston.grant.json", documents.Grant)
        assert grant == final.grant
        assert server.supernode("boston").read_text() == grant.supernode + "\n"
        number += 1
    assert number == 4  # record, grant, public key, server.json


def test_an_install_that_is_killed_leaves_a_key_that_is_whole_and_can_be_repeated(story):
    story.joined("boston")
    old = node_keys.public_line(node_keys.read_node_key(story.site("boston") / "supernode.key"))
    grant = story.granted("boston", renew=True)
    new = documents.read(grant, documents.Grant).supernode
    number, seen = 0, []
    while True:
        shutil.rmtree(story.root / "try", ignore_errors=True)
        site = Path(shutil.copytree(story.site("boston"), story.root / "try"))
        died = stopped(number, "install", site, grant)
        seen.append(node_keys.public_line(node_keys.read_node_key(site / "supernode.key")))
        assert read_connection(site).serial in (1, 2)
        request.install(grant, site)
        assert node_keys.public_line(node_keys.read_node_key(site / "supernode.key")) == new
        assert (read_connection(site).serial, (site / "supernode.key.new").exists()) == (2, False)
        if not died:
            break
        number += 1
    assert seen == [old, new, new, new, new]


def test_a_request_that_is_repeated_is_for_the_same_keys(story):
    first = documents.read(story.asked("boston"), documents.Request)
    (story.site("boston") / "request.json").unlink()
    (story.site("boston") / "superexec.secret").unlink()
    again = documents.read(story.asked("boston"), documents.Request)
    assert (again.identity, again.supernode) == (first.identity, first.supernode)
    assert (story.site("boston") / "superexec.secret").is_file()


def test_the_same_request_twice_gives_the_same_grant(story):
    first, again = story.granted("boston").read_bytes(), None
    grants.accept(story.hub, story.mail / "boston.request.json")
    again = (story.hub / "grants" / "boston.grant.json").read_bytes()
    assert first == again


def test_an_added_site_is_in_the_file_and_no_other_is_added_twice(story):
    coordinator.add(story.hub, "graz")
    assert [one.site for one in read_consortium(story.hub / "consortium.yaml").sites] == ["boston", "lyon", "graz"]
    for site in ("graz", "boston"):
        with pytest.raises(ProvisioningRefused, match=f"site {site} is invited"):
            coordinator.add(story.hub, site)
    with pytest.raises(ConfigError, match="bad name of a site"):
        coordinator.add(story.hub, "../graz")
    with pytest.raises(ProvisioningRefused, match="has no grant"):
        coordinator.revoke(story.hub, "paris")


def test_a_lost_identity_is_replaced_by_way_of_a_revocation(story):
    site = story.joined("boston")
    first = load_identity(site).public
    coordinator.revoke(story.hub, "boston")
    coordinator.add(story.hub, "boston")
    for name in ("identity.key", "supernode.key"):
        (site / name).unlink()
    story.joined("boston")
    assert load_identity(site).public != first
    assert read_server(story.hub).granted["boston"].identity == load_identity(site).public.hex()


def test_a_lost_supernode_key_is_replaced_by_a_renewal(story):
    site = story.joined("boston")
    (site / "supernode.key").unlink()
    story.joined("boston", renew=True)
    assert read_connection(site).serial == 2
    assert permission_problems(site, "site", complete=True) == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("name: Lungs Of Europe", "name"),
        ("server: {host: 'https://x', port: 1}", "host"),
        ("server: {host: Example.ORG, port: 1}", "host"),
        ("server: {host: 10.0.0.256, port: 1}", "host"),
        ("server: {host: x, port: 0}", "port"),
        ("server: {host: x, port: 8443, also: ['*.x']}", "also"),
        ("sites: [{site: boston}, {site: boston}]", "a site is named twice"),
        ("sites: []", "sites"),
        ("sites: [{site: ../boston}]", "site"),
        ("certificate_days: 3650", "certificate_days"),
        ("certificate_days: 0", "certificate_days"),
        ("schema: fairsynth.consortium/2", "schema"),
        ("key: value", "unknown key"),
    ],
)
def test_a_consortium_file_that_is_wrong_makes_nothing(tmp_path, line, what):
    name = line.partition(":")[0]
    lines = [one for one in CONSORTIUM.splitlines() if not one.startswith(f"{name}:")]
    with pytest.raises(ConfigError, match=what):
        begun(tmp_path, text="\n".join([*lines, line]) + "\n")
    assert [path.name for path in tmp_path.iterdir()] == ["consortium.yaml"]


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


def test_a_folder_that_is_no_coordinators_is_a_clear_error(tmp_path):
    for verb in (coordinator.show, coordinator.renew_server, lambda folder: coordinator.add(folder, "graz")):
        with pytest.raises(FairSynthError, match="no coordinator's folder"):
            verb(tmp_path)


def test_damaged_records_are_refused(story):
    path = story.hub / "sites" / "boston.json"
    artefacts.write_text(path, json.dumps({**json.loads(path.read_text()), "state": "trusted"}))
    with pytest.raises(ArtefactError, match="valid state"):
        coordinator.show(story.hub)
