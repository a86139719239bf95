"""A table of spoilt sites: each fails where it is spoilt, nowhere else, and says what mends it."""

import datetime
import json
import os
import shutil
from pathlib import Path

import pytest
from canary_words import heard
from doctor_stories import change, failures, found, join, write_node_key
from governance_stories import a_plan
from polars.exceptions import PanicException

from fairsynth.config import PrivacyConfig
from fairsynth.extraction import checks
from fairsynth.federation import boundary
from fairsynth.governance import approval, ledger
from fairsynth.governance.budget import NAME as BUDGET
from fairsynth.governance.budget import Budget, Gaussian, Limit
from fairsynth.governance.identity import create_identity, load_identity

NEVER = "0123456789abcdef" * 4


def own_config(root: Path) -> Path:
    """The site's configuration, as its own files, to be spoilt."""
    here = Path(json.loads((root / "site.json").read_text())["config"])
    config = root / "configs" / "pic"
    if not config.is_dir():
        shutil.copytree(here, config)
        shutil.copy(here.parent / "policy.yaml", config.parent / "policy.yaml")
        change(root / "site.json", config=str(config))
    return config


def approve(root: Path, **changes):
    plan = a_plan(roster=("boston", "lyon", "graz"), privacy=PrivacyConfig(), **changes)
    return boundary.approve(root, plan, officer="Dr. A. Lee")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_sound_site_fails_nowhere(site):
    findings = found(site, tables=True)
    assert {name for name, one in findings.items() if one.state == "failed"} == set()
    assert all(one.said for one in findings.values())
    assert findings["tables"].state == "ok"


# --- files: what is spoilt, and which check fails

FILES = {
    "no site.json": ("site.json", lambda root: (root / "site.json").unlink()),
    "site.json is no JSON": ("site.json", lambda root: (root / "site.json").write_text("{")),
    "no connection.json": ("connection.json", lambda root: (root / "connection.json").unlink()),
    "connection.json with a key too many": ("connection.json", lambda root: change(root / "connection.json", x=1)),
    "connection.json with a port too large": (
        "connection.json",
        lambda root: change(root / "connection.json", port=70000),
    ),
    "connection.json with an address of the web": (
        "connection.json",
        lambda root: change(root / "connection.json", host="https://localhost/"),
    ),
    "the grant of another site": ("connection.json", lambda root: change(root / "connection.json", site="lyon")),
    "a folder open to all": ("folder", lambda root: root.chmod(0o755)),
    "a folder that its group may write to": ("folder", lambda root: root.chmod(0o770)),
    "no ca.crt": ("ca.crt", lambda root: (root / "ca.crt").unlink()),
    "a ca.crt that is none": ("ca.crt", lambda root: (root / "ca.crt").write_text("none")),
    "no SuperNode key": ("supernode.key", lambda root: (root / "supernode.key").unlink()),
    "a SuperNode key open to others": ("supernode.key", lambda root: (root / "supernode.key").chmod(0o640)),
    "a SuperNode key that is none": ("supernode.key", lambda root: (root / "supernode.key").write_text("none")),
    "a SuperNode key of another kind": (
        "supernode.key",
        lambda root: (root / "supernode.key").write_bytes((root / "identity.key").read_bytes()),
    ),
    "no public key of the SuperNode": ("supernode.key", lambda root: (root / "supernode.pub").unlink()),
    "swapped keys": ("supernode.key", lambda root: swap(root)),
    "a link instead of a key": ("superexec.secret", lambda root: link(root / "superexec.secret")),
    "no secret": ("superexec.secret", lambda root: (root / "superexec.secret").unlink()),
    "a secret open to others": ("superexec.secret", lambda root: (root / "superexec.secret").chmod(0o604)),
    "no identity": ("identity.key", lambda root: (root / "identity.key").unlink()),
    "an identity open to others": ("identity.key", lambda root: (root / "identity.key").chmod(0o644)),
    "another public key": ("identity.key", lambda root: (root / "identity.pub").write_text("00" * 32 + "\n")),
}


def swap(root: Path) -> None:
    """The private key of one pair beside the public key of another."""
    public = (root / "supernode.pub").read_bytes()
    write_node_key(root)
    (root / "supernode.pub").write_bytes(public)


def link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("story", FILES)
def test_a_spoilt_file_fails_alone(story, site):
    name, spoil = FILES[story]
    spoil(site)
    findings = found(site)
    assert {one.name for one in findings.values() if one.state == "failed"} == {name}
    assert findings[name].do
    assert findings[name].said


@pytest.mark.parametrize("story", FILES)
def test_nothing_of_a_key_or_a_secret_is_told(story, site):
    secret = (site / "superexec.secret").read_text()
    FILES[story][1](site)
    text = repr(found(site))
    assert secret not in text
    assert "PRIVATE KEY" not in text


def test_a_folder_that_is_not_there_is_one_failure(tmp_path):
    findings = found(tmp_path / "none")
    assert [(one.name, one.state) for one in findings.values()] == [("folder", "failed")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("name", ["supernode.key", "superexec.secret", "identity.key"])
def test_a_file_of_another_user_fails(name, site):
    os.chown(site / name, 12345, 12345)
    assert failures(site) == {name}


def test_a_group_that_may_read_the_folder_is_a_warning(site):
    site.chmod(0o750)
    assert found(site)["folder"].state == "warning"


def test_checks_that_wait_for_another_say_for_which(site):
    (site / "ca.crt").unlink()
    findings = found(site)
    assert findings["server's port"].state == "ok"
    assert (findings["server's certificate"].state, findings["server's certificate"].said) == (
        "skipped",
        "after: ca.crt",
    )
    (site / "site.json").unlink()
    assert found(site)["policy"].said == "after: site.json"


# --- tables, policy, approvals, ledger, budget


def test_tables_that_do_not_fit_fail_without_a_cell(site):
    path = next((site / "raw").glob("PATIENTS.csv*"))
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], "SECRET-row-42,not-a-date", *text[2:]]) + "\n")
    findings = found(site, tables=True)
    tables = findings["tables"]
    assert (tables.state, "FS-2" in tables.said, "fairsynth check" in tables.do) == ("failed", True, True)
    assert "SECRET" not in repr(findings)
    assert heard(repr(findings)) == []


