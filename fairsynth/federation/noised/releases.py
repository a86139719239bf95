"""What a plan with noise lets out of a site, with how much noise, and what epsilon that comes to.

In:  a plan.   Out: `Releases`: the mechanism of each release, which server and sites derive alike.
Never: a look at patients; a charge (`household` makes it).

Counts, codes and base rates get one ratio of noise to sensitivity, so that all of them alone would cost `counts_share`
of epsilon. What training may use beside them decides the noise of DP-SGD.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from fairsynth.config import StudyPlan
from fairsynth.errors import PolicyRefusal
from fairsynth.federation.plans import ARMS, counted_rounds
from fairsynth.governance.budget import DpSgd, Epsilon, Gaussian, Limit, Mechanism, Thresholded, epsilon_of
from fairsynth.governance.calibrate import gaussian_ratio, noise_multiplier

CELLS, VISITS, CODES, BASE_RATES = "cells", "visits", "codes", "base rates"  # released once
ACCOUNTANT = "dp-accounting, privacy loss distributions"
CODES_CHANCE = 0.1  # of delta: that a proposal shows a code of one patient alone


@dataclass(frozen=True, kw_only=True)
class Releases:
    """The noise of a plan.

    ratio     standard deviation of the noise on counts, over their L2 sensitivity to one patient
    chance    that a proposal shows a code of one patient alone
    training  of one arm in one round
    """

    plan: StudyPlan
    ratio: float
    chance: float
    training: DpSgd

    @property
    def counts(self) -> Gaussian:
        """Of each release of counts."""
        return Gaussian(ratio=self.ratio)

    @property
    def codes(self) -> Thresholded:
        """Of the codes that a site proposes."""
        return Thresholded(ratio=self.ratio, chance=self.chance)

    @property
    def by_label(self) -> Mapping[str, Mechanism]:
        """Every release of the study, in order."""
        return dict(self._all())

    def epsilon(self, *, delta: float | None = None) -> Epsilon:
        """Of one patient of a site over the whole study, at the plan's delta or another one."""
        return epsilon_of(self.by_label.values(), delta=self.plan.privacy.delta if delta is None else delta)

    def bound(self) -> dict[str, object]:
        """Epsilon, delta and who computed it, as a manifest tells them."""
        return {"epsilon": self.epsilon().tight, "delta": self.plan.privacy.delta, "accountant": ACCOUNTANT}

    def cells_deviation(self, *, sites: int) -> float:
        """Standard deviation of the noise on a number of patients, of so many sites together."""
        return float(self.ratio * sites**0.5)

    def _all(self) -> Iterator[tuple[str, Mechanism]]:
        yield CELLS, self.counts
        yield VISITS, self.counts
        yield CODES, self.codes
        yield BASE_RATES, self.counts
        for arm in ARMS:
            for number in range(self.plan.training.rounds):
                yield training_label(arm, number), self.training
        for number in counted_rounds(self.plan):
            yield counts_label(number), self.counts


@lru_cache(maxsize=8)
def releases_of(plan: StudyPlan) -> Releases:
    """The noise of `plan`; seconds. Raises PolicyRefusal when no noise keeps within its epsilon."""
    privacy, rounds = plan.privacy, plan.training.rounds
    if not privacy.noised:
        raise PolicyRefusal.of("a study without noise", where="plan  privacy.profile", expected="noise")
    chance = CODES_CHANCE * privacy.delta
    number = len((CELLS, VISITS, CODES, BASE_RATES)) + len(counted_rounds(plan))
    limit = Limit(epsilon=privacy.epsilon, delta=privacy.delta - chance)
    share = Limit(epsilon=privacy.noise.counts_share * privacy.epsilon, delta=limit.delta)
    ratio = gaussian_ratio(share, releases=number)
    noise = noise_multiplier(
        limit,
        steps=len(ARMS) * rounds * privacy.noise.steps,
        rate=privacy.noise.batch_share,
        beside=[Gaussian(ratio=ratio)] * number,
    )
    training = DpSgd(steps=privacy.noise.steps, rate=privacy.noise.batch_share, noise_multiplier=noise)
    return Releases(plan=plan, ratio=ratio, chance=chance, training=training)


def prediction_norm(plan: StudyPlan) -> float:
    """The bound on the L2 norm of one patient's P, S and TP: each is at most 1 where labels are counted."""
    return math.sqrt(3.0) if plan.objective.target == "label" else plan.privacy.noise.counts_norm


def training_label(arm: str, number: int) -> str:
    """The label of an arm's training in a round."""
    return f"train {arm} {number}"


def counts_label(number: int) -> str:
    """The label of the counts of the fairsynth arm's model that a site receives in a round."""
    return f"counts {number}"
