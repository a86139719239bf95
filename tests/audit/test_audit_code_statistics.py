from __future__ import annotations

import itertools

import audit_toy as toy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from fairsynth.audit.code_statistics import code_statistics, coefficient, on_union, r2
from fairsynth.visits.records import Records

CODES = 4


def records_of(patients: list[list[list[int]]]) -> Records:
    """Patients as lists of visits as lists of codes; one context token, group 0, label 0."""
    visits = [sorted(set(visit)) for patient in patients for visit in patient]
    zeros = np.zeros(len(patients), dtype=np.int64)
    return Records(
        codes=np.array([code for visit in visits for code in visit], dtype=np.int64),
        visit_offsets=np.cumsum([0, *(len(visit) for visit in visits)]),
        patient_offsets=np.cumsum([0, *(len(patient) for patient in patients)]),
        context=np.full(len(patients), CODES, dtype=np.int64),
        context_offsets=np.arange(len(patients) + 1),
        group=zeros,
        label=zeros,
    )


TWO = records_of([[[0, 1], [1, 2]], [[0, 1, 3]]])
visit = st.lists(st.integers(0, CODES - 1), max_size=CODES)
cohorts = st.lists(st.lists(visit, min_size=1, max_size=3), min_size=1, max_size=5)


def test_each_share_of_two_patients_is_the_one_counted_by_hand():
    found = code_statistics(TWO, codes=CODES)
    assert found.visit == pytest.approx([2 / 3, 1, 1 / 3, 1 / 3])
    assert found.record == pytest.approx([1, 1, 1 / 2, 1 / 2])
    same, after = found.same_visit.toarray(), found.sequential.toarray()
    assert same[0, 1] == pytest.approx(2 / 3) and same[1, 2] == same[0, 3] == same[1, 3] == pytest.approx(1 / 3)
    assert same.sum() == pytest.approx(5 / 3)
    assert {(0, 1), (0, 2), (1, 1), (1, 2)} == set(zip(*map(np.ndarray.tolist, after.nonzero()), strict=True))
    assert after.sum() == pytest.approx(4)  # one visit follows another, so each of its pairs has share 1


@given(cohorts)
def test_statistics_equal_counting_over_dense_visits(patients):
    dense = [[np.isin(np.arange(CODES), codes) for codes in patient] for patient in patients]
    visits = np.array([row for patient in dense for row in patient], dtype=float)
    pairs = [(before, after) for patient in dense for before, after in itertools.pairwise(patient)]
    found = code_statistics(records_of(patients), codes=CODES)
    assert found.visit == pytest.approx(visits.mean(axis=0))
    assert found.record == pytest.approx(np.mean([np.any(patient, axis=0) for patient in dense], axis=0))
    assert found.same_visit.toarray() == pytest.approx(np.triu(visits.T @ visits, k=1) / len(visits))
    expected = np.mean([np.outer(*pair) for pair in pairs], axis=0) if pairs else np.zeros((CODES, CODES))
    assert found.sequential.toarray() == pytest.approx(expected)


@given(cohorts)
def test_what_is_compared_with_itself_has_an_r2_of_one_wherever_it_varies(patients):
    statistics = code_statistics(records_of(patients), codes=CODES)
    assert all(value == 1 or np.isnan(value) for value in r2(statistics, statistics).values())


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20))
def test_the_coefficient_is_that_of_scikit_learn(pairs):
    real, other = np.array(pairs).T
    if ((real - real.mean()) ** 2).sum() > 1e-6:
        assert coefficient(real, other) == pytest.approx(r2_score(real, other))


def test_a_pair_that_only_synthetic_patients_have_counts_against_them():
    left, right = records_of([[[0, 1]], [[0, 1]], [[2, 3]]]), records_of([[[0, 1]], [[0, 1]], [[0, 3]]])
    real, other = (code_statistics(each, codes=CODES).same_visit for each in (left, right))
    values = on_union(real, other)
    assert values[0] == pytest.approx([2 / 3, 0, 1 / 3]) and values[1] == pytest.approx([2 / 3, 1 / 3, 0])


def test_pairs_tell_apart_what_single_codes_do_not():
    """Codes of the same prevalence, drawn together in one and each by itself in the other."""
    together = records_of([[[0, 1]], [[2, 3]]] * 50)
    apart = records_of([[[0, 2]], [[1, 3]]] * 50)
    first, second = (code_statistics(each, codes=CODES) for each in (together, apart))
    assert first.visit == pytest.approx(second.visit)
    assert coefficient(*on_union(first.same_visit, second.same_visit)) < 0


def test_statistics_leave_the_records_as_they_were():
    made = toy.draw([[20, 5], [20, 5]], seed=4)
    before = made.codes.copy(), made.visit_offsets.copy()
    code_statistics(made, codes=toy.CODES)
    assert np.array_equal(before[0], made.codes) and np.array_equal(before[1], made.visit_offsets)
