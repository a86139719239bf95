"""Whatever a hospital sends: what `extract` and `check` print and log has no identifier, code or value of a patient."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from canary_words import CODE, DRUG, NUMBER, PATIENT, PLANTED, VISIT, heard, heard_in, logs
from extraction_mutations import COUNTED, REFUSED, Files
from extraction_tables import TABLES
from test_extraction_mutations import only, place

from fairsynth.cli import main
from fairsynth.extraction import engine

CASES: dict[str, Files] = {name: files for cases in (REFUSED, COUNTED) for name, (files, _) in cases.items()}
# What the tiny tables say of their three patients, and the words that say it here
WORDS = {
    r"\b10[123]\b": lambda found: str(PATIENT + 10_000 + int(found[0])),
    r"\b700[1234]\b": lambda found: str(VISIT + 100_000 + int(found[0])),
    r"\b1\.4\b": lambda _: NUMBER,
    r"Heparin": lambda _: DRUG,
    r"41071": lambda _: CODE,
}


def replaced(text: str) -> str:
    for pattern, word in WORDS.items():
        text = re.sub(pattern, word, text)
    return text


def planted(files: Files) -> Files:
    """All tables of a case with words in the place of values; archives and Parquet stay as they are."""
    whole = {f"{table}.csv": text for table, text in TABLES.items()} | dict(files)
    return {name: replaced(content) if isinstance(content, str) else content for name, content in whole.items()}


@pytest.mark.parametrize("name", CASES)
def test_no_table_makes_the_program_say_what_is_in_it(name, mimic3, tmp_path, monkeypatch, capfd, caplog):
    files = planted(CASES[name])
    said = " ".join(content for content in files.values() if isinstance(content, str))
    assert len(set(heard(said)) & set(PLANTED)) >= 3  # so there is something to repeat
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(engine, "read_source", lambda config: only(CASES[name], config))
    data = place(tmp_path / "data", files)
    with pytest.raises(SystemExit) as stopped:
        main(["extract", str(data), "--config", str(mimic3), "--out", str(tmp_path / "site")])
    assert stopped.value.code in (0, 2)  # an archive or Parquet has other patients than the planted tables
    out, err = capfd.readouterr()
    assert out + err
    assert heard(out + err + caplog.text) == []
    assert heard_in(logs(tmp_path)) == []


CHECKED = [next(iter(COUNTED)), "30 February", "a column twice"]


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_check_of_the_tables_counts_and_does_not_quote(name, form, mimic3, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    data = place(tmp_path / "data", planted(CASES[name]))
    with pytest.raises(SystemExit):
        main(["check", str(mimic3), "--data", str(data), *form])
    out, err = capfd.readouterr()
    assert out + err
    assert heard(out + err + caplog.text) == []


def test_the_search_finds_what_a_program_that_shows_the_row_prints(mimic3, tmp_path, capfd):
    """Control: a line of the table, as a careless error would show it."""
    data: Path = place(tmp_path / "data", planted({}))
    print((data / "PRESCRIPTIONS.csv").read_text().splitlines()[1])
    assert {DRUG, "77007701", "88008810"} <= set(heard(capfd.readouterr().out))
