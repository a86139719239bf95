"""Splits by patient, from a keyed hash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairsynth.config import SplitConfig
from fairsynth.visits.split import keyed_hash, split

SHARES = SplitConfig()
ids = st.lists(st.integers(1, 10**9), min_size=10, max_size=60, unique=True)


def by_id(subjects, seed=1, source="mimic3"):
    array = np.array(subjects, dtype=np.int64)
    return dict(zip(array.tolist(), split(array, shares=SHARES, seed=seed, source=source).tolist(), strict=True))


@given(ids, st.randoms(use_true_random=False))
def test_the_order_of_the_patients_does_not_matter(subjects, random):
    shuffled = list(subjects)
    random.shuffle(shuffled)
    assert by_id(shuffled) == by_id(subjects)


@given(ids)
def test_the_splits_have_the_agreed_shares_to_the_nearest_patient(subjects):
    sizes = np.bincount(list(by_id(subjects).values()), minlength=3)
    assert sizes.sum() == len(subjects)
    assert np.abs(sizes - np.array([0.8, 0.1, 0.1]) * len(subjects)).max() <= 1


def test_another_seed_or_another_source_makes_another_split():
    subjects = range(1, 1001)
    base = by_id(subjects)
    assert by_id(subjects, seed=2) != base
    assert by_id(subjects, source="pic") != base
    assert by_id(subjects) == base


def test_neighbouring_ids_are_not_kept_together():
    hashes = keyed_hash(np.arange(100_000, dtype=np.int64), key=123)
    assert len(np.unique(hashes)) == 100_000
    held_out = split(np.arange(100_000), shares=SHARES, seed=1, source="x") == 2
    runs = held_out[1:] & held_out[:-1]  # expected share 0.01, standard error 0.0003
    assert runs.mean() == pytest.approx(0.01, abs=0.0015)


@pytest.mark.parametrize("number", range(1000, 1005))
def test_where_it_is_independent_a_patient_who_comes_moves_nobody_else(number):
    def splits(ids):
        found = split(np.array(ids), shares=SplitConfig(), seed=1, source="mimic3", independent=True)
        return dict(zip(ids, found.tolist(), strict=True))

    before = splits(range(number))
    assert abs(sum(place == 0 for place in before.values()) - 0.8 * number) < 0.06 * number
    for new in range(number, number + 20):
        after = splits([*range(number), new])
        assert all(after[one] == before[one] for one in before)
