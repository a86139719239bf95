"""The readmission task: who is eligible, the index visit, the label; and what tasks are asked."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from visits_stories import START, Story, study_plan, write_events

from fairsynth.config import CohortConfig, TaskConfig
from fairsynth.extraction.columns import EVENT_SCHEMA
from fairsynth.visits.cohort import encode, load_cohort, prepare, shared_vocabulary
from fairsynth.visits.flow import Flow
from fairsynth.visits.patients import read_people, read_visits, select
from fairsynth.visits.tasks import Outcome, label_visit_follows, outcome_of, readmission_30d


def examples(*stories: Story, artificial: bool = False, **cohort) -> dict[int, dict]:
    rows = [row for story in stories for row in story.rows]
    events = pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row", strict=False)
    visits = read_visits(events, attribute="ETHNICITY", artificial=artificial)
    people, limits = read_people(events), CohortConfig(**cohort)
    visits = select(visits, people=people, cohort=limits, flow=Flow(), artificial=artificial)
    found = readmission_30d(visits, TaskConfig())
    return found.rows_by_key("subject_id", named=True, unique=True)


@pytest.mark.parametrize(("day", "label"), [(6, 1), (35, 1), (35.1, 0), (400, 0)])
def test_the_next_admission_within_thirty_days_of_the_discharge_is_a_readmission(day, label):
    """The first visit ends on day 5; the second ends in death, so that the first is the index visit."""
    story = Story(1).visit(1, day=0, days=5).visit(2, day=day, died=True)
    (example,) = examples(story).values()
    assert (example["last_order"], example["label"], example["open"]) == (0, label, False)
    assert example["predicted_at"] == START + timedelta(days=5)


def test_a_last_visit_is_an_example_without_readmission():
    assert examples(Story(1).visit(1, day=0))[1]["label"] == 0


def test_a_readmission_that_the_site_s_own_cohort_leaves_out_is_one():
    """The label is a fact about the patient, not about the cohort."""
    story = Story(1).visit(1, day=0).visit(2, day=20).event(1, "UNIT//MICU", day=0)
    assert examples(story, require_unit=("MICU",))[1]["label"] == 1


@pytest.mark.parametrize("code", ["HOSPICE", "DISCHARGE//Hospice / home", "DISCHARGE//HOSPICE-MEDICAL FACILITY"])
def test_the_dead_and_those_in_a_hospice_cannot_be_readmitted(code):
    hospice = Story(1).visit(1, day=0).event(1, code, day=5)
    dead = Story(2).visit(1, day=0, died=True)
    assert examples(hospice, dead) == {}


def test_what_the_source_says_comes_before_its_dates():
    story = Story(1).visit(1, day=0).event(1, "READMISSION//LATER", day=5).visit(2, day=10, died=True)
    assert examples(story)[1]["label"] == 0


def test_on_an_artificial_calendar_only_a_visit_of_which_the_source_says_it_is_eligible():
    told = Story(1).visit(1, day=0).visit(2, day=6).event(2, "READMISSION//30D", day=11).visit(3, day=12)
    untold = Story(2).visit(1, day=0).visit(2, day=6)
    found = examples(told, untold, artificial=True)
    assert {subject: (row["last_order"], row["label"]) for subject, row in found.items()} == {1: (1, 1)}


def test_the_index_visit_is_drawn_evenly_and_depends_on_the_patient_alone():
    stories = [Story(n) for n in range(1, 601)]
    for story in stories:
        for number in range(3):
            story.visit(number, day=100 * number)
    found = examples(*stories)
    again = examples(*stories[300:][::-1])
    assert again == {subject: row for subject, row in found.items() if subject > 300}
    counts = Counter(row["last_order"] for row in found.values())
    assert all(abs(counts[order] - 200) < 4 * np.sqrt(600 * 2 / 9) for order in range(3))  # 4 standard errors


def test_a_task_says_itself_what_its_label_means_and_where_its_visit_is():
    assert [
        (outcome_of(name), label_visit_follows(name)) for name in ("in_hospital_mortality", "mortality_next_visit")
    ] == [
        (Outcome.death, False),
        (Outcome.death, True),
    ]
    assert (outcome_of("readmission_30d"), label_visit_follows("readmission_30d")) == (Outcome.readmission, False)


def test_without_a_calendar_no_gap_becomes_a_token_and_the_label_is_no_token(tmp_path, config):
    stories = []
    for number in range(1, 31):
        story = Story(number).visit(1, day=0, codes=["DIAG//ICD9CM//4280"]).visit(2, day=6).visit(3, day=12)
        story.event(3, f"READMISSION//{'30D' if number % 3 == 0 else 'NONE'}", day=17)
        stories.append(story.event(3, "OBS//a1c//>7", day=17))
    rows = [row for story in stories for row in story.rows]
    root = write_events(tmp_path / "site", rows, calendar="artificial")
    plan = study_plan(task={"name": "readmission_30d"})
    proposal = prepare(root, config=config(), plan=plan)
    assert sorted(proposal.codes) == ["DX//CCS//108", "LOS//3-6d", "OBS//a1c//>7"]
    encode(root, vocabulary=shared_vocabulary(proposal.codes, plan=plan), plan=plan)
    cohort = load_cohort(root)
    assert sum(int(getattr(cohort, name).label.sum()) for name in ("train", "validation", "held_out")) == 10
    decoder = pl.read_parquet(root / "cohort" / "decoder.parquet")
    assert decoder.filter(token="LABEL")["source_code"].to_list() == ["READMISSION//30D"]
    assert decoder.filter(token="LABEL//0")["source_code"].to_list() == ["READMISSION//NONE"]
