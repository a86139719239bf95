"""The report says how FairSynth's patients were chosen, and what left the sites for it: as the plan and journal say."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished import GROUPS, make_plan, write
from test_report_build import words

from fairsynth.federation.journal import text_of
from fairsynth.report import build
from fairsynth.report.chosen import chosen
from fairsynth.report.study import read_finished

OWN = [0.31, 0.42, 0.3]
COUNTS = [[[60, 140, 40, 760], [20, 30, 5, 45], [1, 2, 1, 4]]] * 2  # TP, FP, FN, TN by group
PLANNED = {
    "event": "planned",
    "sites": ["north", "south"],
    "selected": OWN,
    "tried": [
        {"selected": [0.2] * 3, "validation": COUNTS[0], "seen": COUNTS[1], "f1": 0.41, "worst_tpr": 0.25},
        {"selected": OWN, "validation": COUNTS[0], "seen": COUNTS[1], "f1": 0.405, "worst_tpr": 0.375},
    ],
    "seconds": 1.0,
}


def study(root: Path, *, augmentation: dict | None = None, primed: bool = False, planned: bool = True):
    plan = make_plan(
        augmentation={"synthetic_patients": 500, **(augmentation or {})}, training={"rounds": 2, "primed": primed}
    )
    write(root, plan=plan)
    if planned:
        with (root / "journal.jsonl").open("ab") as journal:
            journal.write(text_of(PLANNED))
    return read_finished(root)


def seen(root: Path) -> str:
    return " ".join(words(build(root, out=root / "report.html").read_text(encoding="utf-8")).split())


def test_a_study_without_a_teacher_says_that_the_generator_gave_the_outcome_and_shows_no_guide(tmp_path):
    found = chosen(study(tmp_path, augmentation={"candidates": "prefix"}))
    assert found.tables == ()
    text = " ".join(found.sentences)
    assert "500 synthetic patients" in text
    assert "their outcome is what the generator takes for one" in text
    assert "teacher" not in text
    assert "on its own patients alone" not in text


def test_a_study_with_a_teacher_says_who_gave_the_outcome_and_shows_the_guide_that_was_kept(tmp_path):
    found = chosen(study(tmp_path, augmentation={"candidates": "taught"}))
    assert "8 candidates of a group for each patient wanted" in " ".join(found.sentences)
    guide, trials = found.tables
    assert [(row.name, row.cells[0].text) for row in guide.rows] == list(
        zip(GROUPS, ("0.31", "0.42", "0.30"), strict=True)
    )
    first, kept = trials.rows
    assert (first.name, first.primary, kept.name, kept.primary) == (
        "0.20 of every group",
        False,
        "cuts of the groups' own",
        True,
    )
    rate, reference = (50 + 3) / (100 + 8), 200 / 1000  # of the protected and the reference groups, from COUNTS
    assert [cell.text for cell in kept.cells] == ["0.41", "0.38", f"{rate / reference:.2f}", "yes"]


@pytest.mark.parametrize("plan, words", [("equal_rates", "the same share of them"), ("equal_cells", "as equal as")])
def test_the_quotas_are_those_of_the_plan(tmp_path, plan, words):
    assert words in chosen(study(tmp_path, augmentation={"plan": plan})).sentences[0]


@pytest.mark.parametrize("rounds, words", [(0, None), (1, "for one more round."), (8, "for 8 more rounds.")])
def test_rounds_at_home_are_told_where_there_are_any(tmp_path, rounds, words):
    text = " ".join(chosen(study(tmp_path, augmentation={"home_rounds": rounds})).sentences)
    assert (words in text) if words else "more round" not in text


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("primed", [False, True])
def test_what_leaves_a_site_is_what_left_it_under_this_plan(tmp_path, taught, primed):
    study(tmp_path, augmentation={"candidates": "taught" if taught else "prefix"}, primed=primed)
    text = seen(tmp_path)
    assert ("because this study began primed" in text) == primed
    assert ("because this study had a teacher" in text) == taught
    assert "How FairSynth's patients were chosen" in text


def test_a_journal_of_a_study_whose_guide_was_never_told_shows_no_table(tmp_path):
    assert chosen(study(tmp_path, augmentation={"candidates": "taught"}, planned=False)).tables == ()
