"""The method's runs -> what was asked of it before any run, and whether it got there.

In:  `Runs` of all sites together, and at the smallest site.   Out: `Target`s with the numbers that decide.
Never: a target met for want of numbers. Definitions in words: docs/evidence.md.

At the tuned threshold moving the base rate gains nothing, so there the lowest group's AUROC may stand for worst TPR.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from fairsynth.config import Strict
from fairsynth.experiments.evidence.contrasts import Runs, share_of_fresh
from fairsynth.experiments.evidence.counted import THRESHOLDS
from fairsynth.experiments.evidence.measures import NO_THRESHOLD, Key
from fairsynth.experiments.evidence.roles import FAMILIES, LOCAL, METHOD, ORACLE, POOLED, REAL_ONLY
from fairsynth.fairness.paired import Paired, paired

SHARE = 0.8  # of the way from real data alone to the oracle
PARITY = 0.05  # |log DI|, where the oracle gets there
F1_TOLERANCE = 0.02
POOLED_TOLERANCE = 0.02

Status = Literal["met", "missed", "not estimable"]
_SILENT = "FairSynth selects no protected patient on a seed"
_PREFERRED: tuple[Status, ...] = ("met", "missed", "not estimable")


class Judged(Strict):
    """A number against a limit."""

    metric: str  # the one that decides
    status: Status
    value: float | None
    low: float | None
    high: float | None
    limit: float  # `value` is to be at least this; at most, of |log DI|
    shown: bool | None  # whether all of the interval is on the right side of `limit`; None without an interval
    note: str = ""


class Target(Judged):
    """One thing asked of the method, for one predictor at one threshold."""

    name: str
    predictor: str
    threshold: str


def targets(runs: Runs, smallest: Runs) -> list[Target]:
    """All targets of one predictor, at each threshold."""
    predictor = runs.row.predictors[runs.predictor]
    return [
        Target(name=name, predictor=predictor, threshold=threshold, **found.model_dump())
        for threshold in THRESHOLDS
        for name, found in _at(runs, smallest, threshold).items()
    ]


def _at(runs: Runs, smallest: Runs, threshold: str) -> dict[str, Judged]:
    """Every target at one threshold, by name."""
    gains: list[Key] = [("worst_tpr", threshold)]
    if threshold == "tuned":
        gains.append(("lowest_group_auroc", NO_THRESHOLD))
    f1 = paired(runs.minus(METHOD, REAL_ONLY, ("f1", threshold)))
    return {
        "above_every_data_level_baseline": _either(_above_all(runs, key) for key in gains),
        "share_of_the_ceiling": _either(_share(runs, key) for key in gains),
        "parity_not_worse_than_real_only": _parity_kept(runs, threshold),
        "parity_where_the_oracle_reaches_it": _parity(runs, threshold),
        "f1_kept": _at_least(f1, -F1_TOLERANCE, metric="f1", runs=runs),
        "above_local_at_the_smallest_site": _either(_above_local(smallest, key) for key in gains),
        "near_pooled": _either(_near_pooled(runs, key) for key in gains),
    }


def _either(found: Iterable[Judged]) -> Judged:
    """The best of several metrics that may stand for one another; the first at a tie."""
    return min(found, key=lambda one: _PREFERRED.index(one.status))


def _above_all(runs: Runs, key: Key) -> Judged:
    """Above each data-level baseline by an interval without 0; the numbers are of the baseline that decides."""
    gains = {name: paired(runs.minus(METHOD, name, key)) for name in FAMILIES["data_level"] if name in runs.others}
    found = [_above(gain, metric=key[0], runs=runs, note=f"against {name}") for name, gain in gains.items()]
    if not found:
        return _unknown(key[0], limit=0.0, note="no data-level baseline in these trials")
    lost = [one for one in found if one.status == "missed" or one.shown is False]
    if lost:
        return min(lost, key=lambda one: one.value or 0.0).model_copy(update={"status": "missed"})
    for one in found:
        if one.shown is None:
            return one.model_copy(update={"status": "not estimable"})
    return min(found, key=lambda one: one.low or 0.0)


def _share(runs: Runs, key: Key) -> Judged:
    found = share_of_fresh(runs, key)
    if found.share is None:
        return _unknown(key[0], limit=SHARE, note=found.reason)
    as_paired = Paired(mean=found.share, sd=None, low=found.low, high=found.high, seeds=found.seeds)
    return _at_least(as_paired, SHARE, metric=key[0], runs=runs)


def _parity_kept(runs: Runs, threshold: str) -> Judged:
    """|log DI| not above that of real data alone, where infinity, nobody protected selected, is above any number."""
    key = ("abs_log_di", threshold)
    mine, real = runs.of(METHOD, key), runs.of(REAL_ONLY, key)
    if (np.isinf(mine) & np.isfinite(real)).any():
        return _unknown(key[0], limit=0.0, note=_SILENT).model_copy(update={"status": "missed"})
    better = np.isfinite(mine) & np.isinf(real)
    change, rest = paired(runs.minus(METHOD, REAL_ONLY, key)[~better]), int((~better).sum())
    note = f"real only selects no protected patient on {better.sum()} of {len(mine)} seeds" if better.any() else ""
    if not rest:
        return _unknown(key[0], limit=0.0, note=note).model_copy(update={"status": "met"})
    return _judged(change, 0.0, metric=key[0], seeds=rest, sign=-1, note=note)


def _parity(runs: Runs, threshold: str) -> Judged:
    """|log DI| of the method itself, asked for only where the oracle shows that it can be had."""
    key = ("abs_log_di", threshold)
    mine, oracle = runs.of(METHOD, key), paired(runs.of(ORACLE, key))
    if oracle.mean is None or oracle.mean > PARITY:
        there = "nowhere" if oracle.mean is None else f"at {oracle.mean:.3f}"
        return _unknown(key[0], limit=PARITY, note=f"the oracle is {there}: not asked for")
    if np.isinf(mine).any():
        return _unknown(key[0], limit=PARITY, note=_SILENT).model_copy(update={"status": "missed"})
    return _judged(paired(mine), PARITY, metric=key[0], seeds=len(mine), sign=-1)


def _above_local(smallest: Runs, key: Key) -> Judged:
    if LOCAL not in smallest.others:
        return _unknown(key[0], limit=0.0, note=f"{LOCAL} was not run")
    return _above(paired(smallest.minus(METHOD, LOCAL, key)), metric=key[0], runs=smallest)


def _near_pooled(runs: Runs, key: Key) -> Judged:
    if POOLED not in runs.others:
        return _unknown(key[0], limit=-POOLED_TOLERANCE, note=f"{POOLED} was not run")
    return _at_least(paired(runs.minus(METHOD, POOLED, key)), -POOLED_TOLERANCE, metric=key[0], runs=runs)


def _above(gain: Paired, *, metric: str, runs: Runs, note: str = "") -> Judged:
    """More than 0."""
    found = _at_least(gain, 0.0, metric=metric, runs=runs, note=note)
    return found.model_copy(update={"status": "missed"}) if gain.mean == 0 and found.status == "met" else found


def _at_least(change: Paired, limit: float, *, metric: str, runs: Runs, note: str = "") -> Judged:
    return _judged(change, limit, metric=metric, seeds=len(runs.row.seeds), sign=1, note=note)


def _judged(change: Paired, limit: float, *, metric: str, seeds: int, sign: int, note: str = "") -> Judged:
    """By the mean, where it is defined on all of the seeds; whether the interval agrees is said beside it."""
    if change.mean is None or change.seeds < seeds:
        note = f"{note + ': ' if note else ''}defined on {change.seeds} of {seeds} seeds"
        return _unknown(metric, limit=limit, note=note).model_copy(update={"value": change.mean})
    nearest = change.low if sign > 0 else change.high
    return Judged(
        metric=metric,
        status="met" if sign * (change.mean - limit) >= 0 else "missed",
        value=change.mean,
        low=change.low,
        high=change.high,
        limit=limit,
        shown=None if nearest is None else sign * (nearest - limit) > 0,
        note=note,
    )


def _unknown(metric: str, *, limit: float, note: str) -> Judged:
    return Judged(
        metric=metric, status="not estimable", value=None, low=None, high=None, limit=limit, shown=None, note=note
    )
