from __future__ import annotations

import audit_toy as toy
import numpy as np
import pytest

from fairsynth.audit.copies import copied_records, copied_visits, nearest

TRAIN = toy.draw([[40, 10], [40, 10]], seed=1)
FRESH = toy.draw([[40, 10], [40, 10]], seed=2)


def test_the_nearest_distance_is_that_of_comparing_every_pair_of_sets():
    def bags(records):
        parts = np.split(records.codes, records.visit_offsets[records.patient_offsets[1:-1]])
        return [set(part.tolist()) for part in parts]

    train = bags(TRAIN)
    expected = [min(1 - len(own & other) / len(own | other) for other in train) for own in bags(FRESH)]
    assert nearest(FRESH, train=TRAIN, codes=toy.CODES) == pytest.approx(expected)


def test_training_patients_are_at_distance_zero_and_wholly_copied():
    assert nearest(TRAIN, train=TRAIN, codes=toy.CODES) == pytest.approx(np.zeros(len(TRAIN)))
    assert copied_visits(TRAIN, train=TRAIN) == copied_records(TRAIN, train=TRAIN) == 1


def test_a_generator_that_repeats_half_of_its_patients_is_seen_to():
    half = type(FRESH).concatenate([FRESH.take(np.arange(50)), TRAIN.take(np.arange(50))])
    assert copied_records(half, train=TRAIN) == pytest.approx(0.5, abs=0.02)
    assert copied_records(FRESH, train=TRAIN) < 0.02


def test_equal_codes_divided_otherwise_over_visits_are_no_copy():
    """One visit with two codes against two visits with one each."""
    args = {"group": np.zeros(1, int), "label": np.zeros(1, int)}
    both, one, other = (np.isin(np.arange(toy.CODES), codes) for codes in ([1, 2], [1], [2]))
    single = toy.records(both[None], visits=np.array([1]), rng=np.random.default_rng(0), **args)
    double = toy.records(np.stack([one, other]), visits=np.array([2]), rng=np.random.default_rng(0), **args)
    assert nearest(single, train=double, codes=toy.CODES) == pytest.approx([0])
    assert copied_records(single, train=double) == copied_visits(single, train=double) == 0
