"""What lies at the wrong time is counted, and a token that needs the future is found."""

import polars as pl
import pytest
from quality_stories import at, frame, person

from fairsynth.config import CohortConfig, LevelsConfig, TaskConfig
from fairsynth.quality.events import inventory
from fairsynth.quality.order import describe_order, order_findings, with_cohort
from fairsynth.visits.catalogue import catalogue
from fairsynth.visits.flow import Flow
from fairsynth.visits.patients import read_people, read_visits, select
from fairsynth.visits.tasks import in_hospital_mortality
from fairsynth.visits.tokens import read_tokens, record_visits

CODES = pl.DataFrame(schema={"code": pl.String, "description": pl.String, "parent_codes": pl.List(pl.String)})


def order_of(*people, minimum: int = 1, calendar: bool = True):
    events = frame([row for rows in people for row in rows])
    return describe_order(
        [events],
        visits=read_visits(events.collect(), attribute="ETHNICITY"),
        people=read_people(events.collect()),
        calendar=calendar,
        minimum=minimum,
    )


def test_events_before_birth_and_care_after_death_are_counted_by_day():
    newborn = [*person(1, born=at(0.5)), (1, at(-2), "DRUG//before", None, 10, None)]
    dead = [
        *person(2),
        (2, at(1), "MEDS_DEATH", None, None, None),
        (2, at(1.1), "DRUG//same day", None, 20, None),
        (2, at(3), "DRUG//after", None, 20, None),
        (2, at(5), "DIAG//ICD9CM//4019", None, 20, None),
    ]
    found = order_of(newborn, dead)
    assert (found.before_birth.count, found.after_death.count) == (1, 1)
    hidden = order_of(newborn, dead, minimum=11)
    assert (hidden.before_birth.count, hidden.after_death.count) == ("≥1", "≥1")


def test_visits_out_of_order_and_copies_of_people_are_counted():
    overlapping = [
        *person(1),
        (1, at(4), "ADMISSION//URGENT", None, 11, None),
        (1, at(3), "DISCHARGE//HOME", None, 11, None),
    ]
    found = order_of(overlapping, person(2), person(3), person(4, sex="M"))
    assert found.visits_overlapping.count == 1
    assert found.visits_ending_before_start.count == 1
    assert found.repeated_people.count == 2  # two women share birth and admission with the first
    assert order_of(person(2), person(3), calendar=False).repeated_people is None
    told = " ".join(finding.what for finding in order_findings(found))
    assert "same person under two identifiers cannot be recognised" in told
    assert "end before they start: 1 of 5" in told


@pytest.fixture
def cohort():
    """Two people with an early and a late drug; the prediction time is two days after admission."""
    rows = [
        row
        for subject in (1, 2)
        for row in [
            *person(subject),
            (subject, at(1), "DRUG//Heparin", None, subject * 10, None),
            (subject, at(4), "DRUG//Morphine", None, subject * 10, None),
            (subject, at(5), "DIAG//ICD9CM//4280", None, subject * 10, None),
        ]
    ]
    events = frame(rows)
    visits = read_visits(events.collect(), attribute="ETHNICITY")
    visits = select(visits, people=read_people(events.collect()), cohort=CohortConfig(), flow=Flow())
    examples = in_hospital_mortality(visits, TaskConfig(observation_hours=48))
    records = record_visits(visits, examples, maximum_visits=5, flow=Flow())
    shards = [events.filter(pl.col("subject_id") == subject) for subject in (1, 2)]
    known = catalogue(inventory(shards), codes=CODES, levels=LevelsConfig(), exclude_codes=(), flow=Flow())
    nobody = pl.Series([], dtype=pl.Int64)
    made = read_tokens(shards, records=records, catalogue=known, training=nobody, flow=Flow())
    return shards, records, made.visits.cast({"token": pl.String}), known


def checked(cohort, *, tokens: pl.DataFrame, patients: pl.DataFrame):
    shards, records, _, known = cohort
    order = order_of(person(1), person(2))
    return with_cohort(order, shards, records=records, tokens=tokens, patients=patients, catalogue=known)


def test_tokens_do_not_change_when_the_future_is_deleted(cohort):
    tokens = cohort[2]
    patients = pl.DataFrame({"subject_id": [1, 2], "split": ["train", "held_out"]})
    assert set(tokens["token"]) == {"RX//heparin", "DX//CCS//108"}
    found = checked(cohort, tokens=tokens, patients=patients)
    assert (found.events_after_prediction, found.coded_after_prediction) == (2, 2)
    assert (found.tokens_that_need_the_future, found.patients_in_two_splits) == (0, 0)


def test_a_token_that_needs_the_future_and_a_patient_in_two_splits_are_errors(cohort):
    leak = pl.DataFrame({"subject_id": [2], "position": [0], "token": ["RX//morphine"]}).cast(cohort[2].schema)
    patients = pl.DataFrame({"subject_id": [1, 2, 2], "split": ["train", "train", "held_out"]})
    found = checked(cohort, tokens=pl.concat([cohort[2], leak]), patients=patients)
    assert (found.tokens_that_need_the_future, found.patients_in_two_splits) == (1, 1)
    assert [finding.level for finding in order_findings(found)][:2] == ["error", "error"]
