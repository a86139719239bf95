"""`fairsynth roster`, as the people of three sites use it."""

from __future__ import annotations

import json

import pytest
from governance_stories import a_place, a_plan

from fairsynth.cli import main
from fairsynth.config import PrivacyConfig
from fairsynth.federation import boundary
from fairsynth.federation.masking.roster import read_roster
from fairsynth.federation.plans import plan_sha256
from fairsynth.governance.identity import create_identity

SITES = ("site-a", "site-b", "site-c")


def typed(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in arguments])
    printed = capsys.readouterr()
    return stopped.value.code, printed.out, printed.err


@pytest.fixture
def study(tmp_path):
    """The plan's file, and a folder with a key for each site."""
    plan = a_plan(privacy=PrivacyConfig())
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json(by_alias=True), encoding="utf-8")
    for site in SITES:
        a_place(tmp_path / site, name=site)
        boundary.approve(tmp_path / site, plan, officer="Dr. A. Lee")
    return plan, path, tmp_path


def keys_of(root):
    return [f"{site}={root / site / 'identity.pub'}" for site in SITES]


def test_a_roster_goes_from_site_to_site_and_is_whole_when_all_have_signed(study, capsys):
    plan, path, root = study
    roster = root / "roster.json"
    assert typed(capsys, "roster", "new", *keys_of(root), "--plan", path, "--out", roster)[0] == 0
    code, _, err = typed(capsys, "roster", "check", roster, "--plan", path)
    assert (code, "roster without a valid signature" in err) == (2, True)
    for number, site in enumerate(SITES):
        code, out, _ = typed(capsys, "roster", "sign", root / site, roster, "--yes")
        assert code == 0
        assert (root / site / "identity.pub").read_text().strip()[:20] in out
        assert ("nobody" in out) == (number == 2)
    folders = [option for site in SITES for option in ("--put", root / site)]
    code, out, _ = typed(capsys, "roster", "check", roster, "--plan", path, *folders)
    assert (code, "signed by all 3" in out) == (0, True)
    assert read_roster(root / "site-c").verified(plan_sha256=plan_sha256(plan), sites=SITES).sites == SITES


def test_without_a_yes_a_site_signs_nothing(study, capsys, monkeypatch):
    _, path, root = study
    roster = root / "roster.json"
    typed(capsys, "roster", "new", *keys_of(root), "--plan", path, "--out", roster)
    monkeypatch.setattr("typer.confirm", lambda text: False)
    assert typed(capsys, "roster", "sign", root / "site-a", roster)[0] == 1
    assert json.loads(roster.read_text(encoding="utf-8"))["signatures"] == {}


def test_a_roster_of_other_sites_or_without_a_key_is_a_clear_error(study, capsys):
    _, path, root = study
    code, _, err = typed(capsys, "roster", "new", "site-x=00", "--plan", path, "--out", root / "r.json")
    assert (code, "sites are not the plan's" in err) == (2, True)
    code, _, err = typed(capsys, "roster", "new", "site-a", "--plan", path, "--out", root / "r.json")
    assert (code, "SITE=KEY" in err) == (2, True)
    for keys in (["site-a=nowhere.pub", *keys_of(root)[1:]], keys_of(root)[:2]):
        code, _, err = typed(capsys, "roster", "new", *keys, "--plan", path, "--out", root / "r.json")
        assert (code, "FS-100" in err) == (2, True)
    typed(capsys, "roster", "new", *keys_of(root), "--plan", path, "--out", root / "r.json")
    code, _, err = typed(capsys, "roster", "new", *keys_of(root), "--plan", path, "--out", root / "r.json")
    assert (code, "a roster is here" in err) == (2, True)


def test_a_site_signs_no_roster_of_a_study_that_it_has_not_approved(study, capsys):
    plan, path, root = study
    roster = root / "roster.json"
    typed(capsys, "roster", "new", *keys_of(root), "--plan", path, "--out", roster)
    (root / "site-b" / "approvals" / f"{plan_sha256(plan)}.json").unlink()
    code, _, err = typed(capsys, "roster", "sign", root / "site-b", roster, "--yes")
    assert (code, "study not approved" in err) == (2, True)


def test_a_key_exchanged_on_the_way_is_not_signed_by_its_site(study, capsys):
    _, path, root = study
    roster = root / "roster.json"
    other = create_identity(root / "intruder").public.hex()
    keys = [keys_of(root)[0], f"site-b={other}", keys_of(root)[2]]
    typed(capsys, "roster", "new", *keys, "--plan", path, "--out", roster)
    code, _, err = typed(capsys, "roster", "sign", root / "site-b", roster, "--yes")
    assert (code, "another key for this site" in err) == (2, True)
