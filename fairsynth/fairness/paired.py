"""Two approaches with the same seeds -> how they differ, with an interval that says whether they do.

In:  one number a seed for each approach, in the same order of seeds.
Out: mean difference and Student's interval; the share of an oracle's gain; the best of several baselines.
Never: patients (paired_patients.py), names of metrics; a difference for a seed on which one side is undefined.

Student's interval holds the mean over further runs if the runs are independent. Where all seeds are judged on the same
held-out patients they share those patients' luck, and the interval is too narrow for other patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fairsynth.config import Strict
from fairsynth.schemas import FloatArray

CONFIDENCE = 0.95


class Paired(Strict):
    """A difference of two approaches over seeds. None: undefined, not zero."""

    mean: float | None  # over the seeds on which both are defined
    sd: float | None  # n - 1
    low: float | None  # interval; None with fewer than two seeds, or where all differences are the same
    high: float | None
    seeds: int  # on how many seeds both are defined

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval exists and does not hold 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


class CeilingShare(Strict):
    """How much of an oracle's gain over real data alone a method reaches; 1 is all of it."""

    share: float | None
    low: float | None
    high: float | None
    seeds: int
    reason: str = ""  # why there is no share, or no interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Best:
    """The best of several baselines."""

    name: str  # with the best mean over seeds
    values: FloatArray  # (K,) of that one
    each_seed: FloatArray  # (K,) the best of every seed, whichever baseline it is
    left_out: tuple[str, ...]  # baselines that are undefined on a seed


def paired(differences: FloatArray, *, confidence: float = CONFIDENCE) -> Paired:
    """Mean, sd and Student's interval of `differences` (K,), one a seed; those that are not finite are left out.

    Equal differences have no interval: without variation seeds tell nothing of it, and a width of 0 would be a false
    claim.
    """
    defined = differences[np.isfinite(differences)]
    low = high = None
    if len(defined) > 1 and np.ptp(defined) > 0:
        low, high = lower_limit(defined, tail=(1 - confidence) / 2), -lower_limit(-defined, tail=(1 - confidence) / 2)
    return Paired(
        mean=float(defined.mean()) if len(defined) else None,
        sd=float(defined.std(ddof=1)) if len(defined) > 1 else None,
        low=low,
        high=high,
        seeds=len(defined),
    )


def lower_limit(differences: FloatArray, *, tail: float, shared: float = 0.0) -> float:
    """The value that the mean of further `differences` (K,) falls below with probability `tail`, by Student's t.

    `shared` is the variance that all K have in common, as a multiple of the variance between them; it does not shrink
    as K grows. Where every seed holds out a share h of the same patients it is h / (1 - h): the mean over h N of N
    patients varies about that over all N by (1 - h) / h times what the mean over N varies by from one N to another.
    (Nadeau and Bengio, Inference for the generalization error, 2003, correct resampled differences alike.) NaN with
    fewer than two.
    """
    if len(differences) < 2:
        return float("nan")
    from scipy.stats import t as student  # half a second to import, of which who only reads verdicts has no use

    error = differences.std(ddof=1) * math.sqrt(1 / len(differences) + shared)
    return float(differences.mean() - student.ppf(1 - tail, len(differences) - 1) * error)


# --- the oracle ------------------------------------------------------------------------------------------------------


def ceiling_share(
    method: FloatArray,
    *,
    real_only: FloatArray,
    oracle: FloatArray,
    higher_is_better: bool = True,
    confidence: float = CONFIDENCE,
) -> CeilingShare:
    """mean(method - real_only) / mean(oracle - real_only) of seeds (K,), with Fieller's interval.

    A ratio of means, not a mean of ratios: a seed on which the oracle gains next to nothing would decide the latter.
    There is no share where the interval of the oracle's gain holds 0, and none where the oracle loses; Fieller's
    interval is finite wherever there is a share. Seeds on which a number is undefined are left out.
    """
    sign = 1 if higher_is_better else -1
    pairs = sign * np.stack([method - real_only, oracle - real_only])  # (2, K)
    gained, possible = pairs[:, np.isfinite(pairs).all(axis=0)]
    room = paired(possible, confidence=confidence)
    if not room.excludes_zero:
        return _no_share(room.seeds, "the interval of the oracle's gain holds 0, or there is none")
    if possible.mean() < 0:
        return _no_share(room.seeds, "the oracle does worse than real data alone")
    low, high = _fieller(gained, possible, confidence=confidence)
    return CeilingShare(share=float(gained.mean() / possible.mean()), low=low, high=high, seeds=len(possible))


def _fieller(above: FloatArray, below: FloatArray, *, confidence: float) -> tuple[float, float]:
    """The interval of mean(above) / mean(below): the ratios r for which above - r below has a mean of 0 within noise.

    They solve a r^2 - 2 b r + c <= 0, an interval if a > 0, that is, if mean(below) is not 0 within noise.
    """
    from scipy.stats import t as student

    quantile = student.ppf((1 + confidence) / 2, len(above) - 1)
    spread = np.cov(above, below) * quantile**2 / len(above)  # (2, 2)
    a = below.mean() ** 2 - spread[1, 1]
    b = above.mean() * below.mean() - spread[0, 1]
    c = above.mean() ** 2 - spread[0, 0]
    root = math.sqrt(max(b * b - a * c, 0.0))
    return float((b - root) / a), float((b + root) / a)


def _no_share(seeds: int, reason: str) -> CeilingShare:
    return CeilingShare(share=None, low=None, high=None, seeds=seeds, reason=reason)


# --- the best baseline -----------------------------------------------------------------------------------------------


def best_baseline(baselines: Mapping[str, FloatArray], *, higher_is_better: bool = True) -> Best | None:
    """The baseline (K,) with the best mean over seeds, the first at a tie; None where none is defined on every seed.

    Chosen on the numbers that it is then compared on, the best of several looks better than it is, so a gain over it
    is, if anything, understated. `each_seed` goes further: no single baseline does as well as the best of every seed.
    """
    sign = 1 if higher_is_better else -1
    usable = {name: values for name, values in baselines.items() if np.isfinite(values).all()}
    if not usable:
        return None
    name = max(usable, key=lambda one: sign * float(usable[one].mean()))
    each_seed = sign * np.max([sign * values for values in usable.values()], axis=0)
    left_out = tuple(one for one in baselines if one not in usable)
    return Best(name=name, values=usable[name], each_seed=each_seed, left_out=left_out)
