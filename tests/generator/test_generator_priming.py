"""What a generator knows before it has seen a patient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from generator_toys import SMALL, SMALL_VOCABULARY, records_of

from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.priming import exclusive, prime
from fairsynth.generator.sample import Conditions, draw

WORDS = replace(
    SMALL_VOCABULARY, codes=("DX//1", "DX//2", "LOS//a", "LOS//b", "LOS//c", "OBS//x//1", "OBS//x//2", "PLAIN", "TOO")
)
# group, label, sex, age, phenotypes, visits: one LOS a visit, DX and PLAIN whenever
LEVELS = records_of(
    [
        (i % 10 // 7, i % 2, i % 2, i % 3, [], [[i % 2, 2 + (i % 6 > 2) + (i % 6 > 4), 7], [0, 1, 2, 7, 8]])
        for i in range(120)
    ],
    words=WORDS,
)


def model_of(records, *, primed):
    """An untrained model at the base rates of `records`."""
    weights = at_home(initial_weights(WORDS, SMALL, seed=1), base_rates(records, vocabulary=WORDS))
    model = build(weights, vocabulary=WORDS, config=SMALL)
    if primed:
        prime(model, records, vocabulary=WORDS)
    return model


def test_blocks_are_levels_of_one_thing_that_never_share_a_visit():
    blocks = exclusive(LEVELS, vocabulary=WORDS)
    assert [WORDS.codes[block] for block in blocks] == [("LOS//a", "LOS//b", "LOS//c"), ("OBS//x//1", "OBS//x//2")]


def test_an_untrained_generator_draws_groups_and_ages_as_often_as_its_records_have_them():
    def share_of_first_group(primed):
        made = draw(model_of(LEVELS, primed=primed), conditions=Conditions.free(2000), seed=1).records
        return np.mean(made.group == 0)

    assert share_of_first_group(primed=True) == pytest.approx(np.mean(LEVELS.group == 0), abs=0.04)
    assert abs(share_of_first_group(primed=False) - np.mean(LEVELS.group == 0)) > 0.04


def test_an_untrained_generator_draws_one_level_a_visit():
    def at_most_one(primed):
        made = draw(model_of(LEVELS, primed=primed), conditions=Conditions.free(500), seed=1).records
        visit = np.repeat(np.arange(made.visits), np.diff(made.visit_offsets))
        inside = (made.codes >= 2) & (made.codes < 5)
        return np.mean(np.bincount(visit[inside], minlength=made.visits) <= 1)

    assert at_most_one(primed=True) > 0.99 > 0.95 > at_most_one(primed=False)


def test_what_does_not_exist_stays_zero_and_everything_stays_finite():
    model = model_of(LEVELS, primed=True)
    for name, triangle in model.triangles().items():
        flat = model.get_parameter(name)
        assert torch.equal(flat, triangle.keep(flat))
    nobody = replace(LEVELS, codes=LEVELS.codes[:0], visit_offsets=np.zeros_like(LEVELS.visit_offsets))
    assert all(torch.isfinite(weight).all() for weight in model_of(nobody, primed=True).parameters())
