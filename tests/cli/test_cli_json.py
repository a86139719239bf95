"""What a program reads: with `--json`, standard output is one JSON object and nothing else."""

import json
from pathlib import Path

import pytest

from fairsynth.cli import main

ROOT = Path(__file__).resolve().parents[2]


def said(capsys, *arguments: str) -> dict:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 0, printed.err
    return json.loads(printed.out)


def test_tables_are_simulated_and_extracted_by_a_program(tmp_path, capsys):
    raw = tmp_path / "raw"
    made = said(capsys, "simulate", "pic", "--patients", "60", "--detail", "0.02", "--out", str(raw), "--json")
    assert (made["source"], made["patients"], made["tables"]) == ("pic", 60, str(raw))
    assert made["rows"]["PATIENTS"] == 60
    config = str(ROOT / "site_configs" / "pic")
    found = said(capsys, "extract", str(raw), "--config", config, "--out", str(tmp_path), "--json")
    assert found["events"] == str(tmp_path / "events")
    assert found["flow"]["patients"] == 60
    assert found["flow"]["visits"] == made["admissions"]
    assert (tmp_path / "events" / "manifest.json").is_file()


@pytest.mark.parametrize("option", [["--detail", "0"], ["--label-noise", "0.7"], ["--patients", "0"]])
def test_an_option_out_of_range_is_told_before_anything_is_written(option, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["simulate", "pic", *option, "--out", str(tmp_path / "raw")])
    assert stopped.value.code == 2
    assert "FS-100 bad value: options" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bias_can_be_planted_in_a_group_from_the_command_line(tmp_path, capsys):
    options = ["--mix", "study", "--detail", "0.02", "--json"]
    hidden = ["--bias-group", "han", "--under-documentation", "0.9", "--only-danger"]
    plain, biased = (
        said(capsys, "simulate", "pic", "--patients", "60", *options, *more, "--out", str(tmp_path / name))
        for name, more in (("plain", []), ("biased", hidden))
    )
    assert biased["rows"]["LABEVENTS"] < plain["rows"]["LABEVENTS"]
    assert biased["rows"]["PRESCRIPTIONS"] == plain["rows"]["PRESCRIPTIONS"]


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("fairsynth 0.")
