"""CSR records: laws of selection and concatenation, round trip, refusal of broken files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fairsynth.errors import ArtefactError
from fairsynth.visits.records import Records

FIELDS = ("codes", "visit_offsets", "patient_offsets", "context", "context_offsets", "group", "label")

visit = st.sets(st.integers(0, 9), max_size=4).map(sorted)
patient = st.tuples(
    st.lists(visit, min_size=1, max_size=3),
    st.sets(st.integers(10, 14)).map(sorted),
    st.integers(0, 2),
    st.integers(0, 1),
)


def build(patients) -> Records:
    """Records from nested lists, the slow way."""
    visits = [codes for visits, *_ in patients for codes in visits]
    offsets = lambda lengths: np.cumsum([0, *lengths]).astype(np.int64)  # noqa: E731 - shorter than its name
    array = lambda values: np.array(values, dtype=np.int64)  # noqa: E731
    return Records(
        codes=array([code for codes in visits for code in codes]),
        visit_offsets=offsets([len(codes) for codes in visits]),
        patient_offsets=offsets([len(item[0]) for item in patients]),
        context=array([token for item in patients for token in item[1]]),
        context_offsets=offsets([len(item[1]) for item in patients]),
        group=array([item[2] for item in patients]),
        label=array([item[3] for item in patients]),
    )


def nested(records: Records):
    """The inverse of `build`."""
    cut = lambda values, offsets, row: values[offsets[row] : offsets[row + 1]].tolist()  # noqa: E731
    return [
        (
            [cut(records.codes, records.visit_offsets, v) for v in range(*records.patient_offsets[i : i + 2])],
            cut(records.context, records.context_offsets, i),
            int(records.group[i]),
            int(records.label[i]),
        )
        for i in range(len(records))
    ]


def equal(left: Records, right: Records) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in FIELDS)


@given(st.lists(patient, min_size=1, max_size=5), st.data())
def test_taking_patients_is_indexing_the_nested_lists(patients, data):
    rows = data.draw(st.lists(st.integers(0, len(patients) - 1), max_size=6))
    taken = build(patients).take(np.array(rows, dtype=np.int64))
    assert nested(taken) == [patients[row] for row in rows]


@given(st.lists(patient, min_size=1, max_size=5), st.data())
def test_a_mask_takes_the_same_patients_as_their_indices(patients, data):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(patients), max_size=len(patients))))
    assert equal(build(patients).take(mask), build(patients).take(np.flatnonzero(mask)))


@given(st.lists(st.lists(patient, max_size=4), min_size=1, max_size=4))
def test_concatenating_records_is_concatenating_the_lists(parts):
    assert nested(Records.concatenate([build(part) for part in parts])) == [item for part in parts for item in part]


@given(st.lists(patient, min_size=2, max_size=6), st.data())
def test_cutting_records_in_two_and_joining_them_changes_nothing(patients, data):
    records = build(patients)
    middle = data.draw(st.integers(0, len(patients)))
    halves = [records.take(np.arange(middle)), records.take(np.arange(middle, len(patients)))]
    assert equal(Records.concatenate(halves), records)


def test_records_survive_their_file(tmp_path):
    records = build([([[1, 2], []], [10, 13], 0, 1), ([[3]], [11], 2, 0)])
    records.save(tmp_path / "train.safetensors")
    assert equal(Records.load(tmp_path / "train.safetensors"), records)


@pytest.mark.parametrize("broken", ["offsets", "dtype", "missing array"])
def test_a_file_whose_arrays_do_not_fit_is_refused(tmp_path, broken):
    path = tmp_path / "train.safetensors"
    build([([[1, 2]], [10], 0, 1)]).save(path)
    arrays = load_file(path)
    if broken == "offsets":
        arrays["visit_offsets"] = np.array([0, 3], dtype=np.int64)
    elif broken == "dtype":
        arrays["codes"] = arrays["codes"].astype(np.int32)
    else:
        del arrays["label"]
    save_file(arrays, path)
    with pytest.raises(ArtefactError):
        Records.load(path)


def test_records_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ArtefactError, match="missing records"):
        Records.load(tmp_path / "nothing.safetensors")
