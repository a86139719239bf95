"""What coordinator and site refuse: whatever was altered, exchanged, replayed or is not theirs."""

from __future__ import annotations

import datetime
import json
import random

import pytest
from consortium_stories import begun, hashes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from fairsynth.errors import ConfigError, FairSynthError, KeyRefused, ProvisioningRefused
from fairsynth.governance.identity import load_identity
from fairsynth.provisioning import coordinator, documents, grants, node_keys, request
from fairsynth.provisioning.authority import create_authority, read_authority
from fairsynth.provisioning.connection import read_connection
from fairsynth.provisioning.documents import Grant, Request


@pytest.fixture
def story(tmp_path):
    return begun(tmp_path / "story")


def changed(path, **values):
    """The file `path` with other values, and nothing signed anew."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")
    return path


def signed_anew(path, folder, **values):
    """The request in `path` with other values, signed by the site's own keys: what a dishonest site can send."""
    asked = documents.read(path, Request).model_copy(update=values)
    key = node_keys.read_node_key(folder / "supernode.key")
    signatures = {
        "identity": load_identity(folder).sign(asked.signed).hex(),
        "supernode": node_keys.sign(key, asked.signed).hex(),
    }
    path.write_text(asked.model_copy(update={"signatures": None}).model_dump_json(by_alias=True), encoding="utf-8")
    return changed(path, signatures=signatures)


def public_line(key):
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


OTHERS = {
    "RSA": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
}

ALTERED = {
    "consortium": "others",
    "site": "lyon",
    "identity": "00" * 32,
    "renewal": True,
    "nonce": "00" * 32,
    "time": "2026-01-01T00:00:00+00:00",
    "ca_sha256": "00" * 32,
}


@pytest.mark.parametrize("key", ALTERED)
def test_a_request_that_was_altered_on_the_way_is_refused(story, key):
    before, asked = hashes(story.hub), changed(story.asked("boston"), **{key: ALTERED[key]})
    with pytest.raises(ProvisioningRefused, match="not signed by its"):
        grants.accept(story.hub, asked)
    assert hashes(story.hub) == before


def test_each_of_the_two_keys_must_have_signed(story):
    lyon = story.asked("lyon").read_text(encoding="utf-8")
    for name, what in (("identity", "identity key"), ("supernode", "SuperNode key")):
        asked = story.asked("boston")
        signatures = json.loads(asked.read_text(encoding="utf-8"))["signatures"]
        changed(asked, signatures={**signatures, name: json.loads(lyon)["signatures"][name]})
        with pytest.raises(ProvisioningRefused, match=f"not signed by its {what}"):
            grants.accept(story.hub, asked)
    with pytest.raises(ProvisioningRefused, match="not signed"):
        grants.accept(story.hub, changed(story.asked("boston"), signatures=None))


@pytest.mark.parametrize("kind", OTHERS)
def test_a_supernode_key_of_another_kind_is_refused_by_both_sides(story, kind):
    other = OTHERS[kind]()
    asked = changed(story.asked("boston"), supernode=public_line(other))
    with pytest.raises(ProvisioningRefused, match="SuperNode key of another kind"):
        grants.accept(story.hub, asked)
    form, none = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    path = story.site("boston") / "supernode.key"
    path.write_bytes(other.private_bytes(serialization.Encoding.PEM, form, none))
    with pytest.raises(KeyRefused, match="key of another kind"):
        story.asked("boston")


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"consortium": "others"}, "request of consortium others"),
        ({"site": "graz"}, "site graz is not invited"),
        ({"ca_sha256": "00" * 32}, "kit with another certificate"),
        ({"time": "2026-01-01T00:00:00+00:00"}, "request too old"),
        ({"time": "2999-01-01T00:00:00+00:00"}, "of the future"),
    ],
)
def test_a_well_signed_request_is_refused_when_it_is_not_for_this_coordinator(story, values, what):
    asked = signed_anew(story.asked("boston"), story.site("boston"), **values)
    with pytest.raises(ProvisioningRefused, match=what):
        grants.accept(story.hub, asked)


def test_the_same_change_signed_as_it_was_is_accepted(story):
    """Else the refusals above could come from how these tests sign."""
    asked = signed_anew(story.asked("boston"), story.site("boston"), nonce="00" * 32)
    assert grants.accept(story.hub, asked)[1].state == "granted"


def test_nothing_is_signed_for_other_digits_than_those_of_the_telephone(story):
    asked = story.asked("boston")
    digits, before = documents.spoken(documents.read(asked, Request).sha256), hashes(story.hub)
    for wrong in ("", digits[:-1], f"{digits} 0000", digits.replace(digits[0], "x")):
        with pytest.raises(ProvisioningRefused, match="other digits"):
            grants.accept(story.hub, asked, digits=wrong)
    assert hashes(story.hub) == before
    assert grants.accept(story.hub, asked, digits=f" {digits.upper()} ")[1].state == "granted"


def test_a_key_of_another_site_is_refused(story):
    story.joined("boston")
    asked = story.asked("boston")
    with pytest.raises(ProvisioningRefused, match="identity key of site boston") as refused:
        grants.accept(story.hub, signed_anew(asked, story.site("boston"), site="lyon"))
    assert "SuperNode key of site boston" in str(refused.value)


