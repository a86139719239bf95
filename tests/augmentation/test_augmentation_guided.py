from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from fairsynth.augmentation.guided import Guidance, guided, relabelled
from fairsynth.augmentation.plan import members_of
from fairsynth.errors import CohortError, ConfigError
from fairsynth.visits.cohort import fits
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

MANY = 3000
VOCABULARY = Vocabulary(
    codes=tuple(f"DX//{number:04}" for number in range(MANY)), groups=("a", "b", "c"), ages=("young",), phenotypes=()
)
LAYOUT = VOCABULARY.layout
few = settings(deadline=None, max_examples=40)


def people(sizes: list[int], *, label: int = 0) -> Records:
    """`sizes[g]` candidates of each group in a mixed order, each with one visit of one code: its own number."""
    group = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    ones = np.arange(len(group) + 1)
    plain = Records(
        codes=np.arange(len(group)),
        visit_offsets=ones,
        patient_offsets=ones,
        context=np.stack([LAYOUT.groups.start + group, np.full(len(group), LAYOUT.sexes.start)], axis=1).ravel(),
        context_offsets=2 * ones,
        group=group,
        label=np.zeros(len(group), dtype=np.int64),
    )
    return relabelled(plain, label=np.full(len(group), label), vocabulary=VOCABULARY)


def chosen(candidates: Records, log_odds, cells, *, selected=0.4, sharpness: float = 8.0, seed: int = 1) -> Records:
    shares = np.broadcast_to(selected, (3,)).astype(float)
    return guided(
        candidates,
        scores=expit(np.asarray(log_odds)),
        cells=np.array(cells),
        guidance=Guidance(selected=shares, sharpness=sharpness),
        vocabulary=VOCABULARY,
        seed=seed,
    )


def same(one: Records, two: Records) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(two, name)) for name in ("codes", "context", "group", "label")
    )


quotas = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=3)


@few
@given(quotas, st.integers(0, 1000), st.floats(0.05, 0.95), st.floats(0.01, 50))
def test_quotas_are_exact_and_nobody_comes_twice_or_changes_group(cells, seed, selected, sharpness):
    candidates = people([sum(pair) for pair in cells])  # no one to spare
    log_odds = np.random.default_rng(seed).normal(size=len(candidates))
    found = chosen(candidates, log_odds, cells, selected=selected, sharpness=sharpness, seed=seed)
    assert members_of(found.group, found.label, groups=3).tolist() == [list(pair) for pair in cells]
    assert sorted(found.codes) == list(range(len(candidates)))
    assert np.array_equal(found.group, candidates.group[found.codes])


@few
@given(st.integers(0, 1000))
def test_the_label_visit_says_the_label_and_stays_sorted(seed):
    candidates = people([30, 30, 30], label=seed % 2)
    found = chosen(candidates, np.random.default_rng(seed).normal(size=90), [[5, 9], [0, 3], [4, 0]], seed=seed)
    assert fits(found, vocabulary=VOCABULARY)
    for patient in range(len(found)):
        context = found.context[found.context_offsets[patient] : found.context_offsets[patient + 1]].tolist()
        labels = [LAYOUT.label] if found.label[patient] else []
        assert context == [LAYOUT.groups.start + found.group[patient], *labels, LAYOUT.sexes.start]


def test_the_generator_s_own_label_changes_nothing():
    log_odds, cells = np.random.default_rng(4).normal(size=60), [[4, 6], [3, 2], [1, 1]]
    alive, dead = (chosen(people([30, 20, 10], label=label), log_odds, cells) for label in (0, 1))
    assert same(alive, dead)


def test_a_sharp_cut_takes_positives_above_the_quantile_of_their_own_group_and_negatives_below():
    candidates = people([200, 200, 200])
    log_odds = np.random.default_rng(5).normal(size=600) + 3 * candidates.group  # groups that differ in level
    found = chosen(candidates, log_odds, [[60, 30], [40, 40], [10, 70]], selected=[0.2, 0.5, 0.4], sharpness=1e6)
    for group, share in enumerate((0.2, 0.5, 0.4)):
        own = np.sort(log_odds[candidates.group == group])
        cut = (own[200 - round(200 * share) - 1] + own[200 - round(200 * share)]) / 2
        mine = found.group == group
        assert np.array_equal(log_odds[found.codes[mine]] > cut, found.label[mine] == 1)


def test_the_chance_of_a_candidate_to_be_a_positive_is_the_sigmoid_of_its_distance():
    candidates = people([MANY, 0, 0])
    log_odds = np.sort(np.random.default_rng(6).normal(size=MANY))
    sharpness, wanted = 2.0, 100
    above = (log_odds - np.quantile(log_odds, 0.6)) / log_odds.std()
    weight = expit(sharpness * above)  # what drawing few of many without replacement is in proportion to
    drawn = np.zeros(MANY)
    for seed in range(60):
        found = chosen(candidates, log_odds, [[0, wanted], [0, 0], [0, 0]], sharpness=sharpness, seed=seed)
        drawn[found.codes] += 1
    for part in np.array_split(np.arange(MANY), 10)[4:]:  # below, chances are too small to count
        expected = 60 * wanted * weight[part].sum() / weight.sum()
        assert drawn[part].sum() == pytest.approx(expected, abs=4 * np.sqrt(expected) + 0.03 * expected)


