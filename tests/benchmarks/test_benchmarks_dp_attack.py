import math

import numpy as np
import pytest

from benchmarks.dp_attack import lower_bound
from fairsynth.governance.budget import DpSgd, Gaussian, epsilon_of
from fairsynth.governance.noise import discrete_gaussian

DELTA, TRIALS, CELLS = 1e-5, 2_000, 2
CLAIMED = epsilon_of([Gaussian(ratio=2.0)], delta=DELTA).tight


def scores(counts, *, sigma, draws=1):
    """What an attacker sums up over the cells that the patient would change, mean of `draws`, by trial."""
    each = np.broadcast_to(np.array(counts, dtype=np.int64), (TRIALS, draws, len(counts))).copy()
    return discrete_gaussian(each, sigma=sigma).mean(axis=1).sum(axis=1)


def attack(*, sigma, draws=1):
    """The bound for one patient who adds 1 to two counts of 10: L2 sensitivity sqrt(2), in units of 1/10."""
    scaled = 10 * sigma
    return lower_bound(
        scores([110, 110], sigma=scaled, draws=draws), scores([100, 100], sigma=scaled, draws=draws), delta=DELTA
    )


def test_an_attack_on_noised_counts_stays_below_the_epsilon_that_is_charged():
    assert attack(sigma=2.0 * math.sqrt(2)) < CLAIMED


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_an_attack_detects_noise_that_is_too_small(share):
    assert attack(sigma=share * 2.0 * math.sqrt(2)) > CLAIMED


def test_an_attack_detects_noise_that_is_drawn_again_for_each_asking():
    assert attack(sigma=2.0 * math.sqrt(2), draws=25) > CLAIMED


def test_guesses_without_any_information_show_nothing():
    assert attack(sigma=1e5) < 0.3


def test_the_bound_of_a_known_mechanism_is_below_its_epsilon_and_not_far():
    rng = np.random.default_rng(3)
    inside, outside = rng.normal(1, 1, 200_000), rng.normal(0, 1, 200_000)
    exact = epsilon_of([DpSgd(steps=1, rate=1.0, noise_multiplier=1.0)], delta=DELTA).tight
    assert 0.5 * exact < lower_bound(inside, outside, delta=DELTA) < exact
