"""What one site's change does to the others, and what the folders say to those who start from them."""

from __future__ import annotations

import json

import pytest
from consortium_stories import CONSORTIUM, begun, hashes

from fairsynth import artefacts
from fairsynth.config import read_consortium
from fairsynth.errors import ArtefactError, ConfigError, FairSynthError, ProvisioningRefused
from fairsynth.governance.identity import load_identity
from fairsynth.provisioning import coordinator, request
from fairsynth.provisioning.connection import read_connection, read_server
from fairsynth.provisioning.permissions import permission_problems


@pytest.fixture
def story(tmp_path):
    return begun(tmp_path / "story")


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


def test_a_folder_that_is_no_coordinators_is_a_clear_error(tmp_path):
    for verb in (coordinator.show, coordinator.renew_server, lambda folder: coordinator.add(folder, "graz")):
        with pytest.raises(FairSynthError, match="no coordinator's folder"):
            verb(tmp_path)


def test_damaged_records_are_refused(story):
    path = story.hub / "sites" / "boston.json"
    artefacts.write_text(path, json.dumps({**json.loads(path.read_text()), "state": "trusted"}))
    with pytest.raises(ArtefactError, match="valid state"):
        coordinator.show(story.hub)
