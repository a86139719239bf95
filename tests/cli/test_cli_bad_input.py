"""Bad input at the front door: one clear message, exit code 2, before any training, nothing half-written."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fairsynth.cli import main
from fairsynth.config import SimulationConfig
from fairsynth.simulate import simulate

ROOT = Path(__file__).resolve().parents[2]

STUDY = """schema: fairsynth.study/1
name: tiny
seed: 5
sites:
  - site: zhejiang
    config: config
    data: raw
groups:
  names: [han, yi, buyei, miao, tujia, hui, other]
  reference: [han]
task:
  name: in_hospital_mortality
training:
  rounds: 1
  local_epochs: 1
"""


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "raw"
    simulate(SimulationConfig(source="pic", patients=300, seed=3, mix="study", detail=0.02), folder)
    return folder


@pytest.fixture
def study(tables: Path, tmp_path: Path) -> Path:
    shutil.copytree(tables, tmp_path / "raw")
    shutil.copytree(ROOT / "site_configs" / "pic", tmp_path / "config")
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace(", other]", "]"), encoding="utf-8")
    return path


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """Change one file beside the study, all of its text."""

    def apply(folder: Path) -> None:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        changed = change(text)
        assert changed != text
        path.write_text(changed, encoding="utf-8")

    return apply


def first_row(change: Callable[[list[str], list[str]], list[str]]) -> Callable[[str], str]:
    """Change the first data row of a CSV, given header and cells."""

    def apply(text: str) -> str:
        header, row, *rest = text.splitlines()
        return "\n".join([header, ",".join(change(header.split(","), row.split(","))), *rest, ""])

    return apply


def put(column: str, value: str) -> Callable[[list[str], list[str]], list[str]]:
    return lambda header, row: [value if name == column else cell for name, cell in zip(header, row, strict=True)]


def duplicate_first_row(text: str) -> str:
    header, row, *rest = text.splitlines()
    return "\n".join([header, row, row, *rest, ""])


def everywhere(column: str, value: str) -> Callable[[str], str]:
    def apply(text: str) -> str:
        header, *rows = text.splitlines()
        names = header.split(",")
        return "\n".join([header, *(",".join(put(column, value)(names, row.split(","))) for row in rows), ""])

    return apply


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


CANARY = "Canary ethnic"

CASES = {
    "missing file": (remove("raw/ADMISSIONS.csv"), r"FS-2\d\d .*ADMISSIONS"),
    "missing column": (
        edit("raw/ADMISSIONS.csv", lambda text: text.replace("ADMITTIME", "ADMITTED", 1)),
        r"FS-2\d\d (?s:.*)ADMITTIME",
    ),
    "date that does not parse": (
        edit("raw/ADMISSIONS.csv", first_row(put("ADMITTIME", "yesterday"))),
        r"FS-2\d\d (?s:.*)ADMITTIME(?s:.*)2",
    ),
    "duplicate id": (edit("raw/PATIENTS.csv", duplicate_first_row), r"FS-2\d\d (?s:.*)SUBJECT_ID"),
    "unknown group string": (
        edit("raw/ADMISSIONS.csv", first_row(put("ETHNICITY", CANARY))),
        r"FS-25\d (?s:.*)groups\.yaml",
    ),
    "empty cohort": (
        edit("config/site.yaml", lambda text: re.sub(r"minimum_visits: \d+", "minimum_visits: 40", text)),
        r"FS-25\d (?s:.*)(empty|no patient)",
    ),
    "task without positives": (
        edit(
            "raw/ADMISSIONS.csv",
            lambda text: everywhere("DEATHTIME", "")(everywhere("HOSPITAL_EXPIRE_FLAG", "0")(text)),
        ),
        r"FS-25\d (?s:.*)positives",
    ),
    "group with nobody in it": (
        edit("study.yaml", lambda text: text.replace("hui]", "hui, martian]")),
        r"FS-25\d a group with nobody in it(?s:.*)martian",
    ),
    "misspelt key": (
        edit("study.yaml", lambda text: text.replace("rounds: 1", "ruonds: 1")),
        r"FS-1\d\d unknown key: .*study\.yaml:14  training\.ruonds(?s:.*)did you mean 'rounds'",
    ),
    "study file pointing at the wrong schema": (
        edit("study.yaml", lambda text: text.replace("config: config", "config: config/../raw")),
        r"FS-1\d\d missing file: .*site\.yaml",
    ),
    "study file of another schema": (
        edit("study.yaml", lambda text: text.replace("fairsynth.study/1", "fairsynth.study/9")),
        r"FS-1\d\d bad value: .*study\.yaml:1  schema",
    ),
    "tables of another source": (
        lambda folder: (
            shutil.rmtree(folder / "config"),
            shutil.copytree(ROOT / "site_configs/mimic3", folder / "config"),
        ),
        r"FS-2\d\d ",
    ),
    "unknown objective": (
        edit("study.yaml", lambda text: text + "objective: {name: fairest}\n"),
        r"FS-1\d\d (?s:.*)disparate_impact",
    ),
    "unknown task": (
        edit("study.yaml", lambda text: text.replace("in_hospital_mortality", "in_hospital_morality")),
        r"FS-1\d\d (?s:.*)in_hospital_mortality",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_with_one_clear_message_before_any_training(case, study, tmp_path, capsys):
    spoil, expected = CASES[case]
    spoil(tmp_path)
    identifiers = set(re.findall(r"^\d+,(\d+)", (tmp_path / "raw/PATIENTS.csv").read_text(encoding="utf-8"), re.M))
    with pytest.raises(SystemExit) as stopped:
        main(["study", str(study), "--out", str(tmp_path / "run")])
    message = capsys.readouterr().err
    assert stopped.value.code == 2, message
    assert re.search(expected, message), message
    assert "Traceback" not in message
    assert CANARY not in message
    assert "yesterday" not in message
    assert identifiers.isdisjoint(re.findall(r"\d+", message))
    assert not list(tmp_path.glob("run/server/*"))
    assert not list(tmp_path.glob("run/sites/*/.*"))


def test_a_run_is_not_overwritten_unasked(study, tmp_path, capsys):
    folder = tmp_path / "run"
    (folder / "server").mkdir(parents=True)
    (folder / "sites").mkdir()
    (folder / "server" / "plan.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["study", str(study), "--out", str(folder)])
    assert stopped.value.code == 2
    assert "--force" in capsys.readouterr().err
    assert (folder / "server" / "plan.json").read_text(encoding="utf-8") == "{}"


def test_check_tells_what_is_right_and_writes_nothing(study, tmp_path, capsys):
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(["check", str(study), "--json"])
    assert stopped.value.code == 0
    assert '"study": "tiny"' in capsys.readouterr().out
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["report", "nowhere"], "no finished run"),
        (["audit", "nowhere"], "no finished run"),
        (["generate", "nowhere", "--site", "a", "--out", "x"], "no finished run|no such site"),
        (["study", "nowhere.yaml"], "missing file"),
        (["train", "nowhere.yaml", "--out", "x"], "missing file"),
        (["extract", "nowhere", "--config", "nowhere"], "missing"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert re.search(expected, message), message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "verb",
    [
        "demo",
        "simulate",
        "extract",
        "study",
        "train",
        "generate",
        "audit",
        "report",
        "check",
        "init-site",
        "doctor",
        "status",
        "metrics",
        "backup",
        "restore",
        "settle",
        "upgrade",
        "vocabulary",
    ],
)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out) > 400
