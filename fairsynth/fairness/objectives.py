"""Counts by group -> a differentiable fairness loss.

In:  counts float64 (G, 4): members N_g, positives P_g, predicted S_g, true positives TP_g; which groups are reference.
Out: a scalar tensor, 0 where the groups are treated alike, NaN where there is nobody to compare.
Never: patients, batches, sites: the counts are pooled before a ratio is formed.

A group without members (for rates of true positives: without positives; of false positives: without negatives) is left
out, so it neither hurts nor turns gradients into NaN. `comparison` says how several protected groups are compared with
the pooled reference groups: "pooled" (all protected groups as one, as in the paper), "mean" or "max" over them.
Formulas, soft and hard, and how to add your own: docs/objectives.md.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from fairsynth.config import ObjectiveConfig, ObjectiveTerm
from fairsynth.errors import ConfigError, Problem
from fairsynth.fairness.counts import MEMBERS, POSITIVES, PREDICTED, TRUE_POSITIVES
from fairsynth.fairness.terms import Weighted, favouring, weighted
from fairsynth.registered import registered

ENTRY_POINTS = "fairsynth.objectives"
SOFTMIN_TEMPERATURE = 0.05  # of `worst_tpr`, in units of TPR: groups within about 0.05 of the worst share its gradient
_TARGETS = "targets"  # attribute of an objective that is defined for some targets only

Ratio = tuple[Tensor, Tensor]  # numerators and denominators, each (G,)


class Objective(Protocol):
    """Counts (G, 4) -> scalar loss; `reference` bool (G,); `comparison` "pooled", "mean" or "max"."""

    def __call__(self, counts: Tensor, /, *, reference: Tensor, comparison: str) -> Tensor:
        """The loss, differentiable in S_g and TP_g."""
        ...


_Function = TypeVar("_Function", bound=Callable[..., Tensor])


def for_targets(*targets: str) -> Callable[[_Function], _Function]:
    """Mark an objective as defined for these targets only ("codes", "label"); unmarked ones are defined for both."""

    def mark(objective: _Function) -> _Function:
        setattr(objective, _TARGETS, targets)
        return objective

    return mark


# --- the objectives --------------------------------------------------------------------------------------------------


def disparate_impact(counts: Tensor, /, *, reference: Tensor, comparison: str) -> Tensor:
    """|1 - R_protected / R_reference| with R = S / N (paper, Eq. 8 and Algorithm 2). NaN if R_reference is 0."""
    protected, base = _rates(_selection(counts), reference, comparison)
    return _combine((1 - protected / base).abs(), comparison) if bool(base > 0) else _undefined(counts)


def demographic_parity(counts: Tensor, /, *, reference: Tensor, comparison: str) -> Tensor:
    """|R_protected - R_reference| with R = S / N. For the target "codes" its unit is codes a patient."""
    return _difference(_selection(counts), reference, comparison)


def worst_tpr(counts: Tensor, /, *, reference: Tensor, comparison: str) -> Tensor:
    """1 - softmin_g TPR_g over every group with positives, TPR = TP / P (paper, Eq. 9).

    softmin(x) = -t log mean exp(-x / t) with t = `SOFTMIN_TEMPERATURE` lies between the minimum and the minimum
    + t log G, equals the TPR that all groups share if they do, and its gradient weights are positive and sum to 1.
    Eq. 9 knows neither a reference nor a comparison, so both arguments are ignored.
    """
    rates = _defined(*_sensitivity(counts))
    if not len(rates):
        return _undefined(counts)
    scaled = -rates / SOFTMIN_TEMPERATURE
    return 1 + SOFTMIN_TEMPERATURE * (torch.logsumexp(scaled, dim=0) - torch.log(scaled.new_tensor(len(rates))))


def equal_opportunity(counts: Tensor, /, *, reference: Tensor, comparison: str) -> Tensor:
    """|TPR_protected - TPR_reference| with TPR = TP / P."""
    return _difference(_sensitivity(counts), reference, comparison)


@for_targets("label")
def equalised_odds(counts: Tensor, /, *, reference: Tensor, comparison: str) -> Tensor:
    """Mean of |TPR_protected - TPR_reference| and of |FPR_protected - FPR_reference|.

    FPR = FP / negatives with FP = S - TP and negatives = N - P. That needs one prediction a patient: for the target
    "codes" P counts codes and N patients, N - P means nothing, and `load_objective` refuses the pair.
    """
    false_alarms = counts[:, PREDICTED] - counts[:, TRUE_POSITIVES], counts[:, MEMBERS] - counts[:, POSITIVES]
    missed = _difference(_sensitivity(counts), reference, comparison)
    return (missed + _difference(false_alarms, reference, comparison)) / 2


# --- the parts they share --------------------------------------------------------------------------------------------


def _selection(counts: Tensor) -> Ratio:
    return counts[:, PREDICTED], counts[:, MEMBERS]


def _sensitivity(counts: Tensor) -> Ratio:
    return counts[:, TRUE_POSITIVES], counts[:, POSITIVES]


def _difference(ratio: Ratio, reference: Tensor, comparison: str) -> Tensor:
    """|protected - reference|, combined over the protected groups; NaN where either side is empty."""
    protected, base = _rates(ratio, reference, comparison)
    return _combine((protected - base).abs(), comparison)


def _rates(ratio: Ratio, reference: Tensor, comparison: str) -> tuple[Tensor, Tensor]:
    """Rates of the protected groups that have a denominator, (K,) or pooled (1,), and the pooled reference's, ()."""
    numerators, denominators = ratio
    base = _pooled(numerators[reference], denominators[reference])
    if comparison == "pooled":
        return _pooled(numerators[~reference], denominators[~reference]).reshape(1), base
    return _defined(numerators[~reference], denominators[~reference]), base


