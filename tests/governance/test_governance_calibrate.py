import pytest

from fairsynth.errors import PolicyRefusal
from fairsynth.governance.budget import DpSgd, Gaussian, Limit, epsilon_of
from fairsynth.governance.calibrate import gaussian_ratio, noise_multiplier

LIMIT = Limit(epsilon=3.0, delta=1e-5)


def test_the_noise_of_training_spends_the_budget_and_no_more():
    beside = [Gaussian(ratio=5.0)]
    noise = noise_multiplier(LIMIT, steps=20, rate=0.05, beside=beside)
    spent = epsilon_of([*beside, DpSgd(steps=20, rate=0.05, noise_multiplier=noise)], delta=LIMIT.delta)
    assert 0.97 * 3.0 < spent.tight <= 3.0


def test_the_noise_of_many_releases_spends_the_budget_and_no_more():
    ratio = gaussian_ratio(LIMIT, releases=10)
    assert 0.97 * 3.0 < epsilon_of([Gaussian(ratio=ratio)] * 10, delta=LIMIT.delta).tight <= 3.0


def test_a_budget_that_is_spent_already_is_refused():
    with pytest.raises(PolicyRefusal, match="no noise keeps within the budget"):
        gaussian_ratio(LIMIT, beside=[Gaussian(ratio=1.0)])