def test_a_granted_site_asks_again_for_a_renewal_alone_and_by_the_same_identity(story):
    story.joined("boston")
    with pytest.raises(ProvisioningRefused, match="site boston has a grant"):
        grants.accept(story.hub, story.asked("boston"))
    stranger = begun(story.root / "elsewhere")
    kit = stranger.sent(story.hub / "kits" / "boston.kit.json", "boston.kit.json")
    request.make_request(kit, stranger.site("boston"))
    request.make_request(kit, stranger.site("boston"), renew=True)
    with pytest.raises(ProvisioningRefused, match="renewal by another identity"):
        grants.accept(story.hub, stranger.site("boston") / "request.json")


def test_a_renewal_for_the_key_that_is_in_use_renews_nothing(story):
    story.joined("boston")
    asked = signed_anew(story.asked("boston"), story.site("boston"), renewal=True)
    with pytest.raises(ProvisioningRefused, match="used before"):
        grants.accept(story.hub, asked)


def test_a_revoked_site_is_refused_until_it_is_added_and_its_key_for_ever(story):
    story.joined("boston")
    coordinator.revoke(story.hub, "boston")
    with pytest.raises(ProvisioningRefused, match="site boston is revoked"):
        grants.accept(story.hub, story.asked("boston"))
    coordinator.add(story.hub, "boston")
    with pytest.raises(ProvisioningRefused, match="used before"):
        grants.accept(story.hub, story.asked("boston"))
    story.joined("boston", renew=True)
    assert documents.read(story.site("boston") / "connection.json", request.Connection).serial == 2


def test_a_kit_with_another_certificate_shows_when_the_request_comes_back(story):
    other = create_authority("another", days=10)
    kit = changed(story.kit("boston"), ca_pem=other.pem.decode())
    made = request.make_request(kit, story.site("boston"))
    assert made.ca_sha256 != coordinator.show(story.hub)["authority"]["sha256"]  # as the telephone would have it
    with pytest.raises(ProvisioningRefused, match="kit with another certificate"):
        grants.accept(story.hub, story.site("boston") / "request.json")


@pytest.mark.parametrize(
    "values",
    [
        {"ca_pem": "no certificate"},
        {"host": "https://x"},
        {"port": 0},
        {"site": "../x"},
        {"more": 1},
        {"schema": "x/1"},
    ],
)
def test_a_damaged_kit_makes_no_key(story, values):
    kit = changed(story.kit("boston"), **values)
    with pytest.raises(ProvisioningRefused):
        request.make_request(kit, story.site("boston"))
    assert not story.site("boston").exists()


def test_a_kit_whose_certificate_is_no_authority_makes_no_key(story):
    kit = changed(story.kit("boston"), ca_pem=(story.hub / "server" / "server.crt").read_text())
    with pytest.raises(ProvisioningRefused, match="certificate of no authority"):
        request.make_request(kit, story.site("boston"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", "elsewhere.example.org"),
        ("port", 443),
        ("serial", 7),
        ("site", "lyon"),
        ("consortium", "others"),
        ("granted", "2026-01-01T00:00:00+00:00"),
        ("identity", "00" * 32),
        ("signature", None),
        ("signature", "00" * 70),
    ],
)
def test_a_grant_that_was_altered_on_the_way_is_refused(story, key, value):
    grant = changed(story.granted("boston"), **{key: value})
    before = hashes(story.site("boston"))
    with pytest.raises(ProvisioningRefused, match="grant without a valid signature"):
        request.install(grant, story.site("boston"))
    assert hashes(story.site("boston")) == before


def test_a_grant_by_another_authority_is_refused(story):
    grant, other = documents.read(story.granted("boston"), Grant), create_authority("another", days=10)
    forged = grant.model_copy(update={"ca_pem": other.pem.decode()})
    path = story.mail / "forged.json"
    documents.write(path, forged.model_copy(update={"signature": other.sign(forged.signed).hex()}))
    with pytest.raises(ProvisioningRefused, match="grant of another authority"):
        request.install(path, story.site("boston"))


@pytest.mark.parametrize(
    ("values", "what"), [({"site": "lyon"}, "site lyon"), ({"consortium": "others"}, "grant of others")]
)
def test_a_well_signed_grant_of_another_site_or_consortium_is_refused(story, values, what):
    grant, authority = documents.read(story.granted("boston"), Grant), read_authority(story.hub)
    other = grant.model_copy(update=values)
    path = story.mail / "other.json"
    documents.write(path, other.model_copy(update={"signature": authority.sign(other.signed).hex()}))
    with pytest.raises(ProvisioningRefused, match=what):
        request.install(path, story.site("boston"))


def test_the_grant_of_another_site_is_refused(story):
    grant = story.granted("lyon")
    story.asked("boston")
    with pytest.raises(ProvisioningRefused, match="grant of lungs, site lyon"):
        request.install(grant, story.site("boston"))


