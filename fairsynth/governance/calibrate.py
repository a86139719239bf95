"""How much noise a privacy budget asks for.

In:  a limit, what is to be released.   Out: the smallest noise that stays within it.
Never: a look at the patients; a charge (`budget.Budget.spend` makes it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairsynth.errors import PolicyRefusal
from fairsynth.governance.budget import DpSgd, Gaussian, Limit, Mechanism, epsilon_of

_PRECISION = 1e-2  # relative


def noise_multiplier(limit: Limit, *, steps: int, rate: float, beside: Sequence[Mechanism] = ()) -> float:
    """Of DP-SGD that stays within `limit` together with the releases `beside`.

    Raises PolicyRefusal when no noise is enough, since `beside` spends it all.
    """

    def with_noise(noise: float) -> Sequence[Mechanism]:
        return (*beside, DpSgd(steps=steps, rate=rate, noise_multiplier=noise))

    return _smallest(with_noise, limit=limit, beside=beside)


def gaussian_ratio(limit: Limit, *, releases: int = 1, beside: Sequence[Mechanism] = ()) -> float:
    """The sigma over L2 sensitivity of each of `releases` that stay within `limit`, as `noise_multiplier`."""

    def with_noise(noise: float) -> Sequence[Mechanism]:
        return (*beside, *[Gaussian(ratio=noise)] * releases)

    return _smallest(with_noise, limit=limit, beside=beside)


def _smallest(
    with_noise: Callable[[float], Sequence[Mechanism]], *, limit: Limit, beside: Sequence[Mechanism]
) -> float:
    """By bisection of the logarithm; what is given back is within the limit, and 0.5 at least."""
    if epsilon_of(beside, delta=limit.delta).tight >= limit.epsilon:
        raise PolicyRefusal.of(
            "no noise keeps within the budget",
            where=f"epsilon {limit.epsilon:g} at delta {limit.delta:g}",
            expected="a budget that the other releases do not spend",
            do="release less, or raise the budget",
        )
    low, high = 0.5, 1.0
    while epsilon_of(with_noise(high), delta=limit.delta).tight > limit.epsilon:
        low, high = high, 2 * high
    while high / low > 1 + _PRECISION:
        middle = (low * high) ** 0.5
        within = epsilon_of(with_noise(middle), delta=limit.delta).tight <= limit.epsilon
        low, high = (low, middle) if within else (middle, high)
    return high
