"""Whatever a hospital sends: the right events, a clear error, or a repair that is counted; never a lost patient."""

import functools
import json
import os
import re
from pathlib import Path

import polars as pl
import pytest
from extraction_accounts import assert_nobody_is_lost, flow_of
from extraction_mutations import ADMISSIONS, COUNTED, REFUSED, SAME, Files
from extraction_tables import TABLES

from fairsynth.artefacts import MANIFEST
from fairsynth.errors import ExtractionError
from fairsynth.extraction import engine, extract, parquetfile, textfile
from fairsynth.extraction.rules import read_source

_read_once = functools.cache(read_source)


@pytest.fixture(autouse=True)
def rules_read_once(monkeypatch):
    """Reading the YAML takes longer than extracting tables this small."""
    monkeypatch.setattr(engine, "read_source", _read_once)


def only(files: Files, config: Path):
    """The rules for patients, visits and the tables that changed: a fault is found without the others."""
    site, rules = _read_once(config)
    named = {name.split(".")[0].upper() for name in files} | {"PATIENTS", "ADMISSIONS"}
    tables = tuple(rule for rule in rules.tables if rule.file in named)
    dictionaries = tuple(rule for rule in rules.dictionaries if rule.file in named)
    return site, rules.model_copy(update={"tables": tables, "dictionaries": dictionaries})


def place(data: Path, files: Files) -> Path:
    """Write the tiny tables, with these files in their place. `a -> b` is a link, `a/` a folder."""
    data.mkdir()
    for name, content in ({f"{table}.csv": text for table, text in TABLES.items()} | dict(files)).items():
        path = data / name.split(" -> ")[0]
        path.parent.mkdir(exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        elif " -> " in name:
            path.symlink_to(name.split(" -> ")[1])
        elif content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return data


def cells_of(files: Files) -> set[str]:
    """What may be a patient's: cells with a digit, and drugs, of the tiny tables and of these files."""
    texts = [*TABLES.values()]
    for content in files.values():
        texts += [content if isinstance(content, str) else (content or b"").decode("latin-1")]
    header, *_ = zip(*(text.partition("\n")[::2] for text in TABLES.values()), strict=True)
    found = {cell.strip(' "') for text in texts for cell in re.split(r"[,;|\t\r\n\0]", text)}
    names = {name for line in header for name in line.split(",")}
    return {cell for cell in found - names if len(cell) > 3 and re.search(r"\d|-", cell)} | {"Heparin", "Aspirin"}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory, request) -> Path:
    """The events of the untouched tables."""
    folder = tmp_path_factory.mktemp("untouched")
    config = Path(__file__).resolve().parents[2] / "site_configs" / "mimic3"
    return extract(place(folder / "data", {}), config=config, root=folder / "site")


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_is_told_with_file_line_and_column_and_leaves_nothing(name, mimic3, tmp_path, monkeypatch):
    files, told = REFUSED[name]
    monkeypatch.setattr(engine, "read_source", lambda config: only(files, config))
    data = place(tmp_path / "data", files)
    with pytest.raises(ExtractionError) as caught:
        extract(data, config=mimic3, root=tmp_path / "site")
    text = str(caught.value).replace(str(tmp_path), "")
    assert [fragment for fragment in told if fragment not in text] == [], text
    assert [cell for cell in cells_of(files) if cell in text] == [], text
    assert all(problem.do for problem in caught.value.problems), text
    assert list((tmp_path / "site").iterdir()) == []


@pytest.mark.parametrize("name", SAME)
def test_what_is_legal_gives_the_events_of_the_untouched_tables(name, untouched, mimic3, tmp_path):
    out = extract(place(tmp_path / "data", SAME[name]), config=mimic3, root=tmp_path / "site")
    contents = [json.loads((folder / MANIFEST).read_text())["content"] for folder in (out, untouched)]
    assert contents[0] == contents[1]
    assert_nobody_is_lost(out)


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_odd_is_kept_or_left_out_and_counted(name, untouched, mimic3, tmp_path):
    files, differences = COUNTED[name]
    out = extract(place(tmp_path / "data", files), config=mimic3, root=tmp_path / "site")
    assert flow_of(out) == flow_of(untouched) | differences
    assert_nobody_is_lost(out)


def test_quotes_and_line_ends_inside_a_cell_reach_the_code(mimic3, tmp_path):
    names = ("quotes around line ends in a code", "a quote inside a cell", "quotes written twice")
    for name, drug in zip(names, ("Aspirin\n100", 'Aspirin 5" tube', 'Aspirin "forte", 100'), strict=True):
        out = extract(place(tmp_path / name, COUNTED[name][0]), config=mimic3, root=tmp_path / "site")
        assert f"DRUG//{drug}" in pl.read_parquet(out / "data")["code"].to_list()


