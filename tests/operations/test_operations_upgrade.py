"""`fairsynth upgrade check`: what forbids another version, and what it can read."""

from __future__ import annotations

import json

import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from governed_toys import site_of
from resumed import Stopped, Stopping

from fairsynth import artefacts
from fairsynth.cli import main
from fairsynth.errors import ConfigError
from fairsynth.federation.messages import EnrolRequest
from fairsynth.federation.rounds import run_study
from fairsynth.operations.upgrade import examine


def found(path):
    return {one.name: one for one in examine(path)}


def states(path):
    return {name: one.state for name, one in found(path).items() if one.state not in ("ok", "skipped")}


@pytest.fixture
def unfinished(tmp_path):
    plan = toy_plan()
    with pytest.raises(Stopped):
        run_study(Stopping(InProcess(toy_sites(plan)), number=4, answered=True), plan=plan, root=tmp_path / "server")
    return tmp_path


def test_an_unfinished_study_of_the_installed_version_is_a_warning(unfinished):
    assert states(unfinished) == {"study": "warning"}
    assert "--resume" in found(unfinished)["study"].do


def test_an_unfinished_study_of_another_version_forbids_it_as_its_resume_does(unfinished, monkeypatch):
    versions = artefacts.software_versions()
    monkeypatch.setattr(artefacts, "version", lambda name: "9.9.9" if name == "torch" else versions[name])
    study = found(unfinished)["study"]
    assert study.state == "failed"
    assert f"torch {versions['torch']} then, 9.9.9 now" in study.said
    plan = toy_plan()
    with pytest.raises(Exception, match="another course"):
        run_study(InProcess(toy_sites(plan)), plan=plan, root=unfinished / "server", resume=True)


def test_a_finished_study_forbids_nothing(tmp_path, monkeypatch):
    plan = toy_plan()
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path / "server")
    monkeypatch.setattr(artefacts, "version", lambda name: "9.9.9")
    assert states(tmp_path) == {}


def test_an_artefact_of_a_schema_that_is_not_known_is_named(unfinished, capsys):
    (path, *_) = sorted((unfinished / "server" / "rounds").glob("*/manifest.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 2}))
    assert states(unfinished)["artefacts"] == "failed"
    assert path.parent.name in found(unfinished)["artefacts"].said
    with pytest.raises(SystemExit) as ended:
        main(["upgrade", "check", str(unfinished), "--json"])
    assert ended.value.code == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["failed"]) == ("fairsynth.upgrade/1", 1)


def test_a_site_that_enrolled_asks_whether_the_study_is_over(tmp_path, capsys):
    plan = toy_plan()
    site = site_of(tmp_path, plan)
    site.approve()
    site.ask(EnrolRequest(plan=plan).pack())
    assert states(site.root) == {}
    (site.root / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    assert states(site.root) == {"study": "warning"}
    with pytest.raises(SystemExit) as ended:
        main(["upgrade", "check", str(site.root)])
    assert ended.value.code == 0
    assert "can go on" in capsys.readouterr().out


def test_a_ledger_of_another_version_is_named(tmp_path):
    site = site_of(tmp_path, toy_plan())
    site.approve()
    path = site.root / "ledger.jsonl"
    path.write_text(path.read_text().replace('"event":"approved"', '"event":"invented"'))
    assert states(site.root) == {"ledger": "failed"}


def test_a_coordinators_documents_are_read(tmp_path, capsys):
    (tmp_path / "consortium.yaml").write_text(
        "schema: fairsynth.consortium/1\nname: lungs\nserver: {host: localhost, port: 8443}\n"
        "sites: [{site: boston}, {site: lyon}]\ncertificate_days: 30\n"
    )
    with pytest.raises(SystemExit):
        main(["provision", "init", str(tmp_path / "consortium.yaml"), "--out", str(tmp_path / "c")])
    assert states(tmp_path / "c") == {}
    assert found(tmp_path / "c")["kits/boston.kit.json"].state == "ok"
    path = tmp_path / "c" / "kits" / "boston.kit.json"
    path.write_text(path.read_text().replace("fairsynth.kit/1", "fairsynth.kit/2"))
    assert states(tmp_path / "c") == {"kits/boston.kit.json": "failed"}


def test_a_folder_of_nobody_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        found(tmp_path)
