"""Replies -> the global model and the pooled counts."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairsynth.errors import ProtocolError
from fairsynth.federation.aggregate import WeightedMean, average, pool, weights_sha256

SITES = ("a", "b", "c", "d")


def sites_of(seed):
    draw = np.random.default_rng(seed)
    weights = {
        site: {
            "w": draw.normal(size=(5, 3)).astype(np.float32),
            "b": (draw.normal(size=4) * 10.0 ** draw.integers(-6, 6, 4)).astype(np.float32),
        }
        for site in SITES
    }
    return weights, {site: int(draw.integers(1, 5000)) for site in SITES}


@given(st.integers(0, 2**32))
def test_the_average_has_the_same_bytes_in_every_order_of_arrival(seed):
    weights, patients = sites_of(seed)
    results = {
        weights_sha256(average({site: weights[site] for site in order}, patients=patients))
        for order in permutations(SITES)
    }
    assert len(results) == 1


@given(st.integers(0, 2**32))
def test_the_average_is_the_exact_weighted_mean_rounded(seed):
    weights, patients = sites_of(seed)
    result = average(weights, patients=patients)
    total = sum(patients.values())
    for name in ("w", "b"):
        for index in np.ndindex(result[name].shape):
            terms = [(Fraction(float(weights[site][name][index])), patients[site]) for site in SITES]
            exact = sum(value * number for value, number in terms) / total
            largest = max(abs(value * number) for value, number in terms) / total
            assert abs(Fraction(float(result[name][index])) - exact) <= abs(exact) / 2**23 + largest / 2**50
            assert result[name].dtype == np.float32


def test_the_average_of_one_site_is_that_site():
    weights, _ = sites_of(3)
    assert weights_sha256(average({"a": weights["a"]}, patients={"a": 17})) == weights_sha256(weights["a"])


def test_an_average_of_nobody_is_refused():
    with pytest.raises(ProtocolError, match="nothing to average"):
        WeightedMean().mean()


@given(st.lists(st.integers(0, 2**52), min_size=4, max_size=4))
def test_integer_sums_are_exact_and_leave_their_terms_alone(values):
    counts = {site: np.array([[value]], dtype=np.int64) for site, value in zip(SITES, values, strict=True)}
    assert pool(counts).tolist() == [[sum(values)]]
    assert [int(counts[site][0, 0]) for site in SITES] == values


def test_the_hash_of_a_model_changes_with_a_name_a_shape_a_type_or_a_bit():
    base = {"w": np.zeros((2, 3), dtype=np.float32)}
    others = (
        {"v": base["w"]},
        {"w": base["w"].reshape(3, 2)},
        {"w": base["w"].astype(np.float64)},
        {"w": np.nextafter(base["w"], np.float32(1))},
        {"w": -base["w"]},
    )
    assert len({weights_sha256(base), *map(weights_sha256, others)}) == 6