def test_without_sharpness_labels_do_not_depend_on_scores():
    candidates = people([400, 0, 0])
    high = np.arange(400) >= 200
    found = [chosen(candidates, 5.0 * high, [[50, 50], [0, 0], [0, 0]], sharpness=1e-9, seed=k) for k in range(20)]
    share = np.mean([high[one.codes[one.label == 1]].mean() for one in found])
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(1000))
    sharp = chosen(candidates, 5.0 * high, [[50, 50], [0, 0], [0, 0]], selected=0.5, sharpness=100.0)
    assert high[sharp.codes[sharp.label == 1]].all()


@few
@given(st.floats(0.2, 3), st.floats(-2, 2))
def test_stretched_and_shifted_log_odds_choose_the_same_patients(stretch, shift):
    log_odds, cells = np.random.default_rng(7).normal(size=90), [[5, 9], [6, 3], [4, 8]]
    assert same(chosen(people([30] * 3), log_odds, cells), chosen(people([30] * 3), stretch * log_odds + shift, cells))


def test_equal_scores_are_a_draw_by_lot_and_not_an_error():
    found = chosen(people([30, 30, 30]), np.zeros(90), [[5, 9], [6, 3], [4, 8]])
    assert members_of(found.group, found.label, groups=3).tolist() == [[5, 9], [6, 3], [4, 8]]


def test_scores_of_zero_and_one_have_a_place_too():
    candidates = people([4, 0, 0])
    log_odds = [-np.inf, np.inf, -np.inf, np.inf]
    found = chosen(candidates, log_odds, [[2, 2], [0, 0], [0, 0]], selected=0.5, sharpness=1e6)
    assert sorted(found.codes[found.label == 1]) == [1, 3]


def test_the_same_seed_gives_the_same_patients_and_another_one_others():
    arguments = people([60, 60, 60]), np.random.default_rng(8).normal(size=180), [[5, 9], [6, 3], [4, 8]]
    assert same(chosen(*arguments, seed=1), chosen(*arguments, seed=1))
    assert not same(chosen(*arguments, seed=1), chosen(*arguments, seed=2))


def test_too_few_candidates_of_a_group_are_named():
    with pytest.raises(CohortError, match="group b"):
        chosen(people([9, 4, 9]), np.zeros(22), [[1, 1], [2, 3], [0, 0]])


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": np.zeros(8)},
        {"cells": np.zeros((2, 2), dtype=np.int64)},
        {"cells": np.array([[1, 1], [0, -1], [0, 0]])},
        {"guidance": Guidance(selected=np.array([0.4, 0.4]))},
        {"guidance": Guidance(selected=np.array([0.4, 0.0, 0.4]))},
        {"guidance": Guidance(selected=np.array([0.4, 1.0, 0.4]))},
        {"guidance": Guidance(selected=np.array([0.4, np.nan, 0.4]))},
        {"guidance": Guidance(selected=np.full(3, 0.4), sharpness=0.0)},
    ],
    ids=["scores", "groups", "negative", "shares", "share 0", "share 1", "share nan", "sharpness 0"],
)
def test_what_does_not_fit_is_refused(wrong):
    arguments = {
        "scores": np.full(9, 0.5),
        "cells": np.ones((3, 2), dtype=np.int64),
        "guidance": Guidance(selected=np.full(3, 0.4)),
        **wrong,
    }
    with pytest.raises(ConfigError):
        guided(people([3, 3, 3]), vocabulary=VOCABULARY, seed=1, **arguments)


def test_new_labels_replace_old_ones_and_nothing_else():
    before = people([2, 1, 1], label=1)
    after = relabelled(before, label=np.array([0, 1, 0, 1]), vocabulary=VOCABULARY)
    assert np.diff(after.context_offsets).tolist() == [2, 3, 2, 3]
    assert np.array_equal(after.codes, before.codes)
    back = relabelled(after, label=before.label, vocabulary=VOCABULARY)
    assert same(back, before)
    assert np.array_equal(back.context_offsets, before.context_offsets)
    assert (
        len(relabelled(before.take(np.zeros(0, dtype=int)), label=np.zeros(0, dtype=int), vocabulary=VOCABULARY)) == 0
    )


def test_a_patient_without_a_label_visit_gets_one():
    bare = replace(people([1, 0, 0]), context=np.zeros(0, dtype=np.int64), context_offsets=np.array([0, 0]))
    assert relabelled(bare, label=np.array([1]), vocabulary=VOCABULARY).context.tolist() == [LAYOUT.label]
