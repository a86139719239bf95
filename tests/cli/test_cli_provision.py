"""`fairsynth provision`, as people, systemd and programs use it."""

from __future__ import annotations

import datetime
import io
import json
import sys
from pathlib import Path

import pytest
from governance_stories import a_plan

from fairsynth import artefacts
from fairsynth.cli import main
from fairsynth.config import PrivacyConfig
from fairsynth.federation.masking.roster import read_roster_file
from fairsynth.provisioning import authority

sys.path.append(str(Path(__file__).resolve().parents[1] / "provisioning"))
from consortium_stories import begun


def typed(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in arguments])
    printed = capsys.readouterr()
    return stopped.value.code or 0, printed.out, printed.err


@pytest.fixture
def story(tmp_path):
    story = begun(tmp_path / "story")
    for site in ("boston", "lyon"):
        story.joined(site)
    return story


def folders(story):
    return {"coordinator": story.hub, "server": story.hub / "server", "site": story.site("boston")}


@pytest.mark.parametrize("who", ["coordinator", "server", "site"])
def test_check_says_that_a_folder_is_in_order(story, capsys, who):
    assert typed(capsys, "provision", "check", folders(story)[who]) == (0, f"{who}: in order\n", "")


@pytest.mark.parametrize(
    ("who", "names"),
    [
        ("coordinator", ["ca.key", "server/server.key", "server/superexec.secret", "server/control.secret"]),
        ("server", ["server.key", "superexec.secret", "control.secret"]),
        ("site", ["identity.key", "supernode.key", "superexec.secret"]),
    ],
)
def test_check_gives_a_line_for_each_wrong_file_and_its_mend(story, capsys, who, names):
    folder = folders(story)[who]
    for name in names:
        (folder / name).chmod(0o644)
    code, out, err = typed(capsys, "provision", "check", folder)
    assert (code, out) == (2, "")
    assert sorted(err.splitlines()) == sorted(
        f"FS-405 private file of mode 0644: {folder / name}  do: chmod 600 {folder / name}" for name in names
    )


def test_check_finds_what_is_missing_and_a_folder_that_others_can_write(story, capsys):
    site = story.site("boston")
    (site / "supernode.key").unlink()
    (site / "connection.json").unlink()
    site.chmod(0o770)
    code, _, err = typed(capsys, "provision", "check", site)
    assert (code, len(err.splitlines())) == (2, 3)
    assert "chmod 700" in err
    assert "missing private file" in err
    assert "site without a grant" in err


def test_check_finds_a_certificate_that_has_ended_and_a_key_that_is_none(story, capsys, monkeypatch):
    server = story.hub / "server"
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=400)
    with monkeypatch.context() as patch:
        patch.setattr(authority, "_now", lambda: past)
        assert typed(capsys, "provision", "renew", story.hub)[0] == 0
    code, _, err = typed(capsys, "provision", "check", server)
    assert (code, "certificate has expired" in err) == (2, True)
    assert "EXPIRED" in typed(capsys, "provision", "show", story.hub)[1]
    (server / "server.key").write_text("no key")
    code, _, err = typed(capsys, "provision", "check", server)
    assert (code, "not a private key" in err) == (2, True)


def test_check_of_a_folder_of_nobody_is_a_clear_error(tmp_path, capsys):
    code, _, err = typed(capsys, "provision", "check", tmp_path)
    assert (code, "no folder of a site or server" in err) == (2, True)


def test_show_tells_programs_the_identities_of_granted_sites(story, capsys):
    typed(capsys, "provision", "add", story.hub, "graz")
    code, out, _ = typed(capsys, "provision", "show", story.hub, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["identities"] == {
        site: (story.site(site) / "identity.pub").read_text().strip() for site in ("boston", "lyon")
    }
    assert {one["site"]: one["state"] for one in found["sites"]} == {
        "boston": "granted",
        "graz": "invited",
        "lyon": "granted",
    }
    assert "PRIVATE" not in out


def test_a_roster_takes_the_identities_of_granted_sites(story, capsys):
    privacy = PrivacyConfig(profile="exact", agreement="DUA-2026-014")
    plan, roster = story.root / "plan.json", story.root / "roster.json"
    plan.write_text(
        a_plan(privacy=privacy, roster=("boston", "lyon"), quorum=2).model_dump_json(by_alias=True), encoding="utf-8"
    )
    command = ["roster", "new", "--plan", plan, "--out", roster, "--consortium", story.hub]
    assert typed(capsys, *command)[0] == 0
    members = {one.site: one.public_key for one in read_roster_file(roster).roster.members}
    assert members == {site: (story.site(site) / "identity.pub").read_text().strip() for site in ("boston", "lyon")}
    roster.unlink()
    typed(capsys, "provision", "revoke", story.hub, "lyon")
    code, _, err = typed(capsys, *command)
    assert (code, "without a grant" in err, "granted: lyon" in err) == (2, True, True)
    for wrong in ([*command, "boston=00"], command[:-2]):
        code, _, err = typed(capsys, *wrong)
        assert (code, "whose keys?" in err) == (2, True)
    assert not roster.exists()


def test_what_is_refused_exits_with_2_and_its_code(story, capsys):
    code, _, err = typed(capsys, "provision", "accept", story.hub, story.site("boston") / "identity.pub")
    assert (code, err.startswith("FS-406")) == (2, True)
    code, _, err = typed(capsys, "provision", "init", story.root / "consortium.yaml", "--out", story.hub)
    assert (code, "something is here" in err) == (2, True)


def test_both_sides_read_the_same_digits(story, capsys):
    kit = story.kit("boston")
    _, asked, _ = typed(capsys, "provision", "request", kit, "--out", story.site("boston"), "--renew")
    _, accepted, _ = typed(capsys, "provision", "accept", story.hub, story.site("boston") / "request.json", "--yes")
    _, shown, _ = typed(capsys, "provision", "show", story.hub)
    (request,) = [line for line in asked.splitlines() if line.startswith("request, ")]
    assert request in accepted
    (ca,) = [line.rpartition(":")[2].strip() for line in asked.splitlines() if line.startswith("authority")]
    assert len(ca.replace(" ", "")) == 32
    assert ca in shown


def test_nothing_is_signed_before_somebody_says_that_the_digits_were_compared(story, capsys, monkeypatch):
    typed(capsys, "provision", "request", story.kit("boston"), "--out", story.site("boston"), "--renew")
    before = artefacts.sha256_folder(story.hub)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, said, _ = typed(capsys, "provision", "accept", story.hub, story.site("boston") / "request.json")
    assert (code, "nothing was signed" in said) == (1, True)
    assert artefacts.sha256_folder(story.hub) == before
