"""Lists and tables of patients -> records, and back."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from fairsynth.errors import CohortError
from fairsynth.visits.cohort import fits
from fairsynth.visits.plain import Patient, from_frames, from_patients, to_frames, to_patients

ANNA = Patient(visits=(("DX//I50", "DX//N17"), ("DX//I50",)), group="north", label=1, sex="female", age="70+")
BO = Patient(visits=(("DX//N17",), (), ("DX//J18",)), group="south", sex="male", age="0-69", phenotypes=("asthma",))
EVENTS = pl.DataFrame(
    {
        "patient": ["bo", "anna", "anna", "anna", "bo"],
        "visit": [4, 1, 9, 1, 7],
        "code": ["DX//N17", "DX//N17", "DX//I50", "DX//I50", "DX//J18"],
    }
)
PEOPLE = pl.DataFrame(
    {"patient": ["bo", "anna"], "group": ["south", "north"], "label": [0, 1], "sex": ["male", "female"]}
)


def test_patients_come_back_as_they_were():
    records, vocabulary = from_patients([ANNA, BO], minimum_patients=1)
    assert vocabulary.codes == ("DX//I50", "DX//J18", "DX//N17")
    assert (vocabulary.groups, vocabulary.ages) == (("north", "south"), ("0-69", "70+"))
    assert fits(records, vocabulary=vocabulary)
    assert list(to_patients(records, vocabulary=vocabulary)) == [ANNA, BO]


def test_codes_that_few_patients_carry_do_not_enter_a_new_vocabulary():
    records, vocabulary = from_patients([ANNA, BO], minimum_patients=2)
    assert vocabulary.codes == ("DX//N17",)
    assert [one.visits for one in to_patients(records, vocabulary=vocabulary)] == [
        (("DX//N17",), ()),
        (("DX//N17",), (), ()),
    ]
    with pytest.raises(CohortError, match="a code that 11 of them carry"):
        from_patients([ANNA, BO])


def test_what_nobody_tells_is_no_token():
    records, vocabulary = from_patients([{"visits": [["A"], ["B"]]}, {"visits": [["A"]]}], minimum_patients=1)
    assert (vocabulary.groups, vocabulary.sexes, vocabulary.ages, vocabulary.phenotypes) == (("all",), (), (), ())
    assert [vocabulary.names[token] for token in records.context] == ["GROUP//all", "GROUP//all"]
    assert next(to_patients(records, vocabulary=vocabulary)) == Patient(visits=(("A",), ("B",)))


@pytest.mark.parametrize("make", [lambda frame: frame, lambda frame: frame.to_pandas()], ids=["polars", "pandas"])
def test_tables_give_what_lists_give(make):
    records, vocabulary = from_frames(make(EVENTS), make(PEOPLE), minimum_patients=1)
    bo, anna = to_patients(records, vocabulary=vocabulary)
    assert bo == Patient(visits=(("DX//N17",), ("DX//J18",)), group="south", sex="male")
    assert anna == Patient(visits=ANNA.visits, group="north", label=1, sex="female")


def test_a_table_of_events_is_enough():
    records, vocabulary = from_frames(EVENTS, minimum_patients=1)
    assert [one.visits for one in to_patients(records, vocabulary=vocabulary)] == [
        ANNA.visits,
        (("DX//N17",), ("DX//J18",)),
    ]


def test_visits_are_ordered_by_date():
    dates = pd.to_datetime(["2020-05-01", "2019-01-01"])
    events = pd.DataFrame({"patient": [1, 1], "visit": dates, "code": ["LATE", "EARLY"]})
    records, vocabulary = from_frames(events, minimum_patients=1)
    assert next(to_patients(records, vocabulary=vocabulary)).visits == (("EARLY",), ("LATE",))


def test_records_become_tables_and_the_tables_the_same_records():
    records, vocabulary = from_frames(EVENTS, PEOPLE, minimum_patients=1)
    events, people = to_frames(records, vocabulary=vocabulary)
    assert people.columns == ["patient", "group", "label", "sex", "age"]
    again, same = from_frames(events, people, minimum_patients=1)
    assert same == vocabulary
    for field in ("codes", "visit_offsets", "patient_offsets", "context", "context_offsets", "group", "label"):
        assert np.array_equal(getattr(records, field), getattr(again, field)), field


def test_codes_that_a_given_vocabulary_lacks_are_left_out_and_counted(caplog):
    _, vocabulary = from_patients([{"visits": [["A"]]}], minimum_patients=1)
    records, _ = from_patients([{"visits": [["A", "B"], ["B"]]}], vocabulary=vocabulary)
    assert next(to_patients(records, vocabulary=vocabulary)).visits == (("A",), ())
    assert "2 of 3 codes" in caplog.text


@pytest.mark.parametrize(
    ("patients", "said"),
    [
        ([], "no patients"),
        ([{"visits": []}, ANNA], "without a visit: 1 of 2"),
        ([{"visits": ["I50"]}], "visits that are a text: 1"),
        ([{"visits": [["secret", ""]]}], "empty codes: 1 of 2"),
        ([{"visits": [["secret"]], "label": 2}], "labels out of range: 1 of 1"),
        ([{"visits": [["secret"]], "label": "secret"}], "labels out of range: 1 of 1"),
        ([{"visits": [["secret"]], "sex": "secret"}], "sexes of another name: 1 of 1"),
        ([{"visits": [["secret"]], "group": None}], "without a group: 1 of 1"),
        ([ANNA, {"visits": [["secret"]], "age": "secret"}], "no sex: 1 of 2"),
        ([{"visits": [["secret"]], "secrets": 1}], "not a patient: number 0"),
    ],
)
def test_what_is_wrong_is_told_in_counts_without_a_patients_value(patients, said):
    with pytest.raises(CohortError, match=said) as caught:
        from_patients(patients, minimum_patients=1)
    assert "secret" not in str(caught.value)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(CohortError) as caught:
        from_patients([{"visits": [], "label": 3}, {"visits": [[""]], "sex": "x"}], minimum_patients=1)
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"group": "east"}, "unknown or missing group"),
        ({"age": None}, "unknown or missing age"),
        ({"phenotypes": ["gout"]}, "unknown phenotypes"),
    ],
)
def test_patients_that_a_given_vocabulary_cannot_say_are_refused(changed, said):
    _, vocabulary = from_patients([ANNA, BO], minimum_patients=1)
    patient = {"visits": [["DX//I50"]], "group": "north", "sex": "male", "age": "70+", **changed}
    with pytest.raises(CohortError, match=said):
        from_patients([patient], vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("events", "people", "said"),
    [
        (EVENTS.drop("visit"), PEOPLE, "missing column: events  visit"),
        (EVENTS, PEOPLE.drop("patient"), "missing column: patients  patient"),
        (
            EVENTS.with_columns(visit=pl.when(pl.col("visit") > 4).then("visit")),
            PEOPLE,
            "codes without a visit: 3 of 5",
        ),
        (EVENTS.with_columns(patient=None), None, "codes of nobody: 5 rows"),
        (EVENTS, PEOPLE.head(1), "not listed: 3 rows of events"),
        (EVENTS, pl.concat([PEOPLE, PEOPLE]), "listed twice: 2 rows"),
        (EVENTS.filter(pl.col("patient") == "bo"), PEOPLE, "without a visit: 1 of 2"),
    ],
)
def test_tables_that_do_not_fit_together_are_refused(events, people, said):
    with pytest.raises(CohortError, match=said) as caught:
        from_frames(events, people, minimum_patients=1)
    assert "anna" not in str(caught.value)
