"""What a generator knows before it has seen a patient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from generator_toys import SMALL, SMALL_VOCABULARY, records_of

from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.fit import start
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.priming import Shown, exclusive, home_rates
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
    if primed:
        return start(records, vocabulary=WORDS, config=SMALL, seed=1)
    weights = at_home(initial_weights(WORDS, SMALL, seed=1), base_rates(records, vocabulary=WORDS))
    return build(weights, vocabulary=WORDS, config=SMALL)


def test_blocks_are_levels_of_one_thing_that_never_share_a_visit():
    blocks = exclusive(Shown.by(LEVELS, vocabulary=WORDS), vocabulary=WORDS)
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


def test_what_two_sites_show_adds_up_to_what_their_patients_show_together():
    rows = np.arange(len(LEVELS))
    parts = [
        Shown.by(LEVELS.take(rows[rows % 3 == 0]), vocabulary=WORDS),
        Shown.by(LEVELS.take(rows[rows % 3 > 0]), vocabulary=WORDS),
    ]
    whole = Shown.by(LEVELS, vocabulary=WORDS)
    added = parts[0] + parts[1]
    assert (added.visits, added.patients) == (whole.visits, whole.patients)
    assert (added.occurs == whole.occurs).all()
    assert (added.shared == whole.shared).all()
    assert whole.shared.tolist() == [120, 0, 0]  # DX codes share every second visit


def test_a_sites_rates_of_a_block_are_the_odds_where_no_earlier_token_is_on():
    shown = Shown.by(LEVELS, vocabulary=WORDS)
    blocks = exclusive(shown, vocabulary=WORDS)
    rates = home_rates(base_rates(LEVELS, vocabulary=WORDS), shown, blocks=blocks, vocabulary=WORDS)
    first, second = shown.occurs[blocks[0]][:2]
    assert rates[blocks[0]][1] == pytest.approx(np.log((second + 0.5) / (shown.visits - first - second + 0.5)))
    outside = [0, 1, 7, 8]
    assert (rates[outside] == base_rates(LEVELS, vocabulary=WORDS)[outside]).all()