@pytest.mark.parametrize("name", ["LABEVENTS.csv", "LABEVENTS.csv.gz", "LABEVENTS.parquet"])
def test_a_file_that_may_not_be_read_is_told(name, mimic3, tmp_path, monkeypatch):
    data = place(tmp_path / "data", {"LABEVENTS.csv": None, name: "x"})
    (data / name).chmod(0)
    if os.geteuid() == 0:  # root may read everything
        monkeypatch.setattr(textfile, "open_bytes", refuse)
        monkeypatch.setattr(parquetfile.pq, "read_schema", refuse)
    with pytest.raises(ExtractionError, match=rf"file may not be read: .*{name}\n  do: give this account the right"):
        extract(data, config=mimic3, root=tmp_path / "site")


def refuse(path, *_):
    raise PermissionError(13, "Permission denied", str(path))


# --- rows that do not parse, where the site lets them be -------------------------------------------------------------


@pytest.fixture
def lenient(mimic3, tmp_path):
    """MIMIC-III's configuration, with a share of rows that may be unreadable, and of unknown patients and visits."""

    def make(unreadable: float, unknown: float = 0.0) -> Path:
        config = tmp_path / f"config-{unreadable}"
        config.mkdir()
        text = (mimic3 / "site.yaml").read_text(encoding="utf-8")
        text = text.replace("maximum_dropped_share: 0.01", f"maximum_dropped_share: {unknown}")
        (config / "site.yaml").write_text(f"{text}maximum_unreadable_share: {unreadable}\n", encoding="utf-8")
        (config / "rules.yaml").write_bytes((mimic3 / "rules.yaml").read_bytes())
        return config

    return make


BAD_LABS = TABLES["LABEVENTS"].replace("1.4", "high").replace("2150-01-01 09:00:00", "soon").replace("240", "<3")


def test_unreadable_rows_up_to_the_tolerated_share_are_left_out_and_counted_once(lenient, tmp_path):
    data = place(tmp_path / "data", {"LABEVENTS.csv": BAD_LABS})  # two rows, three cells
    out = extract(data, config=lenient(0.5), root=tmp_path / "site")
    flow = flow_of(out)
    assert (flow["LABEVENTS: rows"], flow["LABEVENTS: rows left out, unreadable"]) == (4, 2)
    assert flow["LABEVENTS: events"] == 2
    assert_nobody_is_lost(out)


def test_more_unreadable_rows_than_tolerated_are_told_by_column(lenient, tmp_path):
    data = place(tmp_path / "data", {"LABEVENTS.csv": BAD_LABS})
    with pytest.raises(ExtractionError) as caught:
        extract(data, config=lenient(0.49), root=tmp_path / "site")
    assert "LABEVENTS.csv  VALUENUM  lines 2, 5  (2 in all)" in str(caught.value)
    assert "LABEVENTS.csv  CHARTTIME  line 2  (1 in all)" in str(caught.value)
    assert "maximum_unreadable_share" in str(caught.value)


def test_the_share_is_one_of_each_tables_rows(lenient, tmp_path):
    """Many good rows elsewhere do not hide a broken table."""
    data = place(tmp_path / "data", {"PROCEDURES_ICD.csv": TABLES["PROCEDURES_ICD"].replace("103", "x")})
    with pytest.raises(ExtractionError, match=r"PROCEDURES_ICD.csv  SUBJECT_ID  line 2"):
        extract(data, config=lenient(0.5), root=tmp_path / "site")


def test_an_unreadable_visit_takes_its_rows_along_and_all_are_counted(lenient, tmp_path):
    files = {"ADMISSIONS.csv": ADMISSIONS.replace("2160-05-01 10:00:00", "in May")}
    out = extract(place(tmp_path / "data", files), config=lenient(0.25, unknown=0.5), root=tmp_path / "site")
    flow = flow_of(out)
    assert flow["ADMISSIONS: rows left out, unreadable"] == 1
    unknown = {step: number for step, number in flow.items() if step.endswith("unknown visit")}
    assert sum(unknown.values()) == 3  # a stay, a diagnosis, a procedure of that visit
    assert_nobody_is_lost(out)


def test_a_patient_whose_only_rows_are_unreadable_is_still_counted(lenient, tmp_path):
    files = {
        "PATIENTS.csv": TABLES["PATIENTS"] + "104,F,yesterday,\n",
        "ADMISSIONS.csv": ADMISSIONS + "104,7005,soon,2160-05-09 11:00:00,,URGENT,SNF,OTHER,0\n",
    }
    out = extract(place(tmp_path / "data", files), config=lenient(0.25), root=tmp_path / "site")
    flow = flow_of(out)
    assert (flow["patients"], flow["patients without an event"]) == (4, 1)
    assert flow["PATIENTS: rows left out, unreadable"] == flow["ADMISSIONS: rows left out, unreadable"] == 1
    assert_nobody_is_lost(out)


def test_a_damaged_file_is_refused_whatever_the_share(lenient, tmp_path):
    files = REFUSED["a cell too many"][0]
    with pytest.raises(ExtractionError, match="rows of another length"):
        extract(place(tmp_path / "data", files), config=lenient(1.0), root=tmp_path / "site")
