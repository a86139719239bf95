"""What is compared of a patient, and how far apart two are: against brute force."""

import itertools

import numpy as np
import pytest

from fairsynth.synthesis.release.distances import nearest
from fairsynth.synthesis.release.profiles import profiles
from fairsynth.visits.plain import Patient, from_patients


def profiled(*patients: Patient):
    words = [Patient(visits=[["A", "B", "C", "D", "E", "LOS//1", "LOS//2"]], sex="male", age="old")]
    records, vocabulary = from_patients([*words, *patients], minimum_patients=1)
    return profiles(records, vocabulary=vocabulary).take(np.arange(1, len(patients) + 1))


def person(*visits, sex="male", age="old", label=0):
    return Patient(visits=visits, sex=sex, age=age, label=label)


def test_who_the_patient_is_and_how_long_it_took_make_no_other_record():
    found = profiled(
        person(["A", "B", "LOS//1"], ["C"]), person(["B", "A", "LOS//2"], ["C"], sex="female", age="old", label=1)
    )
    assert found.keys[0] == found.keys[1]
    assert found.sizes.tolist() == [3, 3]


def test_the_order_and_the_borders_of_visits_do():
    found = profiled(person(["A", "B"], ["C"]), person(["C"], ["A", "B"]), person(["A"], ["B", "C"]))
    assert len(set(found.keys)) == 3
    assert (found.content.toarray() == found.content.toarray()[0]).all()


def test_visits_without_a_clinical_code_do_not_hide_a_copy():
    found = profiled(person(["A"], ["B"]), person(["A"], ["LOS//1"], ["B"]), person(["LOS//2"], ["A"], ["B"]))
    assert len(set(found.keys)) == 1


def test_patients_without_a_clinical_code_have_an_empty_record():
    found = profiled(person(["LOS//1"]), person(["A"]), person(["LOS//2"]))
    assert found.keys[0] == found.keys[2] == b""
    assert found.sizes.tolist() == [0, 1, 0]


def random_patients(number, seed):
    rng = np.random.default_rng(seed)
    return [person([code for code in "ABCDE" if rng.random() < 0.4] or ["A"]) for _ in range(number)]


@pytest.mark.parametrize("themselves", [False, True])
def test_distances_are_those_of_brute_force(themselves, monkeypatch):
    monkeypatch.setattr("fairsynth.synthesis.release.distances._CELLS", 70)  # several blocks
    one = profiled(*random_patients(25, 1))
    other = one if themselves else profiled(*random_patients(17, 2))
    sets = [[set(np.flatnonzero(row)) for row in part.content.toarray()] for part in (one, other)]
    found = nearest(one, other, themselves=themselves)
    for row, own in enumerate(sets[0]):
        rest = [each for place, each in enumerate(sets[1]) if not (themselves and place == row)]
        assert found.hamming[row] == min(len(own ^ each) for each in rest)
        assert found.jaccard[row] == pytest.approx(min(len(own ^ each) / len(own | each) for each in rest), abs=1e-6)


def test_a_patient_is_left_out_of_its_own_comparison_by_index_so_that_a_twin_is_at_distance_0():
    twins = profiled(person(["A", "B"]), person(["A", "B"]), person(["C", "D", "E"]))
    assert nearest(twins, twins, themselves=True).hamming.tolist() == [0, 0, 5]


def test_nobody_is_near_nobody():
    found = profiled(person(["A"]), person(["B"]))
    lone = found.take(np.array([0]))
    assert nearest(lone, lone, themselves=True).jaccard.tolist() == [1]
    assert np.isinf(nearest(found, found.take(np.zeros(0, dtype=np.int64))).hamming).all()


def test_a_key_is_a_record():
    everyone = [profiled(person(*[list(visit) for visit in way])) for way in itertools.permutations(["AB", "C", "DE"])]
    assert len({each.keys[0] for each in everyone}) == 6