@pytest.mark.parametrize(
    "error", [ValueError("SECRET-row-42"), PanicException("SECRET-row-42"), PermissionError(13, "x")]
)
def test_a_check_that_breaks_is_a_failure_without_the_errors_text(error, site, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(checks, "check_tables", fail)
    findings = found(site, tables=True)
    assert {one.name for one in findings.values() if one.state == "failed"} == {"tables"}
    assert "SECRET" not in repr(findings)
    assert findings["tables"].do


def test_tables_that_are_not_there_fail(site):
    shutil.rmtree(site / "raw")
    assert failures(site, tables=True) == {"tables"}


def test_a_site_without_a_policy_fails(site):
    config = own_config(site)
    (config.parent / "policy.yaml").unlink()
    findings = found(site)
    assert (findings["policy"].state, "fairsynth policy init" in findings["policy"].do) == ("failed", True)
    assert findings["approvals"].state == findings["privacy budget"].state == "skipped"


def test_an_approval_holds_until_the_policy_or_the_data_change(site):
    config = own_config(site)
    approve(site)
    assert found(site)["approvals"].said == "1 of 1 hold: toy"
    with (config / "groups.yaml").open("a") as handle:
        handle.write("# another\n")
    findings = found(site)
    assert (findings["approvals"].state, "site.yaml, rules and groups" in findings["approvals"].said) == (
        "warning",
        True,
    )
    approve(site, name="second")
    assert found(site)["approvals"].said.startswith("1 of 2 hold: second")
    replace(config.parent / "policy.yaml", "most_bytes_per_study: ", "most_bytes_per_study: 1")
    findings = found(site)["approvals"]
    assert (findings.state, findings.said.startswith("0 of 2 hold")) == ("warning", True)


def test_an_approval_that_the_ledger_does_not_know_fails(site):
    path = approve(site)
    kept = path.read_text()
    for name in (ledger.NAME, ledger.HEAD):
        (site / name).unlink()
    assert (path.read_text(), failures(site)) == (kept, {"approvals"})


def test_an_approval_that_another_site_signed_fails(site):
    approve(site)
    (site / "identity.key").unlink()
    for name in (ledger.NAME, ledger.HEAD):
        (site / name).unlink()
    create_identity(site)
    assert failures(site) == {"approvals"}


def test_a_damaged_approval_fails(site):
    approve(site).write_text("{}")
    assert failures(site) == {"approvals"}
    (site / approval.FOLDER / "note.json").write_text("{}")
    assert failures(site) == {"approvals"}


def test_a_ledger_that_was_altered_fails(site):
    approve(site)
    assert found(site)["ledger"].said == "sound: 1 lines"
    replace(site / ledger.NAME, "Lee", "Wu")
    assert "ledger" in failures(site)


def test_a_torn_line_is_no_failure(site):
    approve(site)
    with (site / ledger.NAME).open("a") as handle:
        handle.write('{"event"')
    ledgers = found(site)["ledger"]
    assert (ledgers.state, "part of a line" in ledgers.said) == ("ok", True)


def test_what_is_left_of_the_budget_is_told(site):
    config = own_config(site)
    replace(config.parent / "policy.yaml", "epsilon_budget: 10", "epsilon_budget: 3")
    limit = Limit(epsilon=3.0, delta=1e-6)
    budget = Budget.begin(site, limit=limit)
    budget.spend("one", Gaussian(ratio=10.0), plan_sha256=NEVER)
    spent = budget.told()
    told = found(site)["privacy budget"]
    assert (told.state, f"epsilon {spent:.3g} of 3 spent, {3 - spent:.3g} left" in told.said) == ("ok", True)
    replace(config.parent / "policy.yaml", "epsilon_budget: 3", f"epsilon_budget: {spent / 2:.3f}")
    assert found(site)["privacy budget"].state == "warning"
    (site / BUDGET).write_text("{}\n")
    assert failures(site) == {"privacy budget"}


def test_a_budget_that_forgot_what_the_ledger_knows_fails(site):
    now = datetime.datetime(2026, 11, 28, 9, tzinfo=datetime.UTC)
    with ledger.opened(site, identity=load_identity(site)) as book:
        book.append(ledger.Facts(event="released", study=NEVER, kind="enrolled", epsilon=0.5), now=now)
    told = found(site)["privacy budget"]
    assert (told.state, "the ledger of 0.5" in told.said) == ("failed", True)


def test_nothing_is_changed_by_looking(site):
    own_config(site)
    approve(site)

    def everything():
        return {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in sorted(site.rglob("*"))}

    before = everything()
    found(site, tables=True)
    assert everything() == before


def test_versions_that_a_grant_names_are_compared(sound, tmp_path, authority, server):
    root = Path(shutil.copytree(sound, tmp_path / "site"))
    join(root, port=server.port, authority=authority, versions={"flwr": "1.40.0", "torch": "2.13.0"})
    assert failures(root) == {"versions at the server"}
