"""Codes that are proposed under noise: what one patient changes, and what shows of it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairsynth.federation.noised.proposals import MOST_CODES, counted_codes, proposed, threshold
from fairsynth.governance.noise import UNIT, discrete_gaussian

TOKENS = tuple(f"DX//{number}" for number in range(40))
CARRIED = st.lists(st.sets(st.integers(0, len(TOKENS) - 1), max_size=30), min_size=1, max_size=12)


def pairs(patients):
    """(M, 2) of sets of tokens, a patient each."""
    rows = [(row, token) for row, own in enumerate(patients) for token in sorted(own)]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def counted(patients, *, bound=3.0, tokens=TOKENS):
    return counted_codes(pairs(patients), tokens, bound=bound)


@settings(max_examples=200, deadline=None)
@given(patients=CARRIED, bound=st.floats(0.5, 10))
def test_one_patient_more_changes_the_counts_by_the_bound_at_most(patients, bound):
    with_, without = counted(patients, bound=bound), counted(patients[:-1], bound=bound)
    assert np.linalg.norm((with_ - without).astype(float)) <= bound * UNIT


def test_patients_within_the_bound_count_once_a_token():
    found = counted([{0, 1}, {1, 2}, {1}]) / UNIT
    assert found[:4] == pytest.approx([1, 3, 1, 0], abs=1e-4)


def test_the_order_of_patients_changes_nothing():
    patients = [{0, 5}, set(range(30)), {7}]
    assert np.array_equal(counted(patients), counted(patients[::-1]))


def test_nobody_gives_zeros():
    assert not counted([set()]).any()


def test_of_a_patient_with_very_many_tokens_those_count_that_come_first_by_hash():
    tokens = tuple(f"RX//{number}" for number in range(MOST_CODES + 100))
    found = counted([set(range(len(tokens)))], tokens=tokens)
    first = sorted(range(len(tokens)), key=lambda at: hashlib.sha256(tokens[at].encode()).digest())[:MOST_CODES]
    assert set(np.flatnonzero(found)) == set(first)
    assert np.linalg.norm(found.astype(float)) <= 3.0 * UNIT


@pytest.mark.parametrize("own", [1, 4, 40, 400])
def test_tokens_of_one_patient_alone_show_as_seldom_as_was_charged(own):
    bound, ratio, chance, trials = 4.0, 3.0, 0.05, 4_000
    tokens = tuple(f"RX//{number}" for number in range(own))
    exact = counted([set(range(own))], bound=bound, tokens=tokens)
    least = threshold(bound=bound, sigma=ratio * bound, chance=chance)
    rng = np.random.default_rng(own)  # continuous noise of the same scale: 4,000 draws of the exact one take minutes
    noised = exact + rng.normal(scale=ratio * bound * UNIT, size=(trials, own))
    shown = (noised / UNIT >= least).any(axis=1).mean()
    assert shown <= chance + 3 * (chance / trials) ** 0.5
    if own == 400:
        assert shown >= chance / 3  # and the threshold is not needlessly high


def test_the_noise_that_is_drawn_is_as_wide_as_the_threshold_takes_it():
    drawn = discrete_gaussian(np.zeros(3_000, dtype=np.int64), sigma=3.0 * UNIT) / UNIT
    assert drawn.std() == pytest.approx(3.0, rel=0.1)


def test_a_smaller_chance_asks_for_more():
    low, high = (threshold(bound=4.0, sigma=10.0, chance=chance) for chance in (1e-3, 1e-7))
    assert low < high


def test_what_is_proposed_is_above_the_threshold_the_commonest_first_and_sorted():
    noised = np.array([30.5, 9.9, 20.2, 10.0]) * UNIT
    found = proposed(noised.astype(np.int64), ("d", "c", "b", "a"), least=10.0, most=2)
    assert found == {"b": 20, "d": 30}
    assert list(found) == ["b", "d"]
    assert "a" in proposed(noised.astype(np.int64), ("d", "c", "b", "a"), least=10.0, most=9)
