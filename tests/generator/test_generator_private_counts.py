import numpy as np
import pytest
from generator_toys import SMALL, SMALL_VOCABULARY, hospital, rough_weights, study_of

from fairsynth.config import ObjectiveConfig
from fairsynth.generator.base_rates import base_rates
from fairsynth.generator.private_counts import group_counts, group_sensitivity, noised_base_rates, occurrences
from fairsynth.generator.train import measure
from fairsynth.governance.noise import UNIT, discrete_gaussian, from_fixed

WEIGHTS = rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=3)
SITE = hospital(120, seed=2)
LARGE = 1e6  # a bound that nobody reaches


def without(who):
    return SITE.take(np.delete(np.arange(len(SITE)), who))


def test_unbounded_occurrences_are_those_that_base_rates_are_made_of():
    counts = occurrences(SITE, vocabulary=SMALL_VOCABULARY, bound=LARGE)
    expected = base_rates(SITE, vocabulary=SMALL_VOCABULARY)
    assert noised_base_rates(counts, vocabulary=SMALL_VOCABULARY) == pytest.approx(expected, abs=1e-2)
    assert from_fixed(counts)[-1] == pytest.approx(SITE.visits, abs=0.01)


@pytest.mark.parametrize("bound", [0.5, 4.0])
def test_one_patient_changes_occurrences_by_the_bound_at_most(bound):
    everyone = occurrences(SITE, vocabulary=SMALL_VOCABULARY, bound=bound)
    for who in range(0, len(SITE), 7):
        change = everyone - occurrences(without(who), vocabulary=SMALL_VOCABULARY, bound=bound)
        assert 0 < np.linalg.norm(change.astype(float)) <= bound * UNIT


def test_occurrences_of_many_patients_are_summed_in_parts():
    site = hospital(1500, seed=3)
    halves = [site.take(rows) for rows in (np.arange(700), np.arange(700, 1500))]
    parts = [occurrences(half, vocabulary=SMALL_VOCABULARY, bound=3.0) for half in halves]
    assert (occurrences(site, vocabulary=SMALL_VOCABULARY, bound=3.0) == sum(parts)).all()


def test_base_rates_of_pure_noise_are_finite():
    noise = discrete_gaussian(np.zeros(SMALL_VOCABULARY.layout.size + 1, dtype=np.int64), sigma=50.0 * UNIT)
    assert np.isfinite(noised_base_rates(noise, vocabulary=SMALL_VOCABULARY)).all()


@pytest.mark.parametrize("target", ["codes", "label"])
@pytest.mark.parametrize("soft", [True, False])
def test_unbounded_group_counts_are_those_of_measure(target, soft):
    study = study_of(SITE, objective=ObjectiveConfig(target=target))
    found = from_fixed(group_counts(WEIGHTS, records=SITE, study=study, bound=LARGE, soft=soft))
    measured = measure(WEIGHTS, records=SITE, study=study)
    assert found == pytest.approx(measured.soft if soft else measured.hard, abs=0.01)


@pytest.mark.parametrize("bound", [0.5, 5.0])
def test_one_patient_changes_group_counts_by_their_sensitivity_at_most(bound):
    study = study_of(SITE)
    everyone = group_counts(WEIGHTS, records=SITE, study=study, bound=bound)
    for who in range(0, len(SITE), 11):
        fewer = group_counts(WEIGHTS, records=without(who), study=study, bound=bound)
        change = (everyone - fewer).astype(float)
        assert np.linalg.norm(change) <= group_sensitivity(bound)
        assert np.flatnonzero(change.any(axis=1)).tolist() == [SITE.group[who]]


def test_a_bounded_patient_keeps_its_rates():
    one = SITE.take(np.array([3]))
    small, large = (
        from_fixed(group_counts(WEIGHTS, records=one, study=study_of(SITE), bound=bound))[one.group[0]]
        for bound in (0.5, LARGE)
    )
    assert small[0] == large[0] == 1
    assert small[3] / small[2] == pytest.approx(large[3] / large[2], abs=1e-3)
    assert np.linalg.norm(small[1:]) == pytest.approx(0.5, abs=1e-3)
