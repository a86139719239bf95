"""R' in turns: plan -> generate -> train -> count -> plan, until the validation gain stops (paper, section 4.3).

In:  a function that tries a plan and returns validation counts; the counts with real patients alone.
Out: the plan to keep, or none, and every trial with the reason for which it was kept or not.
Never: patients, randomness, held-out patients. The best of several trials looks better on the patients that chose it
than it is: what it gains is to be read from held-out patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from fairsynth.augmentation.feedback import (
    Policy,
    Signal,
    ValidationCounts,
    next_positive_share,
    next_weights,
    overpredicts,
    quotas,
)
from fairsynth.fairness import metrics
from fairsynth.fairness.counts import FP, TN, from_confusion
from fairsynth.schemas import IntArray

Move = Literal["start", "rates", "positive_share", "patients"]
Outcome = Literal["accepted", "no gain", "undefined", "F1 too low", "disparate impact too far from 1"]
MOVES: tuple[Move, ...] = ("rates", "positive_share", "patients")
STEP = 1.5  # factor of the positives' odds in one move
FEWER = 0.5  # factor of the patients that are added


@dataclass(frozen=True, kw_only=True, eq=False)
class Criterion:
    """What a plan must raise, and what it must not spoil; all on real validation patients.

    of               what is raised: the worst TPR, -|log DI|, or the lowest AUROC of a group
    reference        (G,) bool, for DI
    f1_loss          F1 may be at most this much below that of real patients alone
    log_di           |log DI| may be at most this, or what it is with real patients alone if that is more
    minimum_positives groups with fewer are in no minimum, and do not move on their own counts
    """

    of: Literal["worst_tpr", "disparate_impact", "lowest_group_auroc"]
    reference: npt.NDArray[np.bool_]
    f1_loss: float = 0.02
    log_di: float = math.inf
    minimum_positives: int = 11

    def value(self, counts: ValidationCounts) -> float:
        """Higher is better; NaN where it is undefined."""
        if self.of == "disparate_impact":
            return -self.distance(counts)
        enough = metrics.sufficient(counts.confusion, minimum_positives=self.minimum_positives)
        if self.of == "worst_tpr":
            return float(metrics.lowest(metrics.true_positive_rate(counts.confusion), among=enough).value)
        negatives = counts.confusion[:, [FP, TN]].sum(axis=1) >= self.minimum_positives
        return float(metrics.lowest(metrics.auroc(counts.scores), among=enough & negatives).value)

    def distance(self, counts: ValidationCounts) -> float:
        """|log DI|; infinite where one side is never selected, NaN where DI is undefined."""
        ratio = float(metrics.disparate_impact(counts.confusion, reference=self.reference))
        return math.inf if ratio == 0 else abs(math.log(ratio))

    def outcome(self, counts: ValidationCounts, *, real_only: ValidationCounts, best: float) -> Outcome:
        """Whether a trial with these counts replaces one whose value is `best`, and why not."""
        value, (f1, f1_real) = self.value(counts), (_f1(each) for each in (counts, real_only))
        if math.isnan(value):
            return "undefined"
        if not (math.isnan(f1_real) or f1 >= f1_real - self.f1_loss):
            return "F1 too low"
        limit = max(each for each in (self.log_di, self.distance(real_only)) if not math.isnan(each))
        if not self.distance(counts) <= limit:
            return "disparate impact too far from 1"
        return "accepted" if value > best else "no gain"


@dataclass(frozen=True, kw_only=True)
class Search:
    """How plans are tried. `signal`: see `feedback.next_weights`."""

    signal: Signal = "tpr"
    damping: float = 1.0  # of the weights' steps; halved after each step that is not kept
    minimum_gain: float = 0.0  # of the criterion: less is no gain
    maximum_trials: int = 8
    patience: int = 4  # proposals in a row without a gain, after which the search ends: each move, and one made shorter


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Who is generated: `quotas` (S, G, 2) by site and cell, made by `policy`; `move` is what led there."""

    policy: Policy
    quotas: IntArray
    move: Move


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A plan that was tried, its validation counts, the criterion's value, and what became of it."""

    plan: Plan
    counts: ValidationCounts
    value: float
    outcome: Outcome


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """The best trial that was accepted, None if real patients alone are not improved on; and all trials in order."""

    best: Trial | None
    history: tuple[Trial, ...]
    real_only: float  # the criterion with real patients alone


