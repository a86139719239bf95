"""Tokens of a record: nothing after the prediction time, at most two bins a test, intervals, truncation, tasks."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from visits_stories import PARENTS, START, Story

from fairsynth.config import CohortConfig, LevelsConfig, TaskConfig
from fairsynth.errors import ConfigError
from fairsynth.extraction.columns import EVENT_SCHEMA
from fairsynth.visits.catalogue import catalogue
from fairsynth.visits.flow import Flow
from fairsynth.visits.labs import BINS, NORMAL
from fairsynth.visits.patients import read_people, read_visits, select
from fairsynth.visits.shards import inventory
from fairsynth.visits.tasks import in_hospital_mortality, load_task, mortality_next_visit
from fairsynth.visits.tokens import read_tokens, record_visits

HOURS = 48


def parents() -> pl.DataFrame:
    schema = {"code": pl.String, "description": pl.String, "parent_codes": pl.List(pl.String)}
    columns = {"code": list(PARENTS), "description": [None] * len(PARENTS), "parent_codes": list(PARENTS.values())}
    return pl.DataFrame(columns, schema=schema)


def cohort_visits(stories: list[Story], **cohort) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = [row for story in stories for row in story.rows]
    events = pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row", strict=False)
    visits = read_visits(events, attribute="ETHNICITY")
    return events, select(visits, people=read_people(events), cohort=CohortConfig(**cohort), flow=Flow())


def tokens_of(
    stories, *, task=in_hospital_mortality, maximum_visits=48, exclude=(), flow=None
) -> dict[int, list[set[str]]]:
    """Subject -> the token set of each visit of its record."""
    flow = flow or Flow()
    events, visits = cohort_visits(stories)
    examples = task(visits, TaskConfig(observation_hours=HOURS))
    records = record_visits(visits, examples, maximum_visits=maximum_visits, flow=flow)
    shards = [events.lazy()]
    table = catalogue(inventory(shards), codes=parents(), levels=LevelsConfig(), exclude_codes=exclude, flow=flow)
    training = records["subject_id"].unique()
    found = read_tokens(shards, records=records, catalogue=table, training=training, flow=flow).visits
    result = {subject: [set() for _ in range(len(rows))] for (subject,), rows in records.group_by("subject_id")}
    for subject, position, token in found.iter_rows():
        result[subject][position].add(token)
    return result


drug_days = st.lists(
    st.sampled_from([10.0, 12.0]) | st.floats(-1, 30), max_size=12
)  # 10, 12: the very prediction times


@settings(max_examples=40, deadline=None)
@given(drug_days, st.sampled_from([in_hospital_mortality, mortality_next_visit]))
def test_no_timed_event_after_the_prediction_time_is_in_the_record(days, task):
    """The oracle is a loop over the events: a drug with a name of its own at each time, in the visit it falls into."""
    story = Story(1).visit(1, day=0, days=5).visit(2, day=10, days=15)
    expected: list[set[str]] = [set(), set()]
    end = {in_hospital_mortality: 10 + HOURS / 24, mortality_next_visit: 10}[task]
    for index, day in enumerate(days):
        number = 1 if day < 9 else 2
        story.event(number, f"DRUG//drug{chr(97 + index)}", day=day)
        exact = timedelta(days=day)  # the time that is stored, rounded to microseconds
        if exact <= timedelta(days=end):
            expected[number - 1].add(f"RX//drug{chr(97 + index)}")
    record = tokens_of([story], task=task)[1]
    assert [{token for token in visit if token.startswith("RX")} for visit in record] == expected[: len(record)]


def test_diagnoses_of_the_open_visit_are_in_the_record_and_its_outcome_is_not():
    story = Story(1).visit(
        1, day=0, days=20, died=True, codes=["DIAG//ICD9CM//4280", "PROC//ICD9PROC//3961", "DRUG//Late"]
    )
    assert tokens_of([story])[1] == [{"DX//CCS//108", "PX//CLASS//cardiopulmonary_bypass"}]


def test_the_next_visit_task_sees_nothing_of_the_last_visit():
    story = (
        Story(1).visit(1, day=0, codes=["DIAG//ICD9CM//4280"]).visit(2, day=20, died=True, codes=["DIAG//ICD9CM//5849"])
    )
    assert tokens_of([story], task=mortality_next_visit)[1] == [{"DX//CCS//108", "LOS//3-6d"}]


def test_codes_given_at_a_discharge_after_the_prediction_time_are_left_out_of_a_complete_visit():
    overlapping = Story(1).visit(1, day=0, days=30, codes=["DIAG//ICD9CM//4280"]).visit(2, day=10, days=5)
    assert tokens_of([overlapping])[1] == [set(), {"GAP//0d"}]


def test_an_event_of_another_visit_or_of_none_is_not_a_token():
    story = Story(1).visit(1, day=0)
    story.rows.append((1, START, "DRUG//Furosemide", None, None, None))
    story.rows.append((1, None, "DRUG//Heparin", None, 101, None))  # no time: not known before any prediction
    assert tokens_of([story])[1] == [set()]


observations = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([0.2, 0.3, 0.9, 1.3, 2.0, 3.9, 5.0, 9.0])), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(observations)
def test_a_test_gives_its_last_bin_and_its_most_abnormal_bin(values):
    """Creatinine; the oracle sorts by hand. Values at one time count in the order of their bins."""
    story = Story(1).visit(1, day=0)
    for hour, value in values:
        story.event(1, "LAB//50912", day=hour / 24, value=value, unit="mg/dL")
    index = {value: (1 if value < 0.5 else 4 if value > 4 else 3 if value > 1.3 else 2) for _, value in values}
    seen = sorted((hour, index[value]) for hour, value in values)
    worst = max(seen, key=lambda item: (abs(item[1] - NORMAL), *item))
    expected = {f"LAB//2160-0//{BINS[item[1]]}" for item in (seen[-1], worst)}
    assert tokens_of([story])[1] == [expected]


def test_two_units_of_one_test_give_the_same_token():
    mine = Story(1).visit(1, day=0).event(1, "LAB//50912", day=1, value=2.0, unit="mg/dL")
    theirs = Story(2).visit(1, day=0).event(1, "LAB//5032", day=1, value=176.8, unit="umol/L")
    found = tokens_of([mine, theirs])
    assert found[1] == found[2] == [{"LAB//2160-0//high"}]


def test_values_without_code_unit_number_or_plausibility_are_dropped_and_counted():
    story = Story(1).visit(1, day=0)
    story.event(1, "LAB//50800", day=1, value=1.0, unit="mg/dL")  # an item without LOINC code
    story.event(1, "LAB//50912", day=1, value=1.0, unit="furlong")
    story.event(1, "LAB//50912", day=1, unit="mg/dL")
    story.event(1, "LAB//50912", day=1, value=5000.0, unit="mg/dL")
    flow = Flow()
    assert tokens_of([story], flow=flow)[1] == [set()]
    assert flow.counts["lab_events_in_events"] == 4
    assert flow.counts["lab_events_without_known_loinc_or_unit"] == 2
    assert flow.counts["lab_values_missing_or_not_plausible"] == 2


def test_a_test_that_was_not_repeated_is_not_carried_forward():
    story = Story(1).visit(1, day=0).visit(2, day=40).event(1, "LAB//50912", day=1, value=2.0, unit="mg/dL")
    assert tokens_of([story])[1] == [{"LAB//2160-0//high", "LOS//3-6d"}, {"GAP//30-89d"}]


def test_excluded_codes_give_no_tokens():
    story = Story(1).visit(1, day=0, codes=["DIAG//ICD9CM//4280", "DIAG//ICD9CM//5849"])
    story.event(1, "LAB//50912", day=1, value=2.0, unit="mg/dL")
    flow = Flow()
    assert tokens_of([story], exclude=("DIAG//ICD9CM//428", "LAB//"), flow=flow)[1] == [{"DX//CCS//157"}]
    assert flow.counts["events_excluded_by_code"] == 2


def test_long_histories_keep_their_last_visits_and_the_cut_is_counted():
    story = Story(1)
    for number in range(1, 6):
        story.visit(number, day=20 * number, codes=[f"PROC//ICD9PROC//{10 * number}"])
    flow = Flow()
    record = tokens_of([story], maximum_visits=2, flow=flow)[1]
    assert record == [{"PX//CLASS//blood_and_lymph", "LOS//3-6d"}, {"PX//CLASS//digestive", "GAP//7-29d"}]
    assert (flow.counts["visits_in_records"], flow.counts["visits_cut_off"]) == (2, 3)


def test_tasks_label_the_last_visit():
    stories = [
        Story(1).visit(1, day=0, died=True),
        Story(2).visit(1, day=0).visit(2, day=20, died=True),
        Story(3).visit(1, day=0, died=True).visit(2, day=20),
    ]
    _, visits = cohort_visits(stories)
    stay = in_hospital_mortality(visits, TaskConfig(observation_hours=24)).rows_by_key(
        "subject_id", named=True, unique=True
    )
    assert {subject: row["label"] for subject, row in stay.items()} == {1: 1, 2: 1, 3: 0}
    assert stay[1]["predicted_at"] == START + timedelta(hours=24)
    following = mortality_next_visit(visits, TaskConfig()).rows_by_key("subject_id", named=True, unique=True)
    assert {subject: (row["label"], row["last_order"]) for subject, row in following.items()} == {2: (1, 0), 3: (0, 0)}
    assert following[2]["predicted_at"] == START + timedelta(days=20)


def test_tasks_are_found_by_name_and_an_unknown_one_is_refused_with_the_known_ones():
    assert load_task("mortality_next_visit") is mortality_next_visit
    with pytest.raises(ConfigError, match="in_hospital_mortality, mortality_next_visit"):
        load_task("mortality_next_vist")


def test_filters_keep_the_visits_that_the_site_asks_for():
    child = Story(1, born=START - timedelta(days=400)).visit(1, day=0)
    adult = Story(2).visit(1, day=0).visit(2, day=30).event(2, "UNIT//MICU", day=30)
    shifted = Story(3, born=START - timedelta(days=300 * 366)).visit(1, day=0).event(1, "UNIT//SICU", day=0)
    nameless = Story(4).visit(1, day=0)
    nameless.rows = [row for row in nameless.rows if not row[2].startswith("GENDER")]
    stories = [child, adult, shifted, nameless]
    subjects = lambda **cohort: cohort_visits(stories, **cohort)[1]["subject_id"].to_list()  # noqa: E731
    assert subjects() == [1, 2, 2, 3]
    assert subjects(minimum_age_years=16) == [2, 2, 3]
    assert subjects(maximum_age_years=18) == [1]
    assert subjects(minimum_age_years=89) == [3]
    assert subjects(minimum_visits=2) == [2, 2]
    assert subjects(require_unit=("MICU", "CCU")) == [2]


def test_a_gap_counts_from_the_previous_visit_that_is_in_the_cohort():
    story = Story(1).visit(1, day=0, days=5).visit(2, day=10, days=1).visit(3, day=41, days=2)
    story.event(1, "UNIT//MICU", day=0).event(3, "UNIT//MICU", day=41)
    _, visits = cohort_visits([story], require_unit=("MICU",))
    assert visits["gap_days"].to_list() == [None, 36.0]
    assert visits["los_days"].to_list() == [5.0, 2.0]


def test_a_visit_without_discharge_ends_with_its_last_event():
    story = Story(1).visit(1, day=0, days=5).event(1, "UNIT//MICU", day=3)
    story.rows = [row for row in story.rows if not row[2].startswith("DISCHARGE")]
    assert cohort_visits([story])[1]["los_days"].to_list() == [3.0]