def _pooled(numerators: Tensor, denominators: Tensor) -> Tensor:
    total = denominators.sum()
    return numerators.sum() / total if bool(total > 0) else _undefined(numerators)


def _defined(numerators: Tensor, denominators: Tensor) -> Tensor:
    """Rates of the groups whose denominator is positive; selecting first keeps 0 / 0 out of the gradient."""
    kept = denominators > 0
    return numerators[kept] / denominators[kept]


def _combine(losses: Tensor, comparison: str) -> Tensor:
    if not len(losses):
        return _undefined(losses)
    return losses.max() if comparison == "max" else losses.mean()


def _undefined(like: Tensor) -> Tensor:
    return like.new_tensor(float("nan"))


# --- loading ---------------------------------------------------------------------------------------------------------


def load_objective(config: ObjectiveConfig | str) -> Objective:
    """The objective that `config` (or a bare name) names among the entry points `fairsynth.objectives`, tried out.

    With further losses in `also` it is the weighted sum. Each is called on invented counts, once with every group and
    once with an empty group, and must give a finite scalar with a finite gradient that is not zero in S and TP. Raises
    ConfigError for an unknown name, an entry point that cannot be imported, a target it is not defined for, or a failed
    trial.
    """
    config = ObjectiveConfig(name=config, target="label") if isinstance(config, str) else config
    losses = [load_term(term, target=config.target) for term in config.terms]
    if len(losses) == 1 and config.share == 1:
        return losses[0]
    return weighted(
        [
            Weighted(loss=loss, comparison=term.comparison, share=term.share)
            for loss, term in zip(losses, config.terms, strict=True)
        ]
    )


def load_term(term: ObjectiveTerm, *, target: str) -> Objective:
    """The loss of one term, without its share, tried out. Raises ConfigError as `load_objective`."""
    objective = _import(_find(term.name))
    targets = getattr(objective, _TARGETS, None)
    if targets is not None and target not in targets:
        raise ConfigError.of(
            "objective not defined for this target",
            where=f"objective: {term.name}, target: {target}",
            expected=f"target {' or '.join(targets)}",
            do=f"set target: {targets[0]}, or choose another objective",
        )
    objective = favouring(objective, term.favourable)
    problems = [problem for counts in _probes() if (problem := _trial(objective, term, counts))]
    if problems:
        raise ConfigError(problems[:1])
    return objective


def _find(name: str) -> EntryPoint:
    known = registered(ENTRY_POINTS)
    if name not in known:
        raise ConfigError.of(
            "unknown objective",
            where=f"objective.name: {name}",
            expected=f"one of: {', '.join(sorted(known))}",
            do="correct the name, or install the package that provides it",
        )
    return known[name]


def _import(entry: EntryPoint) -> Objective:
    where = f"entry point {entry.name} = {entry.value}"
    try:
        objective: Objective = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError.of("objective cannot be imported", where=where, expected=type(error).__name__) from error
    if not callable(objective):
        raise ConfigError.of("objective is not a function", where=where, expected="a callable")
    return objective


def _probes() -> tuple[Tensor, Tensor]:
    """Invented counts of four groups, the first two reference; in the second, one protected group is empty."""
    full = torch.tensor(
        [[90.0, 30.0, 41.0, 22.0], [60.0, 21.0, 25.0, 13.0], [50.0, 12.0, 14.0, 5.0], [24.0, 9.0, 6.0, 3.0]],
        dtype=torch.float64,
    )
    empty = full.clone()
    empty[3] = 0
    return full, empty


def _trial(objective: Objective, term: ObjectiveTerm, probe: Tensor) -> Problem | None:
    """What is wrong with `objective` on `probe`, if anything."""
    counts = probe.clone().requires_grad_()
    reference = torch.tensor([True, True, False, False])
    expected = "a differentiable scalar tensor, finite, with a finite gradient that is not zero in S and TP"
    where = f"objective: {term.name}, comparison: {term.comparison}"
    do = "see docs/objectives.md, `Your own objective`"
    fault: str | None
    try:
        loss = objective(counts, reference=reference, comparison=term.comparison)
        fault = _fault(loss, counts)
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        fault = f"raises {type(error).__name__}"
    return Problem(what=f"objective {fault} on trial counts", where=where, expected=expected, do=do) if fault else None


def _fault(loss: Tensor, counts: Tensor) -> str | None:
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        return "does not return a scalar tensor"
    if not bool(torch.isfinite(loss)):
        return "is not finite"
    if not loss.requires_grad:
        return "has no gradient"
    (gradient,) = torch.autograd.grad(loss, counts, allow_unused=True, materialize_grads=True)
    if not bool(torch.isfinite(gradient).all()):
        return "has a gradient that is not finite"
    if not bool((gradient[:, PREDICTED:] != 0).any()):
        return "has no gradient in S and TP"
    return None
