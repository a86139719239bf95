"""A site's changes from real data alone -> should it augment?

In:  per seed, what augmenting changed in a fairness metric, in F1 and in |log DI|; bootstrap replicates where scores of
     the patients are in one place (paired_patients.py).
Out: one of three verdicts, with the numbers it rests on and one sentence.
Never: a verdict from a point estimate; names of patients, sites or approaches. Rule and error rates: docs/no-harm.md.

A site augments where both are shown at one-sided 95 %: the fairness metric rises, and F1 does not fall by more than the
tolerance. Everything else is a reason not to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import FiniteFloat, NonNegativeInt

from fairsynth.config import Strict
from fairsynth.fairness.paired import CONFIDENCE, lower_limit
from fairsynth.schemas import FloatArray

F1_TOLERANCE = 0.02
MINIMUM_GROUPS = 2  # with enough positives: of one group alone, a worst TPR says nothing of fairness

Decision = Literal[
    "augment",
    "do not augment: the gain is within noise",
    "do not augment: F1 falls",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What augmenting changed in one metric, seed by seed."""

    seeds: FloatArray  # (K,) augmented minus real only
    replicates: FloatArray | None = None  # of the mean over seeds: `paired_patients.redraw_differences`
    held_out_share: float = 0.0  # of the same patients, held out anew with every seed; 0: the replicates know the rest


class Bounds(Strict):
    """A mean change with the one-sided limits that further seeds and patients keep to. None: cannot be said."""

    mean: FiniteFloat | None
    low: FiniteFloat | None  # the change is above it with the verdict's confidence
    high: FiniteFloat | None  # the change is below it with the verdict's confidence
    seeds: NonNegativeInt  # on how many of them it is defined


UNKNOWN = Bounds(mean=None, low=None, high=None, seeds=0)


class SiteChange(Strict):
    """What augmenting changed at a site with one predictor at one threshold: all that its verdict rests on."""

    predictor: str
    threshold: str
    gain: Bounds  # in worst TPR
    f1: Bounds
    abs_log_di: Bounds


class Verdict(Strict):
    """Whether a site should add synthetic patients to its real ones."""

    decision: Decision
    gain: Bounds  # in the fairness metric that should rise
    f1: Bounds
    abs_log_di: Bounds
    parity_worsens: bool  # |log DI| rises beyond noise: said in `text`, no part of the rule
    tolerance: float  # F1 may fall by so much
    confidence: float  # of each limit
    text: str

    @property
    def metric_falls(self) -> bool:
        """Whether the fairness metric is shown to fall: there is then no gain to be in any noise."""
        return _below_zero(self.gain)


def verdict(
    *,
    gain: Change,
    f1: Change,
    abs_log_di: Change,
    metric: str = "worst TPR",
    tolerance: float = F1_TOLERANCE,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """The verdict of one site; `metric` names in words what `gain` is of.

    A limit is the more cautious one of Student's over seeds and, where there are replicates, of the bootstrap over
    seeds and patients. A metric that is undefined on a seed shows nothing, and neither does a single seed: the answer
    is then not to augment.
    """
    risen, kept, parity = (bounds(change, confidence=confidence) for change in (gain, f1, abs_log_di))
    return judge(risen, kept, parity, metric=metric, tolerance=tolerance, confidence=confidence)


def judge(
    gain: Bounds,
    f1: Bounds,
    abs_log_di: Bounds,
    *,
    metric: str = "worst TPR",
    tolerance: float = F1_TOLERANCE,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """The verdict from limits that were formed elsewhere, at `confidence`: where the patients are."""
    decision = _decide(gain, f1, tolerance=tolerance)
    worsens = abs_log_di.low is not None and abs_log_di.low > 0
    text = _sentence(decision, gain, f1, metric=metric, tolerance=tolerance)
    if worsens:
        text += f", while |log DI| rises by {_number(abs_log_di.mean)}"
    return Verdict(
        decision=decision,
        gain=gain,
        f1=f1,
        abs_log_di=abs_log_di,
        parity_worsens=worsens,
        tolerance=tolerance,
        confidence=confidence,
        text=f"{text}.",
    )


def bounds(change: Change, *, confidence: float = CONFIDENCE) -> Bounds:
    """The mean of a change and its one-sided limits; no limits with fewer than two seeds, or an undefined one."""
    defined = change.seeds[np.isfinite(change.seeds)]
    low = high = None
    if len(defined) == len(change.seeds) > 1:
        tail = 1 - confidence
        shared = change.held_out_share / (1 - change.held_out_share)
        against = None if change.replicates is None else -change.replicates
        low = _lowest_of(defined, change.replicates, tail=tail, shared=shared)
        high = _negative(_lowest_of(-defined, against, tail=tail, shared=shared))
    return Bounds(mean=float(defined.mean()) if len(defined) else None, low=low, high=high, seeds=len(defined))


def _lowest_of(seeds: FloatArray, replicates: FloatArray | None, *, tail: float, shared: float) -> float | None:
    """The lower of the lower limits over seeds and over replicates; None where neither can be given.

    Seeds that are all the same (a predictor without randomness) give no limit of their own.
    """
    limits = [lower_limit(seeds, tail=tail, shared=shared)] if np.ptp(seeds) > 0 else []
    if replicates is not None:
        finite = np.isfinite(replicates)
        if finite.mean() < 1 - tail:  # too often undefined to say anything
            return None
        limits.append(float(np.quantile(replicates[finite], tail)))
    return min(limits) if limits else None


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _decide(gain: Bounds, f1: Bounds, *, tolerance: float) -> Decision:
    """F1 stands in the way where it is the one thing not shown, or is shown to fall by more than the tolerance."""
    rises = gain.low is not None and gain.low > 0
    keeps = f1.low is not None and f1.low >= -tolerance
    if rises and keeps:
        return "augment"
    if rises or _falls(f1, tolerance):
        return "do not augment: F1 falls"
    return "do not augment: the gain is within noise"


def _falls(f1: Bounds, tolerance: float) -> bool:
    """Whether F1 is shown to fall by more than the tolerance."""
    return f1.high is not None and f1.high < -tolerance


def _sentence(decision: Decision, gain: Bounds, f1: Bounds, *, metric: str, tolerance: float) -> str:
    """The decision and the numbers that made it."""
    at_least = f"{metric} changes by {_number(gain.mean)} ({_limit(gain.low)})"
    falls = f"F1 by {_number(f1.mean)} ({_limit(f1.low)}; {-tolerance:+.3f} is allowed)"
    if decision == "augment":
        return f"Augment: {at_least}, {falls}"
    if decision == "do not augment: F1 falls":
        return f"Do not augment: F1 {'falls' if _falls(f1, tolerance) else 'may fall'} too far: {at_least}, {falls}"
    reason = f"{metric} falls" if _below_zero(gain) else "the gain is within noise"
    return f"Do not augment: {reason}: {at_least}, {falls}"


def _below_zero(gain: Bounds) -> bool:
    return gain.high is not None and gain.high < 0


def _number(value: float | None) -> str:
    return "an unknown amount" if value is None else f"{value:+.3f}"


def _limit(low: float | None) -> str:
    return "no lower limit" if low is None else f"at least {low:+.3f}"
