"""Approvals: one plan, one policy, one cohort, one key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from governance_stories import NOW, OPEN, Desk, a_place, a_plan

from fairsynth.config import read_yaml
from fairsynth.errors import ConfigError, KeyRefused, NotApproved, PolicyMissing
from fairsynth.federation import plans
from fairsynth.governance import ledger
from fairsynth.governance.approval import approve, check_approved, list_approvals, path_of, plan_sha256
from fairsynth.governance.identity import (
    PRIVATE,
    create_identity,
    ensure_identity,
    load_identity,
    read_public,
    verify,
)
from fairsynth.governance.policy import TEMPLATE, SitePolicy, read_policy, write_policy


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "site")


def check(desk, study=None):
    policy = read_policy(desk.place.config)
    return check_approved(desk.place, study or desk.study, policy=policy, identity=desk.identity)


def test_an_approved_study_is_approved_and_the_ledger_says_by_whom(desk):
    assert check(desk).plan == desk.plan
    (line,) = desk.lines()
    assert (line.event, line.officer, line.study) == ("approved", "Dr. A. Lee", desk.study)
    assert [one.grant.plan.name for one in list_approvals(desk.root)] == ["toy"]


def test_the_hash_of_a_plan_is_the_one_that_messages_carry():
    assert plan_sha256(a_plan()) == plans.plan_sha256(a_plan())


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"name": "other"}, {"roster": ("site-a", "site-b", "site-c", "site-d")}]
)
def test_a_plan_that_differs_anywhere_is_not_the_approved_one(change, desk):
    with pytest.raises(NotApproved, match="not approved"):
        check(desk, plan_sha256(a_plan(**change)))


@pytest.mark.parametrize("study", ["", "x" * 64, "../identity", "A" * 64, "a" * 63])
def test_what_is_no_hash_names_no_study_and_no_file(study, desk):
    with pytest.raises(NotApproved, match="names no study"):
        check_approved(desk.place, study, policy=read_policy(desk.place.config), identity=desk.identity)


SPOILT = {
    "another officer": (lambda grant: grant.update(officer="Dr. B. Wu"), "signed by this site"),
    "another time": (lambda grant: grant.update(time="2030-01-01T00:00:00+00:00"), "signed by this site"),
    "another site": (lambda grant: grant.update(site="site-b"), "of this site"),
    "another plan inside": (lambda grant: grant["plan"].update(seed=8), "the one approved"),
    "another policy": (lambda grant: grant.update(policy_sha256="0" * 64), "approved under"),
    "another configuration": (lambda grant: grant.update(config_sha256="0" * 64), "site.yaml, rules and groups"),
    "other data": (lambda grant: grant.update(data_sha256="0" * 64), "files in the data folder"),
    "a key too many": (lambda grant: grant.update(more=1), "a whole file"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_an_approval_that_was_tampered_with_does_not_hold(case, desk):
    spoil, rule = SPOILT[case]
    path = path_of(desk.root, desk.study)
    value = json.loads(path.read_text())
    spoil(value["grant"])
    path.write_text(json.dumps(value))
    with pytest.raises(NotApproved, match=rule):
        check(desk)


@pytest.mark.parametrize("content", ["", "{}", "not JSON", "\xff"])
def test_an_approval_that_is_damaged_does_not_hold(content, desk):
    path_of(desk.root, desk.study).write_bytes(content.encode("latin-1"))
    with pytest.raises(NotApproved, match="a whole file"):
        check(desk)


def test_an_approval_that_another_key_signed_does_not_hold(desk, tmp_path):
    other = Desk(tmp_path / "other")
    shutil.copy(path_of(other.root, desk.study), path_of(desk.root, desk.study))
    with pytest.raises(NotApproved, match="signed by this site"):
        check(desk)


def test_an_older_approval_put_back_does_not_hold(desk):
    path = path_of(desk.root, desk.study)
    older = path.read_bytes()
    approve(desk.place, desk.plan, identity=desk.identity, officer="Dr. B. Wu", now=NOW)
    path.write_bytes(older)
    with pytest.raises(NotApproved, match="the last that the ledger has"):
        desk.release(desk.trained())


def test_with_the_ledger_removed_no_approval_holds(desk):
    for name in (ledger.NAME, ledger.HEAD):
        (desk.root / name).unlink()
    with pytest.raises(NotApproved, match="the last that the ledger has"):
        desk.release(desk.trained())


COHORTS = {
    "other rules": lambda place: (place.config / "rules.yaml").write_text("schema: fairsynth.rules/1\n# more\n"),
    "other groups": lambda place: (place.config / "groups.yaml").write_text("schema: fairsynth.groups/1\n\n"),
    "another cohort": lambda place: (place.config / "site.yaml").write_text(
        "schema: fairsynth.site/1\nsource: toy\ncohort: {minimum_age_years: 18}\n"
    ),
    "a table more": lambda place: (place.data / "VISITS.csv").write_text("ID\n"),
    "a patient more": lambda place: (place.data / "PATIENTS.csv").write_text("ID\n1\n2\n"),
    "a table less": lambda place: (place.data / "PATIENTS.csv").unlink(),
}


@pytest.mark.parametrize("case", COHORTS)
def test_an_approval_does_not_hold_for_another_cohort(case, desk):
    COHORTS[case](desk.place)
    with pytest.raises(NotApproved, match="cohort"):
        check(desk)


def test_an_approval_holds_for_the_policy_that_it_was_given_under_but_comments_may_change(desk):
    path = desk.place.config / "policy.yaml"
    path.write_text(path.read_text() + "# read by Dr. A. Lee\n")
    check(desk)
    path.write_text(path.read_text().replace("minimum_sites: 3", "minimum_sites: 2"))
    with pytest.raises(NotApproved, match="policy"):
        check(desk)


@pytest.mark.parametrize("officer", ["", "x" * 81, "two\nlines"])
def test_an_officer_has_a_name_on_one_line(officer, desk):
    with pytest.raises(ConfigError, match="officer"):
        approve(desk.place, desk.plan, identity=desk.identity, officer=officer, now=NOW)


def test_without_tables_there_is_nothing_to_approve(desk):
    shutil.rmtree(desk.place.data)
    with pytest.raises(ConfigError, match="missing folder of tables"):
        desk.approve()


# --- policies --------------------------------------------------------------------------------------------------------


def test_a_site_without_a_policy_is_told_how_to_write_one(tmp_path):
    place = a_place(tmp_path, policy=None)
    with pytest.raises(PolicyMissing, match=r"FS-401(?s:.*)fairsynth policy init"):
        read_policy(place.config)
    write_policy(place.config / "policy.yaml")
    policy = read_policy(place.config)
    switches = (policy.minimum_sites, policy.two_site_studies, policy.unmasked_records, policy.teacher)
    assert switches == (3, "refused", "refused", "refused")
    with pytest.raises(ConfigError, match="a policy is there already"):
        write_policy(place.config / "policy.yaml")


WRONG = {
    "an unknown key": ("minimum_cell: 11", "minimum_cel: 11"),
    "an unknown switch": ("teacher: refused", "teacher: perhaps"),
    "an unknown kind of field": ("{kind: flag}", "{kind: text}"),
    "an unknown type": ("dtype: [uint64]", "dtype: [object]"),
    "no bounds of what may be unmasked": (", values: {least: 0, most: 1000000000}", ""),
    "a pattern that is none": ("FS-[0-9]{3}", "FS-[0-9"),
    "another schema": ("fairsynth.policy/1", "fairsynth.policy/2"),
    "no limit": ("    at_most: 500\n", ""),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_policy_that_is_wrong_is_refused_as_a_whole(case, tmp_path):
    with pytest.raises(ConfigError, match="FS-100"):
        read_policy(a_place(tmp_path, policy=OPEN | dict([WRONG[case]])).config)


def test_every_shipped_source_has_one_and_the_same_policy():
    root = Path(__file__).resolve().parents[2] / "site_configs"
    configs = [path.parent for path in root.rglob("site.yaml")]
    assert len(configs) > 8
    policies = {read_policy(config).sha256 for config in configs}
    assert len(policies) == 1
    shipped = read_policy(root / "pic")
    strict = SitePolicy.model_validate(
        shipped.model_dump(by_alias=True)
        | {
            "two_site_studies": "refused",
            "teacher": "refused",
            "minimum_contributing": 3,
            "minimum_group": 11,
            "epsilon_budget": None,
        }
    )
    assert strict == read_yaml(TEMPLATE, SitePolicy)  # they differ in these switches and in nothing else


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_for_its_owner_alone_and_signs(tmp_path):
    identity = ensure_identity(tmp_path)
    assert (tmp_path / PRIVATE).stat().st_mode & 0o777 == 0o600
    assert read_public(tmp_path) == identity.public == ensure_identity(tmp_path).public
    signature = identity.sign(b"purpose\0message")
    assert verify(identity.public, b"purpose\0message", signature)
    assert not verify(identity.public, b"purpose\0other", signature)
    assert not verify(b"\0" * 31, b"purpose\0message", signature)
    with pytest.raises(KeyRefused, match="has a key already"):
        create_identity(tmp_path)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o666])
def test_a_key_that_others_can_read_is_refused(mode, tmp_path):
    create_identity(tmp_path)
    (tmp_path / PRIVATE).chmod(mode)
    with pytest.raises(KeyRefused, match=f"mode {mode:04o}"):
        load_identity(tmp_path)


def test_a_key_behind_a_link_or_of_another_kind_or_none_is_refused(tmp_path):
    with pytest.raises(KeyRefused, match="no key"):
        load_identity(tmp_path)
    create_identity(tmp_path / "real")
    (tmp_path / PRIVATE).symlink_to(tmp_path / "real" / PRIVATE)
    with pytest.raises(KeyRefused, match="no key"):
        load_identity(tmp_path)
    (tmp_path / PRIVATE).unlink()
    for content, match in ((b"no key", "not a private key"), (_elliptic(), "of another kind")):
        (tmp_path / PRIVATE).write_bytes(content)
        (tmp_path / PRIVATE).chmod(0o600)
        with pytest.raises(KeyRefused, match=match):
            load_identity(tmp_path)


def _elliptic() -> bytes:
    key = generate_private_key(SECP256R1())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, form, serialization.NoEncryption())
