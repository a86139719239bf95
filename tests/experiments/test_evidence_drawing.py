from __future__ import annotations

from itertools import chain, combinations

import evidence_toys as toy
import numpy as np
import pytest

from fairsynth.errors import ConfigError
from fairsynth.experiments.evidence.drawing import draw, narrowed
from fairsynth.experiments.evidence.pool import Pool
from fairsynth.schemas import SiteId
from fairsynth.visits.cohort import fits
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

POOL = toy.pool()


def roles(drawn) -> dict[str, dict[str, list[int]]]:
    """The numbers of the patients by site and role."""
    return {
        site: {
            **{
                name: toy.numbers(getattr(one, name), vocabulary=drawn.vocabulary)
                for name in ("train", "validation", "held_out")
            },
            "fresh": toy.numbers(drawn.fresh[site], vocabulary=drawn.vocabulary),
        }
        for site, one in drawn.cohorts.items()
    }


@pytest.mark.parametrize("real", [60, 90, 110])
@pytest.mark.parametrize("seed", [1, 2])
def test_everybody_of_the_pool_has_exactly_one_role_at_home(real, seed):
    found = roles(draw(POOL, real=real, seed=seed))
    for site, parts in found.items():
        for one, other in combinations(parts.values(), 2):
            assert not set(one) & set(other)
        assert sorted(chain.from_iterable(parts.values())) == sorted(toy.numbers(POOL.sites[site]))


def test_half_are_held_out_and_sites_keep_their_share():
    found = roles(draw(POOL, real=85, seed=1))
    assert {site: len(parts["held_out"]) for site, parts in found.items()} == {"a": 80, "b": 60, "c": 30}
    assert {site: len(parts["train"]) for site, parts in found.items()} == {"a": 40, "b": 30, "c": 15}
    assert {site: len(parts["validation"]) for site, parts in found.items()} == {"a": 20, "b": 15, "c": 8}


def test_a_larger_training_set_holds_the_smaller_one_and_the_held_out_are_the_same():
    small, large = (roles(draw(POOL, real=real, seed=5)) for real in (60, 110))
    for site in POOL.sites:
        assert set(small[site]["train"]) < set(large[site]["train"])
        assert small[site]["held_out"] == large[site]["held_out"]


def test_another_seed_is_another_draw_and_the_same_seed_the_same():
    one, again, other = (roles(draw(POOL, real=85, seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert all(set(one[site]["held_out"]) != set(other[site]["held_out"]) for site in POOL.sites)


def test_a_pool_that_is_too_small_is_refused_and_one_that_just_suffices_is_not():
    most = draw(POOL, real=113, seed=1)
    assert sum(map(len, most.fresh.values())) < 3
    for real in (125, 2):  # the second leaves the smallest site without a training patient
        with pytest.raises(ConfigError, match="too few patients"):
            draw(POOL, real=real, seed=1)


def test_the_site_with_the_fewest_training_patients_and_all_sites_as_one():
    drawn = draw(POOL, real=85, seed=1)
    assert drawn.sites == ("a", "b", "c")
    assert drawn.smallest == "c"
    together = toy.numbers(drawn.pooled().train, vocabulary=drawn.vocabulary)
    assert together == list(chain.from_iterable(parts["train"] for parts in roles(drawn).values()))


# --- vocabulary ------------------------------------------------------------------------------------------------------


def carriers(records: Records, vocabulary: Vocabulary) -> dict[str, int]:
    """Patients with each code, one patient after the other."""
    found = dict.fromkeys(vocabulary.codes, 0)
    for patient in range(len(records)):
        alone = records.take(np.array([patient]))
        for code in set(alone.codes.tolist()):
            found[vocabulary.codes[code]] += 1
    return found


@pytest.mark.parametrize("least", [1, 12, 20, 25])
def test_a_code_is_kept_if_and_only_if_enough_training_patients_of_some_site_carry_it(least):
    of = toy.pool(config=toy.study(minimum_patients=least))
    order = {site: {number: k for k, number in enumerate(toy.numbers(of.sites[site]))} for site in of.sites}
    training = roles(draw(toy.pool(config=toy.study(minimum_patients=1)), real=85, seed=4))
    expected = set()
    for site, records in of.sites.items():
        rows = np.array([order[site][number] for number in training[site]["train"]])
        expected |= {code for code, n in carriers(records.take(rows), toy.VOCABULARY).items() if n >= least}
    drawn = draw(of, real=85, seed=4)
    assert set(drawn.vocabulary.codes) == expected
    assert drawn.vocabulary.codes == tuple(code for code in toy.VOCABULARY.codes if code in expected)
    assert least == 1 or len(expected) < len(toy.VOCABULARY.codes)


def test_a_code_that_a_patient_has_twice_counts_once():
    words = Vocabulary(codes=("once", "twice"), groups=("x", "y"), ages=("young",), phenotypes=())
    number = 12
    has = [[[0], [1]] if patient % 2 else [[0, 1], [1]] for patient in range(number)]
    flat = [visit for own in has for visit in own]
    context = [[words.layout.groups.start, words.layout.sexes.start]] * number
    records = Records(
        codes=np.array([code for visit in flat for code in visit]),
        visit_offsets=np.cumsum([0, *map(len, flat)]),
        patient_offsets=2 * np.arange(number + 1),
        context=np.array(context).ravel(),
        context_offsets=2 * np.arange(number + 1),
        group=np.zeros(number, dtype=np.int64),
        label=np.zeros(number, dtype=np.int64),
    )
    of = {
        least: Pool(study=toy.study(minimum_patients=least), vocabulary=words, sites={SiteId("a"): records})
        for least in (4, 5)
    }
    drawn = draw(of[4], real=4, seed=1)
    assert drawn.vocabulary.codes == ("once", "twice")
    assert fits(drawn.cohorts[SiteId("a")].held_out, vocabulary=drawn.vocabulary)
    with pytest.raises(ConfigError, match="no common code"):
        draw(of[5], real=4, seed=1)


def test_narrowed_patients_keep_everything_but_the_other_codes():
    records = POOL.sites[SiteId("a")]
    codes = np.array([0, 2, 5, 9, 20])
    after = narrowed(records, toy.VOCABULARY, codes=codes)
    small = Vocabulary(
        codes=tuple(toy.VOCABULARY.codes[code] for code in codes),
        groups=toy.VOCABULARY.groups,
        ages=toy.VOCABULARY.ages,
        phenotypes=toy.VOCABULARY.phenotypes,
    )
    assert fits(after, vocabulary=small)
    assert after.visits == records.visits
    assert np.array_equal(after.patient_offsets, records.patient_offsets)
    assert np.array_equal(after.group, records.group)
    assert np.array_equal(after.label, records.label)
    names = [small.names[token] for token in after.context]
    assert names == [toy.VOCABULARY.names[token] for token in records.context]
    for visit in range(records.visits):
        before = records.codes[records.visit_offsets[visit] : records.visit_offsets[visit + 1]]
        now = after.codes[after.visit_offsets[visit] : after.visit_offsets[visit + 1]]
        kept = [toy.VOCABULARY.codes[code] for code in before if code in codes]
        assert [small.codes[code] for code in now] == kept
