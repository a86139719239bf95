"""Why the masks are not Flower's: one search opens those of its SecAgg+ and finds nothing under ours.

Flower 1.41 folds a pair's secret to 32 bits and feeds them to numpy's Mersenne Twister (flwrlabs/flower#7522). A server
that knows that counts are small tries the seeds one after the other. Here it knows all bits but the last few, so that
the search takes seconds; without that it is the same search, 2^12 or 2^16 times as long.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from fairsynth.federation.masking.masks import Label, mask

COUNTS = np.array([3, 0, 1, 0, 17, 5, 2, 1])  # of one site, by ethnicity
MODULUS = 1 << 32
LABEL = Label(run="00" * 32, epoch=0, purpose="train|plain|0", schema_sha256="00" * 32, length=len(COUNTS))

Masks = Callable[[int], np.ndarray]


def search(seen: np.ndarray, masks: Masks, guesses: range, *, modulus: int) -> Iterator[list[int]]:
    """Every vector of counts below 1,000 that a guess explains what is `seen` by."""
    for guess in guesses:
        first = (int(seen[0]) - int((found := masks(guess))[0])) % modulus
        if first < 1000:
            values = [(int(a) - int(b)) % modulus for a, b in zip(seen, found, strict=True)]
            if max(values) < 1000:
                yield values


def flower(seed: int) -> np.ndarray:
    return pseudo_rand_gen(seed.to_bytes(4, "little"), MODULUS, [COUNTS.shape])[0]


def ours(key: int) -> np.ndarray:
    return mask(key.to_bytes(32, "little"), label=LABEL)


@pytest.mark.parametrize("bits", [10, pytest.param(20, marks=pytest.mark.slow)])
def test_the_search_reads_a_sites_counts_under_flowers_masks(bits):
    secret = base64.urlsafe_b64encode(os.urandom(32))  # as Flower makes it
    folded = 0
    for start in range(0, len(secret), 4):
        folded ^= int.from_bytes(secret[start : start + 4], "little")
    seen = (COUNTS + pseudo_rand_gen(secret, MODULUS, [COUNTS.shape])[0]) % MODULUS
    known = folded >> bits << bits
    found = list(search(seen, flower, range(known, known + (1 << bits)), modulus=MODULUS))
    assert found == [COUNTS.tolist()]


@pytest.mark.parametrize("bits", [10, pytest.param(20, marks=pytest.mark.slow)])
def test_the_same_search_finds_nothing_under_ours(bits):
    seen = COUNTS.astype(np.uint64) + mask(os.urandom(32), label=LABEL)
    guess = int.from_bytes(os.urandom(32), "little") >> bits << bits
    assert list(search(seen, ours, range(guess, guess + (1 << bits)), modulus=1 << 64)) == []


def test_the_search_would_have_found_a_key_of_ours_that_it_knows_but_for_a_few_bits():
    key = int.from_bytes(os.urandom(32), "little")
    seen = COUNTS.astype(np.uint64) + ours(key)
    known = key >> 8 << 8
    assert list(search(seen, ours, range(known, known + 256), modulus=1 << 64)) == [COUNTS.tolist()]
