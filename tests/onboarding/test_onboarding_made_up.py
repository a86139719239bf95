"""A hospital that nobody has seen before: text identifiers, day-first dates, column names of its own."""

import json
import re
import shutil

import pytest

from fairsynth.cli import main
from fairsynth.errors import ConfigError
from fairsynth.extraction import read_rules
from fairsynth.onboarding import init_site
from fairsynth.quality import check_site
from fairsynth.visits.groups import read_groups


@pytest.fixture(scope="module")
def config(made_up, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config") / "riverside"
    return folder, init_site(made_up, out=folder)


def test_the_skeleton_is_found(config):
    rules = read_rules(config[0])
    assert (rules.patients, rules.visits.table) == ("PERSONS", "STAYS")
    assert (rules.visits.start, rules.visits.end) == ("ARRIVED_AT", "LEFT_AT")
    assert (rules.identifiers.subject, rules.identifiers.visit) == ("text", "text")
    assert rules.date_formats == ("%d/%m/%Y %H:%M", "%d/%m/%Y")


def test_every_table_is_read_for_what_it_is(config):
    rules = read_rules(config[0])
    codes = {table.file: {event.code for event in table.events} for table in rules.tables}
    assert codes == {
        "PERSONS": {"MEDS_BIRTH", "GENDER//{SEX}", "ETHNICITY//{ETHNIC_ORIGIN}"},
        "STAYS": {"ADMISSION//{HOW_ADMITTED}", "DISCHARGE//{WENT_TO}", "DEATH//HOSPITAL", "UNIT//{WARD}"},
        "DX": {"DIAG//ICD10//{ICD10}"},
        "RESULTS": {"LAB//{TEST}"},
        "MEDS": {"DRUG//{MEDICINE}"},
    }
    (result,) = rules.table("RESULTS").events
    assert (result.time, result.value, result.unit) == ("TAKEN_AT", "RESULT", "UNIT")
    sex = next(event for event in rules.table("PERSONS").events if event.code.startswith("GENDER"))
    assert sex.cells == {"female": "F", "male": "M"}
    death = next(event for event in rules.table("STAYS").events if event.code == "DEATH//HOSPITAL")
    assert death.where == {"WENT_TO": "Deceased"}
    assert rules.parents["LAB//Creatinine"] == "LOINC/2160-0"
    assert "LAB//Frothiness" not in rules.parents


def test_only_strings_that_enough_patients_carry_are_written(config, made_up):
    text = (config[0] / "groups.yaml").read_text(encoding="utf-8")
    assert {rule.group for rule in read_groups(config[0] / "groups.yaml").rules} == {
        "northerner",
        "southerner",
        "islander",
    }
    rows = (made_up / "persons.csv").read_text(encoding="utf-8")
    assert 0 < rows.count("Traveller") < 11
    assert "raveller" not in text.lower()
    assert "TODO: a rule for 1 more string" in text


def test_no_cell_of_a_patient_is_written_or_shown(config, made_up, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["init-site", str(made_up), "--out", str(tmp_path / "other")])
    assert stopped.value.code == 0
    said = capsys.readouterr()
    told = said.out + said.err + "".join(path.read_text(encoding="utf-8") for path in config[0].glob("*.yaml"))
    assert not re.search(r"P-\d{5}|S\d{4}/|\d\d/\d\d/(19|20)\d\d", told.replace("03/04/2021", ""))


def test_what_is_written_loads_and_its_check_names_what_is_left_to_decide(config, made_up, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(config[0], folder)
    text = (folder / "groups.yaml").read_text(encoding="utf-8")
    (folder / "groups.yaml").write_text(text.replace("  # - {match: '.'", "  - {match: '.'"), encoding="utf-8")
    report = check_site(made_up, config=folder)
    assert [table.kept for table in report.tables] == [table.rows for table in report.tables]
    assert {kind.kind: kind.mapped_share for kind in report.codes if kind.kind in ("DRUG", "DIAG")}["DRUG"] == 1
    left = [finding.where for finding in report.findings if finding.what.startswith("TODO")]
    assert len(left) == len(config[1].todos) == len({*left})
    telling = next(finding for finding in report.findings if finding.level == "error")
    assert "DIAG//ICD10//X59.9" in telling.where


def test_a_folder_with_something_in_it_is_left_alone(config, made_up):
    before = {path: path.read_bytes() for path in config[0].iterdir()}
    with pytest.raises(ConfigError, match="something is there already"):
        init_site(made_up, out=config[0])
    assert {path: path.read_bytes() for path in config[0].iterdir()} == before


def test_a_program_reads_what_was_found(made_up, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["init-site", str(made_up), "--out", str(tmp_path / "site"), "--name", "St. Nowhere", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["looks_like"] == []
    assert {table["file"]: table["what"] for table in told["tables"]}["stays.csv"] == "one row a visit"
    assert "source: st-nowhere" in (tmp_path / "site" / "site.yaml").read_text(encoding="utf-8")
