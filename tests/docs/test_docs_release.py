"""docs/release.md says what the code does: its commands, its gates, its thresholds."""

import re

import pytest
from walk import ROOT

from fairsynth.cli.verbs import load
from fairsynth.synthesis.release import check, export, runs
from fairsynth.synthesis.release.rules import ReleaseRules

TEXT = (ROOT / "docs" / "release.md").read_text(encoding="utf-8")
RULES = ReleaseRules()


@pytest.mark.parametrize("verb", ["check", "export"])
def test_commands_and_their_options_exist(verb):
    command = load("release").commands[verb]
    known = {option for parameter in command.params for option in parameter.opts}
    lines = re.findall(rf"^    fairsynth release {verb} (.*)$", TEXT, re.M)
    assert lines
    assert {option for line in lines for option in re.findall(r"--[a-z-]+", line)} <= known
    assert {"--synthetic"} <= known


def test_every_gate_has_its_row():
    assert re.findall(r"^\| (G\d+) ", TEXT, re.M) == [f"G{number}" for number in range(12)]


@pytest.mark.parametrize(
    ("gate", "numbers"),
    [
        ("G0", [f"{RULES.minimum_patients:,}"]),
        ("G1", [str(RULES.unmistakable_codes), str(RULES.levels.copies), f"fewer than {RULES.minimum_codes} codes"]),
        ("G2", [f"{RULES.near:.0%}".replace("%", " %"), str(RULES.near_ratio), str(RULES.levels.near)]),
        ("G3", [str(RULES.auc), str(RULES.auc_upper), str(RULES.levels.auc)]),
        ("G4", [str(RULES.top_ratio), str(RULES.levels.top)]),
        ("G5", [str(RULES.nnaa), str(RULES.levels.nnaa)]),
        ("G6", [str(RULES.attribute_risk), str(RULES.levels.attribute)]),
        ("G7", [f"{RULES.singling_out_risk:.2f}", str(RULES.levels.singling_out)]),
        ("G8", [str(RULES.rare_support)]),
        ("G10", [str(RULES.minimum_group)]),
    ],
)
def test_thresholds_are_those_of_the_code(gate, numbers):
    (row,) = re.findall(rf"^\| {gate} .*$", TEXT, re.M)
    assert [number for number in numbers if number not in row] == []


def test_the_sum_of_the_levels_is_that_of_the_code():
    assert f"sum to {sum(RULES.levels.model_dump().values()):.3f}" in TEXT


def test_names_of_files_are_those_of_the_code():
    names = (runs.JOURNAL, check.KIND, check.OUTSIDE, export.KIND, export.CARD, export.CARD_TEXT)
    assert [name for name in names if name not in TEXT] == []
    assert runs.LIMIT == 3
    assert "**three runs**" in TEXT


def test_the_word_that_may_not_be_said_is_not_in_the_card():
    from fairsynth.synthesis.release import card

    said = " ".join(str(value) for name, value in vars(card).items() if name.isupper())
    assert "anonymous" not in said.lower()
