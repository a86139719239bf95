from __future__ import annotations

from collections import Counter
from dataclasses import replace

import evidence_toys as toy
import numpy as np
import pytest

from fairsynth.augmentation.plan import equal_cells, members_of
from fairsynth.experiments.evidence import additions
from fairsynth.experiments.evidence.bench import Bench, with_permuted_groups
from fairsynth.schemas import SiteId
from fairsynth.visits.cohort import fits
from fairsynth.visits.records import Records

A, B, C = (SiteId(name) for name in "abc")
BENCH = toy.bench(real=60, seed=0)  # every site has training patients of every cell
NONE = np.zeros((2, 2), dtype=np.int64)


def quotas(a=NONE, b=NONE, c=NONE) -> dict[SiteId, np.ndarray]:
    return {A: np.array(a), B: np.array(b), C: np.array(c)}


def cells(records: Records) -> np.ndarray:
    return members_of(records.group, records.label, groups=2)


def numbers(records: Records) -> list[int]:
    return toy.numbers(records, vocabulary=BENCH.draw.vocabulary)


def with_fresh(fresh: dict[SiteId, Records]) -> Bench:
    return replace(BENCH, draw=replace(BENCH.draw, fresh=fresh))


def of_cell(records: Records, group: int, label: int) -> Records:
    return records.take((records.group == group) & (records.label == label))


FRESH = BENCH.draw.fresh
HOME = {site: cells(records) for site, records in FRESH.items()}


# --- the oracle ------------------------------------------------------------------------------------------------------


