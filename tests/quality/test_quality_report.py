"""The report of a whole site, as the command line prints it."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from fairsynth.cli import main

STUDY = """schema: fairsynth.study/1
name: tiny
seed: 5
sites: [{site: zhejiang, config: config, data: raw}]
groups: {names: [han, yi, buyei, miao, tujia, hui, other], reference: [han]}
split: {train: 0.4, validation: 0.1, held_out: 0.5}
audit: {minimum_positives: 5}
"""


def run(capsys, site: Path, *options: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["check", str(site / "config"), "--data", str(site / "raw"), *options])
    said = capsys.readouterr()
    return stopped.value.code, said.out, said.err


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_every_section_is_printed_and_nothing_is_left_behind(site, capsys, monkeypatch):
    scratch = site / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = sorted(site.rglob("*"))
    code, out, err = run(capsys, site)
    assert code == 0, err
    assert sorted(site.rglob("*")) == before
    for title in ("tables", "shared vocabulary", "missing", "order in time", "groups of the cohort", "verdict"):
        assert title in out
    assert re.search(r"^0 errors, \d+ warnings?, \d+ notes?$", out, re.M)
    identifiers = re.findall(r"^\d+,(\d+)", (site / "raw/PATIENTS.csv").read_text(encoding="utf-8"), re.M)
    assert identifiers
    assert set(identifiers).isdisjoint(re.findall(r"\d+", out + err))


def test_a_program_reads_the_same_report(site, capsys):
    code, out, _ = run(capsys, site, "--json", "--out", str(site / "report.json"))
    report = json.loads(out)
    assert code == 0
    assert report == json.loads((site / "report.json").read_text(encoding="utf-8"))
    assert report["schema"] == "fairsynth.quality/1"
    for table in report["tables"]:
        assert table["rows"] == table["kept"] + sum(table["left_out"].values())
    assert sum(group["reference"] for group in report["groups"]["groups"]) == 1
    assert not re.search(r"\d{4}-\d\d-\d\d", out)


def test_a_study_gives_its_own_split_groups_and_thresholds(site, capsys):
    (site / "study.yaml").write_text(STUDY, encoding="utf-8")
    _, out, _ = run(capsys, site, "--json", "--study", str(site / "study.yaml"))
    groups = json.loads(out)["groups"]
    assert groups["minimum_positives"] == 5
    assert [group["group"] for group in groups["groups"] if group["reference"]] == ["han"]


def plant(site: Path) -> None:
    """Give every child who died in the hospital a diagnosis that nobody else has."""
    with (site / "raw/ADMISSIONS.csv").open(encoding="utf-8") as lines:
        header, *rows = (line.rstrip("\n").split(",") for line in lines)
    subject, visit, died = (header.index(name) for name in ("SUBJECT_ID", "HADM_ID", "HOSPITAL_EXPIRE_FLAG"))
    with (site / "raw/DIAGNOSES_ICD.csv").open("a", encoding="utf-8") as diagnoses:
        diagnoses.writelines(f"9,{row[subject]},{row[visit]},2,X99.900\n" for row in rows if row[died] == "1")


def test_a_code_that_gives_the_outcome_away_must_be_excluded_before_a_study(site, capsys):
    plant(site)
    code, out, _ = run(capsys, site)
    assert code == 2
    assert re.search(r"^error: \d codes? or tokens? telling the outcome alone: .*DIAG//ICD10CN//X99.900", out, re.M)
    rewrite(site / "config/site.yaml", "    - DIAG//ICD10CN//I46\n", "    - DIAG//ICD10CN//X99\n")
    code, out, _ = run(capsys, site)
    assert code == 0
    assert re.search(r"^note: 1 code .* left out by `exclude_codes`: DIAG//ICD10CN//X99.900$", out, re.M)


def test_without_a_cohort_the_report_tells_why_and_all_the_rest(site, capsys):
    rewrite(site / "config/groups.yaml", "'^HAN( ETHNIC)?$'", "'^NOBODY$'")
    code, out, err = run(capsys, site)
    assert (code, err) == (2, "")
    assert "error: FS-250 ETHNICITY strings without a group" in out
    assert "share of events that the shared vocabulary" in out
    assert "not checked" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["config"], "--data"),
        (["config", "--data", "raw", "--data", "raw"], "--data"),
        (["config", "--data", "nowhere"], "FS-200 missing folder"),
        (["raw", "--data", "raw"], "missing file: .*site.yaml"),
        (["nowhere", "--data", "raw"], "missing file or folder: nowhere"),
        (["config/site.yaml", "--out", "x"], "a folder with site.yaml"),
    ],
)
def test_a_call_that_cannot_work_is_told(arguments, expected, site, capsys, monkeypatch):
    monkeypatch.chdir(site)
    with pytest.raises(SystemExit) as stopped:
        main(["check", *arguments])
    assert stopped.value.code == 2
    assert re.search(expected, capsys.readouterr().err)


def test_one_group_alone_compares_nothing(site, capsys):
    (site / "config/groups.yaml").write_text(
        "schema: fairsynth.groups/1\nrules:\n  - {match: '.', group: everybody}\n", encoding="utf-8"
    )
    code, _, err = run(capsys, site)
    assert code == 2
    assert "one group only" in err


def test_a_decision_left_open_is_told_with_its_line(site, capsys):
    rewrite(site / "config/site.yaml", "minimum_visits: 1", "minimum_visits: 1   # TODO: one or two?")
    code, out, _ = run(capsys, site)
    assert code == 0
    assert "warning: TODO left open: one or two?: site.yaml:11" in out
    rewrite(site / "config/rules.yaml", "start: ADMITTIME", "start: TODO")
    code, _, err = run(capsys, site)
    assert code == 2
    assert "TODO is not among `columns`" in err
    assert re.search(r"TODO left open: rules.yaml:5\n  do: a name is missing in `visits: .*start: TODO", err)


def test_tables_that_leave_many_rows_out_are_told(site, capsys):
    rewrite(site / "config/site.yaml", "maximum_dropped_share: 0.01", "maximum_dropped_share: 0.9")
    shutil.copy(site / "raw/DIAGNOSES_ICD.csv", site / "kept.csv")
    with (site / "raw/DIAGNOSES_ICD.csv").open("a", encoding="utf-8") as diagnoses:
        diagnoses.writelines(f"9,{number},1,1,A41.900\n" for number in range(1, 300))
    code, out, _ = run(capsys, site, "--json")
    told = json.loads(out)
    table = next(one for one in told["tables"] if one["table"] == "DIAGNOSES_ICD")
    assert code == 0
    assert table["left_out"] == {"unknown patient": 299}
    assert any(finding["what"].endswith("of the rows are left out") for finding in told["findings"])
