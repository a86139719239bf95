"""How far one honest site's round can move a model: what the server refuses beyond, and the site cuts to.

In:  a plan, a round, a site's number of patients.   Out: bounds on its step and on its optimiser's moments.
Never: a value of a reply; a bound that an honest site can break.

Every bound follows from how a site trains (`generator.descent`), not from experience:

* Adam divides the mean of the gradients by the root of the mean of their squares. By the inequality of Cauchy and
  Schwarz the ratio is at most `STRIDE` (Kingma and Ba 2015, section 2.1, give the looser of its two factors), so no
  weight moves farther than `STRIDE` learning rates in a step, whatever the data. A start from moments that are averaged
  over sites keeps it: the root is concave.
* Gradients are clipped to norm 1. So the first moments, a mean of gradients, have at most norm 1, and the second
  moments, a mean of their squares, add up to at most 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairsynth.config import StudyPlan
from fairsynth.federation.plans import learning_rate
from fairsynth.generator.base_rates import BIAS
from fairsynth.schemas import Arrays

BETAS = (0.9, 0.999)  # Adam's, torch's default
STRIDE = (1 - BETAS[0]) / math.sqrt((1 - BETAS[1]) * (1 - BETAS[0] ** 2 / BETAS[1]))  # 7.27 learning rates
SLACK = 1.05  # float32 and bfloat16 round; the latter by 2^-9 of a number, each way, every round
ROUNDING = 2.0**-20  # of a weight's size: what float32 loses over the steps of a round
EPSILON = 1e-8  # Adam's, torch's default


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How far a site's weights can come in one round."""

    unit: float  # learning rate times steps: how far a weight moves whose gradients are all the same
    decay: float  # share of its own size by which a weight shrinks at most
    home: float  # size of the base rates that the site adds to its output bias, and takes off again

    def of(self, name: str, sent: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """The farthest that each weight of the array `sent` of that name moves, in its shape."""
        return STRIDE * SLACK * self.unit + self._drift(name, sent)

    def free(self, name: str, sent: npt.NDArray[np.generic]) -> float:
        """The part of it, L2 over the array, that is weight decay and rounding."""
        return float(np.linalg.norm(self._drift(name, sent).ravel()))

    def _drift(self, name: str, sent: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        size = np.abs(_wide(sent)) + (self.home if name == BIAS else 0.0)
        return size * (self.decay + ROUNDING)

    def farthest(self, size: float) -> float:
        """The largest weight after the round where `size` was the largest before; decay only shrinks."""
        return size * (1 + ROUNDING) + STRIDE * SLACK * self.unit

    def norm(self, sent: Arrays) -> float:
        """The farthest that all weights together move, L2: a clip that changes no honest update."""
        return math.sqrt(sum(float(np.square(self.of(name, array)).sum()) for name, array in sent.items()))

    def exceeded(self, before: Arrays, after: Arrays) -> list[str]:
        """The names of the arrays in which a weight moved farther, or to what is not a number."""
        return [
            name
            for name, array in sorted(before.items())
            if not bool((np.abs(_wide(after[name]) - _wide(array)) <= self.of(name, array)).all())
        ]


def reach(plan: StudyPlan, *, round_number: int, epochs: int, patients: int, visits: int) -> Reach:
    """How far a site of `patients` training patients with `visits` visits can come in `epochs` of a round."""
    steps = epochs * math.ceil(patients / plan.training.batch_size)
    if plan.privacy.noised and epochs:
        steps = plan.privacy.noise.steps
    unit = steps * learning_rate(plan, round_number=round_number)
    home = 2 * math.log(2 * max(patients, visits) + 2)  # `generator.base_rates`: log-odds of at most so many
    return Reach(unit=unit, decay=min(unit * plan.training.weight_decay, 1.0), home=home)


def distances(before: Arrays, after: Arrays) -> dict[str, float]:
    """How far each array moved, L2, in float64."""
    return {
        name: float(np.linalg.norm((after[name].astype(np.float64) - before[name].astype(np.float64)).ravel()))
        for name in sorted(before)
    }


def are_moments(first: Arrays, second: Arrays) -> dict[str, bool]:
    """Whether moments can be those of gradients of norm 1 at most, rule by rule; same names and shapes."""
    ratio = STRIDE * SLACK
    return {
        "first moments: norm at most 1": _sum(first, np.square) <= SLACK**2,
        "second moments: from 0": all(bool((_wide(array) >= 0).all()) for array in second.values()),
        "second moments: sum at most 1": _sum(second, np.abs) <= SLACK**2,
        "first moments: at most what the second ones allow": all(
            bool((np.abs(_wide(first[name])) <= ratio * np.sqrt(np.abs(_wide(second[name]))) + EPSILON).all())
            for name in first
        ),
    }


def _sum(arrays: Arrays, of: np.ufunc) -> float:
    return sum(float(of(_wide(array)).sum()) for array in arrays.values())


def _wide(array: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    return array.astype(np.float64)