def test_where_fresh_patients_suffice_each_site_gets_its_own_and_nobody_twice():
    wanted = {site: HOME[site] // 2 for site in FRESH}
    found = additions.oracle(BENCH, wanted)
    assert (found.elsewhere, found.repeated) == (0, 0)
    for site, added in found.added.items():
        assert np.array_equal(cells(added), wanted[site])
        assert len(set(numbers(added))) == len(added)
        assert set(numbers(added)) <= set(numbers(FRESH[site]))


def test_what_a_site_lacks_comes_from_others_is_counted_and_is_in_one_share_only():
    lacking = HOME[C][0, 1] + 4
    wanted = quotas(a=[[0, 2], [0, 0]], b=[[0, HOME[B][0, 1] + 1], [0, 0]], c=[[3, lacking], [0, 0]])
    found = additions.oracle(BENCH, wanted)
    assert (found.elsewhere, found.repeated) == (5, 0)
    everybody = [number for added in found.added.values() for number in numbers(added)]
    assert len(set(everybody)) == len(everybody)
    for site, added in found.added.items():
        assert np.array_equal(cells(added), wanted[site])
    assert set(numbers(of_cell(FRESH[C], 0, 1))) <= set(numbers(found.added[C]))  # its own come first


def test_where_all_sites_have_too_few_patients_are_repeated_counted_and_no_one_much_oftener_than_others():
    everywhere = sum(home[1, 1] for home in HOME.values())
    wanted = quotas(a=[[0, 0], [0, 2 * everywhere + 3]])
    found = additions.oracle(BENCH, wanted)
    assert np.array_equal(cells(found.added[A]), wanted[A])
    assert found.elsewhere == everywhere - HOME[A][1, 1]
    assert found.repeated == everywhere + 3
    times = Counter(numbers(found.added[A]))
    assert len(times) == everywhere
    assert max(times.values()) - min(times.values()) <= 1


def test_a_site_that_comes_too_late_for_others_patients_repeats_them():
    of_one = of_cell(FRESH[A], 1, 1)
    nobody = FRESH[A].take(np.zeros(0, dtype=np.int64))
    bench = with_fresh({A: of_one, B: nobody, C: nobody})
    wanted = quotas(b=[[0, 0], [0, len(of_one)]], c=[[0, 0], [0, 3]])
    found = additions.oracle(bench, wanted)
    assert np.array_equal(cells(found.added[B]), wanted[B])
    assert np.array_equal(cells(found.added[C]), wanted[C])
    assert (found.elsewhere, found.repeated) == (len(of_one), 3)


def test_a_cell_that_no_site_has_fresh_patients_of_stays_short():
    without = {site: records.take((records.group == 0) | (records.label == 0)) for site, records in FRESH.items()}
    found = additions.oracle(with_fresh(without), quotas(a=[[2, 1], [1, 4]]))
    assert cells(found.added[A]).tolist() == [[2, 1], [1, 0]]
    assert found.repeated == 0


def test_the_oracle_knows_nobody_who_trains_validates_or_is_held_out():
    wanted = {site: HOME[site] + 2 for site in FRESH}
    known = {
        number
        for one in BENCH.draw.cohorts.values()
        for part in (one.train, one.validation, one.held_out)
        for number in numbers(part)
    }
    fresh = additions.fresh(BENCH, synthetic=60)
    for added in (*additions.oracle(BENCH, wanted).added.values(), *fresh.values()):
        assert len(added)
        assert not known & set(numbers(added))


def test_fresh_patients_of_the_same_number_are_different_ones_as_far_as_there_are_any():
    found = additions.fresh(BENCH, synthetic=60)
    assert {site: len(added) for site, added in found.items()} == BENCH.budgets(60)
    assert all(len(set(numbers(added))) == len(added) for added in found.values())
    everybody = additions.fresh(BENCH, synthetic=10_000)
    assert all(sorted(numbers(everybody[site])) == sorted(numbers(FRESH[site])) for site in FRESH)


# --- copies and the generator ----------------------------------------------------------------------------------------


def test_copies_follow_the_quotas_and_come_from_the_site_s_own_training_patients():
    wanted = quotas(a=[[1, 7], [0, 30]], b=[[5, 0], [4, 4]], c=[[0, 0], [2, 0]])
    found = additions.same_copies(BENCH, wanted)
    for site, added in found.items():
        home = BENCH.draw.cohorts[site].train
        assert (cells(home)[wanted[site] > 0] > 0).all()
        assert np.array_equal(cells(added), wanted[site])
        assert set(numbers(added)) <= set(numbers(home))


def test_balanced_copies_are_those_that_water_filling_asks_for():
    budgets = BENCH.budgets(60)
    for site, added in additions.balanced_copies(BENCH, synthetic=60).items():
        assert (BENCH.members(site) > 0).all()
        assert np.array_equal(cells(added), equal_cells(BENCH.members(site), budget=budgets[site]))
        assert set(numbers(added)) <= set(numbers(BENCH.draw.cohorts[site].train))


def test_oversampling_copies_minorities_only_within_the_budget():
    for site, added in additions.oversampled(BENCH, synthetic=60).items():
        members = BENCH.members(site).sum(axis=1)
        assert 0 < len(added) <= BENCH.budgets(60)[site]
        assert set(added.group) == {int(members.argmin())}
        assert set(numbers(added)) <= set(numbers(BENCH.draw.cohorts[site].train))


def test_nobody_is_nobody_at_every_site():
    assert {site: len(added) for site, added in additions.nobody(BENCH).items()} == {A: 0, B: 0, C: 0}


def test_patients_by_prefix_fill_the_cells_exactly():
    wanted = quotas(a=[[3, 7], [0, 9]], b=[[0, 0], [4, 4]], c=[[1, 0], [0, 2]])
    found = additions.by_prefix(BENCH, wanted)
    for site, added in found.items():
        assert np.array_equal(cells(added), wanted[site])
        assert fits(added, vocabulary=BENCH.draw.vocabulary)


def test_plain_patients_are_the_budget_in_the_site_s_own_mix():
    found = additions.plain(BENCH, synthetic=900)
    assert {site: len(added) for site, added in found.items()} == BENCH.budgets(900)
    for site, added in found.items():
        home = BENCH.members(site) / BENCH.members(site).sum()
        np.testing.assert_allclose(cells(added) / len(added), home, atol=4 * np.sqrt(0.25 / len(added)))
        assert (cells(added)[home == 0] == 0).all()


def test_a_budget_is_shared_out_by_real_patients():
    sizes = {site: len(one.train) for site, one in BENCH.draw.cohorts.items()}
    for site, budget in BENCH.budgets(600).items():
        assert budget == pytest.approx(600 * sizes[site] / sum(sizes.values()), abs=0.5)


# --- groups dealt anew -----------------------------------------------------------------------------------------------


def test_permuted_groups_keep_each_site_s_group_sizes_and_everything_else():
    permuted = with_permuted_groups(BENCH.draw, seed=3)
    layout = BENCH.draw.vocabulary.layout
    moved = 0
    for site, before in BENCH.draw.cohorts.items():
        after = permuted.cohorts[site]
        assert np.array_equal(np.bincount(after.train.group), np.bincount(before.train.group))
        moved += int((after.train.group != before.train.group).sum())
        assert numbers(after.train) == numbers(before.train)
        assert np.array_equal(after.train.label, before.train.label)
        assert after.validation is before.validation
        assert after.held_out is before.held_out
        is_group = after.train.context < layout.groups.stop
        assert np.array_equal(after.train.context[is_group] - layout.groups.start, after.train.group)
        assert np.array_equal(after.train.context[~is_group], before.train.context[~is_group])
        assert np.array_equal(after.train.context_offsets, before.train.context_offsets)
    assert moved > 5
    again, other = (with_permuted_groups(BENCH.draw, seed=seed) for seed in (3, 4))
    assert np.array_equal(again.cohorts[A].train.group, permuted.cohorts[A].train.group)
    assert not np.array_equal(other.cohorts[A].train.group, permuted.cohorts[A].train.group)
