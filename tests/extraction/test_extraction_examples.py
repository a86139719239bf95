"""The examples beside the code run: in.csv by rules.yaml gives out.csv."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

import fairsynth.extraction
from fairsynth.extraction import extract
from fairsynth.extraction.rules import read_rules

EXAMPLES = Path(fairsynth.extraction.__file__).parent / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())

FRAME = {
    "PATIENTS": {
        "file": "PATIENTS",
        "columns": ["SUBJECT_ID", "DOB"],
        "visit": None,
        "events": [{"code": "FRAME_BIRTH", "time": "DOB"}],
    },
    "ADMISSIONS": {
        "file": "ADMISSIONS",
        "columns": ["SUBJECT_ID", "HADM_ID", "ADMITTIME", "DISCHTIME"],
        "events": [{"code": "FRAME_START", "time": "ADMITTIME"}],
    },
    "CODES": {
        "file": "CODES",
        "columns": ["SUBJECT_ID", "CODE"],
        "visit": None,
        "events": [{"code": "DIAG//ICD10CN//{CODE}"}],
    },
}


@pytest.fixture
def run(tmp_path):
    """Extract an example: its table beside the patients and visits that all examples share."""

    def run(folder):
        rule = yaml.safe_load((folder / "rules.yaml").read_text(encoding="utf-8"))
        config, data = tmp_path / "config", tmp_path / "data"
        config.mkdir()
        data.mkdir()
        described = "code" in rule
        for name in ("PATIENTS", "ADMISSIONS"):
            shutil.copy(EXAMPLES / f"{name}.csv", data)
        shutil.copy(folder / "in.csv", data / f"{rule['file']}.csv")
        tables = {**FRAME, rule["file"]: rule}
        if described:
            codes = pl.read_csv(folder / "out.csv")["code"].str.strip_prefix("DIAG//ICD10CN//")
            pl.DataFrame({"SUBJECT_ID": 101, "CODE": codes}).write_csv(data / "CODES.csv")
            del tables[rule["file"]]
        else:
            del tables["CODES"]
        rules = {"schema": "fairsynth.rules/1", "patients": "PATIENTS", "visits": {"table": "ADMISSIONS"}}
        rules |= {"tables": list(tables.values()), "dictionaries": [rule] if described else []}
        (config / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
        (config / "site.yaml").write_text("schema: fairsynth.site/1\nsource: example\n", encoding="utf-8")
        return rule["file"], read_rules(config), extract(data, config=config, root=tmp_path / "site")

    return run


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_example_gives_what_it_says(run, folder, tmp_path):
    file, rules, out = run(folder)
    result = tmp_path / "out.csv"
    if file.startswith("D_"):
        codes = pl.read_parquet(out / "metadata" / "codes.parquet").filter(pl.col("code").str.starts_with("DIAG//"))
        codes.with_columns(pl.col("parent_codes").list.join(" ").replace("", None)).write_csv(result)
    else:
        events = pl.read_parquet(out / "data" / "0.parquet")
        own = [code for code in events["code"].unique() if rules.table(file).rule_of(code) is not None]
        kept = events.filter(pl.col("code").is_in(own))
        kept.write_csv(result, datetime_format="%Y-%m-%d %H:%M:%S")
    assert result.read_text(encoding="utf-8") == (folder / "out.csv").read_text(encoding="utf-8")


def test_examples_are_short_enough_to_read():
    assert len(FOLDERS) >= 7
    for path in EXAMPLES.rglob("*.csv"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 12
