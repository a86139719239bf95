"""What an officer types: policy, approve, ledger."""

import json
import re

import pytest

from fairsynth.cli import main
from fairsynth.config import (
    AuditConfig,
    AugmentationConfig,
    GeneratorConfig,
    GroupsConfig,
    ObjectiveConfig,
    PrivacyConfig,
    SplitConfig,
    StudyPlan,
    TaskConfig,
    TrainingConfig,
    VocabularyConfig,
)
from fairsynth.federation.plans import plan_sha256
from fairsynth.governance.ledger import NAME


def typed(capsys, *arguments):
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return stopped.value.code, printed.out, printed.err


def plan_of(roster):
    return StudyPlan(
        name="toy",
        seed=7,
        roster=roster,
        quorum=len(roster),
        task=TaskConfig(),
        split=SplitConfig(),
        groups=GroupsConfig(names=("white", "black"), reference=("white",)),
        vocabulary=VocabularyConfig(),
        objective=ObjectiveConfig(),
        generator=GeneratorConfig(),
        training=TrainingConfig(),
        augmentation=AugmentationConfig(),
        audit=AuditConfig(),
        privacy=PrivacyConfig(agreement="toys"),
    )


@pytest.fixture
def site(tmp_path, capsys):
    """A hospital's own folder, its configuration without a policy, and the plan that came."""
    config, data = tmp_path / "config", tmp_path / "raw"
    for folder in (config, data, tmp_path / "site"):
        folder.mkdir()
    (config / "site.yaml").write_text("schema: fairsynth.site/1\nsource: toy\n")
    for name in ("rules.yaml", "groups.yaml"):
        (config / name).write_text("{}\n")
    values = {"site": "site-a", "config": str(config), "data": str(data)}
    (tmp_path / "site" / "site.json").write_text(json.dumps(values))
    plan = plan_of(("site-a", "site-b", "site-c"))
    (tmp_path / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    return tmp_path


def approval(site, *more):
    return ["approve", site / "site", "--plan", site / "plan.json", "--officer", "Dr. A. Lee", *more]


def test_a_site_writes_its_policy_approves_a_study_and_sees_both(site, capsys):
    code, _, err = typed(capsys, *approval(site, "--yes"))
    assert (code, "FS-401 no policy" in err, "fairsynth policy init" in err) == (2, True, True)
    assert typed(capsys, "policy", "init", site / "config")[0] == 0
    code, out, _ = typed(capsys, "policy", "show", site / "config")
    assert (code, "unmasked records       refused" in out) == (0, True)
    code, out, _ = typed(capsys, *approval(site, "--yes"))
    assert code == 0
    for word in ("site-a, site-b, site-c", "unmasked records", "public key of the site", str(site / "raw")):
        assert word in out
    code, out, _ = typed(capsys, "approve", site / "site", "--list", "--json")
    (grant,) = json.loads(out)
    assert (grant["officer"], grant["plan_sha256"]) == (
        "Dr. A. Lee",
        plan_sha256(plan_of(("site-a", "site-b", "site-c"))),
    )
    code, out, _ = typed(capsys, "ledger", "show", site / "site", "--json")
    assert [line["event"] for line in json.loads(out)] == ["approved"]
    code, out, _ = typed(capsys, "ledger", "show", site / "site", "--study", "no such")
    assert (code, "0 lines" in out) == (0, True)


def test_an_altered_ledger_is_told_with_its_line_and_exit_code_1(site, capsys):
    typed(capsys, "policy", "init", site / "config")
    for _ in range(3):
        assert typed(capsys, *approval(site, "--yes"))[0] == 0
    code, out, _ = typed(capsys, "ledger", "verify", site / "site")
    assert (code, "sound: 3 lines" in out) == (0, True)
    noted = re.search(r"[0-9a-f]{64}", out).group()
    assert typed(capsys, "ledger", "verify", site / "site", "--expect", noted)[0] == 0
    assert typed(capsys, "ledger", "verify", site / "site", "--expect", "0" * 64)[0] == 1
    assert typed(capsys, "ledger", "verify", site / "site", "--key", "00" * 32)[0] == 1
    path = site / "site" / NAME
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1].replace("Lee", "Wu") + lines[2])
    code, _, err = typed(capsys, "ledger", "verify", site / "site")
    assert (code, "ledger.jsonl:2" in err) == (1, True)


def test_without_a_yes_nothing_is_signed(site, capsys, monkeypatch):
    typed(capsys, "policy", "init", site / "config")
    assert typed(capsys, *approval(site, "--json"))[0] == 1
    monkeypatch.setattr("typer.confirm", lambda _: False)
    assert typed(capsys, *approval(site))[0] == 1
    assert sorted(path.name for path in (site / "site").iterdir()) == ["site.json"]


@pytest.mark.parametrize("content", ["{}", "no JSON", None])
def test_what_is_no_plan_is_not_approved(content, site, capsys):
    typed(capsys, "policy", "init", site / "config")
    (site / "plan.json").unlink() if content is None else (site / "plan.json").write_text(content)
    code, _, err = typed(capsys, *approval(site, "--yes"))
    assert (code, err.startswith("FS-100")) == (2, True)


def test_a_plan_that_says_a_thing_twice_is_not_approved(site, capsys):
    """Readers differ in which of the two holds: the officer would see one, and a site could do the other."""
    typed(capsys, "policy", "init", site / "config")
    text = (site / "plan.json").read_text()
    (site / "plan.json").write_text('{"name": "another",' + text.removeprefix("{"))
    code, _, err = typed(capsys, *approval(site, "--yes"))
    assert (code, err.startswith("FS-100 not plain JSON")) == (2, True)


def test_a_plan_that_the_policy_forbids_is_told_and_not_approved(site, capsys):
    typed(capsys, "policy", "init", site / "config")
    (site / "plan.json").write_text(plan_of(("site-a", "site-b")).model_dump_json(by_alias=True))
    code, _, err = typed(capsys, *approval(site, "--yes"))
    assert (code, "FS-400 a study of 2 sites" in err) == (2, True)


def test_an_officer_is_shown_the_sites_without_which_the_study_stops(site, capsys):
    typed(capsys, "policy", "init", site / "config")
    plan = plan_of(("site-a", "site-b", "site-c")).model_copy(update={"required": ("site-b",)})
    (site / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    code, out, _ = typed(capsys, *approval(site, "--yes"))
    assert (code, "goes on with 3, not without site-b" in " ".join(out.split())) == (0, True)


@pytest.mark.parametrize("arguments", [["ledger", "show"], ["ledger", "verify"], ["approve"]])
def test_a_folder_that_is_no_sites_ends_with_one_message(arguments, tmp_path, capsys):
    code, _, err = typed(capsys, *arguments, tmp_path)
    assert (code, err.count("FS-")) == (2, 1)