def test_a_grant_for_keys_that_are_not_in_the_folder_is_refused(story):
    grant = story.granted("boston")
    (story.site("boston") / "supernode.key").unlink()
    story.asked("boston")
    with pytest.raises(ProvisioningRefused, match="grant for other keys"):
        request.install(grant, story.site("boston"))


def test_an_older_grant_does_not_come_back(story):
    first = story.granted("boston")
    kept = story.sent(first, "first.json")
    request.install(first, story.site("boston"))
    old_key = (story.site("boston") / "supernode.key").read_bytes()
    story.joined("boston", renew=True)
    with pytest.raises(ProvisioningRefused, match="grant for other keys"):
        request.install(kept, story.site("boston"))
    (story.site("boston") / "supernode.key").write_bytes(old_key)  # even with a key from a backup
    with pytest.raises(ProvisioningRefused, match="an older grant"):
        request.install(kept, story.site("boston"))


def test_a_site_that_asked_for_nothing_installs_nothing(story):
    with pytest.raises(ConfigError, match="asked for nothing"):
        request.install(story.granted("boston"), story.site("graz"))


def test_the_folder_of_another_site_gets_no_key(story):
    story.site("boston").mkdir()
    (story.site("boston") / "site.json").write_text('{"site": "lyon", "config": "c", "data": "d"}')
    with pytest.raises(ProvisioningRefused, match="kit of another site"):
        story.asked("boston")


def test_a_folder_that_is_in_another_consortium_gets_no_request(story):
    story.joined("boston")
    with pytest.raises(ProvisioningRefused, match="kit of another consortium"):
        request.make_request(changed(story.kit("boston"), consortium="others"), story.site("boston"))


def test_a_site_joins_the_successor_of_a_consortium_whose_key_was_seen(story):
    story.joined("boston")
    story.joined("boston", renew=True)
    story.hub.rename(story.root / "old hub")
    coordinator.init(story.root / "consortium.yaml", story.hub)
    story.joined("boston")
    assert read_connection(story.site("boston")).serial == 1
    assert (story.site("boston") / "ca.crt").read_bytes() == (story.hub / "ca.crt").read_bytes()


def test_there_is_nothing_to_renew_where_there_was_no_request(story):
    with pytest.raises(ConfigError, match="without an identity"):
        story.asked("boston", renew=True)


def test_a_time_that_does_not_exist_is_refused(story):
    asked = signed_anew(story.asked("boston"), story.site("boston"), time="2026-13-45T00:00:00+00:00")
    with pytest.raises(ProvisioningRefused, match="valid time"):
        grants.accept(story.hub, asked)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"schema": "fairsynth.request/1"}', "\x00", "9" * 70_000])
def test_a_file_that_is_no_request_is_a_clear_error(story, text):
    path = story.root / "request.json"
    path.write_text(text)
    with pytest.raises(ProvisioningRefused, match=r"request\.json"):
        grants.accept(story.hub, path)
    with pytest.raises(ProvisioningRefused, match="missing file"):
        grants.accept(story.hub, story.root / "nowhere.json")


@pytest.mark.parametrize("what", ["request", "grant"])
def test_no_flipped_bit_gets_through_and_every_damage_is_an_error_of_ours(story, what):
    path = story.asked("boston") if what == "request" else story.granted("boston")
    whole, model = path.read_bytes(), Request if what == "request" else Grant
    meant, places = documents.read(path, model), random.Random(11)
    folder = story.hub if what == "request" else story.site("boston")
    before, refused = hashes(folder), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        path.write_bytes(damaged)
        try:
            same = documents.read(path, model) == meant  # of white space alone
        except ProvisioningRefused:
            same = False
        if not same:
            with pytest.raises(FairSynthError):
                grants.accept(folder, path) if what == "request" else request.install(path, folder)
            refused += 1
    assert hashes(folder) == before
    assert refused > 250


def test_every_damage_of_a_kit_is_an_error_of_ours_and_of_its_certificate_one(story):
    """A kit is not signed: its names are held to the grant's, its certificate to the telephone."""
    path = story.kit("boston")
    whole, places, sha256 = path.read_bytes(), random.Random(12), request.read_kit(path)[1]
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        path.write_bytes(damaged)
        try:
            read = request.read_kit(path)
        except ProvisioningRefused:
            refused += 1
        else:
            assert read[1] == sha256
    assert refused > 200


def test_what_is_signed_names_its_purpose_and_its_time(story):
    asked = documents.read(story.asked("boston"), Request)
    grants.accept(story.hub, story.mail / "boston.request.json")
    grant = documents.read(story.hub / "grants" / "boston.grant.json", Grant)
    assert asked.signed.startswith(b"fairsynth.request/1|{")
    assert grant.signed.startswith(b"fairsynth.grant/1|{")
    assert b"signature" not in asked.signed + grant.signed
    made = datetime.datetime.fromisoformat(asked.time)
    assert abs(datetime.datetime.now(datetime.UTC) - made) < datetime.timedelta(days=1)
    again = documents.read(story.asked("boston"), Request)
    assert (asked.identity, asked.supernode) == (again.identity, again.supernode)
    assert asked.nonce != again.nonce