def iterate(
    try_plan: Callable[[Plan], ValidationCounts],
    *,
    real_only: ValidationCounts,
    members: IntArray,
    budget: int | IntArray,
    criterion: Criterion,
    search: Search,
) -> Chosen:
    """Try plans until the gain stops, and return the best.

    The first is `equal_rates` with the whole budget of each site. From the best plan so far (from the latest, until one
    is accepted) one move at a time is proposed: other odds between the groups, another share of positives, fewer
    patients. A move that gains is made again; after one that does not, the next is made. A plan that was tried before
    is not tried again. `members` (S, G, 2) are the sites' real training patients, `budget` is that of one site
    or (S,) each site's own.
    """
    walk = _Walk(try_plan, real_only=real_only, members=members, budget=budget, criterion=criterion, search=search)
    while walk.misses < search.patience and len(walk.history) < search.maximum_trials:
        walk.go()
    return Chosen(best=walk.best, history=tuple(walk.history), real_only=criterion.value(real_only))


@dataclass(eq=False)
class _Walk:
    """An iteration under way."""

    try_plan: Callable[[Plan], ValidationCounts]
    real_only: ValidationCounts = field(kw_only=True)
    members: IntArray = field(kw_only=True)
    budget: int | IntArray = field(kw_only=True)
    criterion: Criterion = field(kw_only=True)
    search: Search = field(kw_only=True)
    best: Trial | None = None
    base: Trial | None = None  # where the next move starts
    move: Move = "start"
    damping: float = 1.0
    turned: bool = False  # the positives' odds are moved the other way than the counts suggest
    misses: int = 0
    history: list[Trial] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)

    def go(self) -> None:
        """Propose a plan, and try it unless that was done."""
        policy = self._proposed()
        plan = Plan(policy=policy, quotas=quotas(self.members, policy=policy, budget=self.budget), move=self.move)
        gained = plan.quotas.any() and plan.quotas.tobytes() not in self.seen and self._try(plan)
        if gained:
            self.misses = 0
            self.move = MOVES[0] if self.move == "start" else self.move
            return
        self.misses += self.move != "start"
        self.damping *= 0.5 if self.move == "rates" else 1
        self.turned ^= self.move == "positive_share"
        self.move = MOVES[0] if self.move == "start" else MOVES[(MOVES.index(self.move) + 1) % len(MOVES)]

    def _try(self, plan: Plan) -> bool:
        """Whether the plan is the best so far."""
        self.seen.add(plan.quotas.tobytes())
        counts = self.try_plan(plan)
        floor = self.criterion.value(self.real_only) if self.best is None else self.best.value
        least = -math.inf if math.isnan(floor) else floor + self.search.minimum_gain
        outcome = self.criterion.outcome(counts, real_only=self.real_only, best=least)
        trial = Trial(plan=plan, counts=counts, value=self.criterion.value(counts), outcome=outcome)
        self.history.append(trial)
        if outcome == "accepted":
            self.best = trial
        self.base = trial if self.best is None else self.best
        return outcome == "accepted"

    def _proposed(self) -> Policy:
        """The policy that `move` makes of the base's."""
        if self.base is None:
            return Policy(weights=np.ones(self.members.shape[1]))
        policy, counts = self.base.plan.policy, self.base.counts
        weights, share, spend = policy.weights, policy.positive_share, policy.budget_share
        if self.move == "rates":
            weights = next_weights(
                weights,
                counts=from_confusion(counts.confusion),
                signal=self.search.signal,
                minimum=self.criterion.minimum_positives,
                damping=self.search.damping * self.damping,
            )
        elif self.move == "positive_share":
            lower = overpredicts(counts.confusion) != self.turned
            share = next_positive_share(self.members + self.base.plan.quotas, lower=lower, factor=STEP)
        elif self.move == "patients":
            spend *= FEWER
        return Policy(weights=weights, positive_share=share, budget_share=spend)


def _f1(counts: ValidationCounts) -> float:
    return float(metrics.f1(metrics.pooled(counts.confusion)))
