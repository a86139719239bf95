"""Pooled counts -> what one more positive prediction costs: c_g = dL_F/dS_g and dL_F/dTP_g.

In:  the pooled counts (G, 4) of all sites.   Out: the loss and its derivatives (G, 2), which every site then applies
to its own patients: the sum over patients of c_S,g s_i + c_TP,g tp_i has, over all sites, exactly the gradient of the
pooled objective (chain rule; the counts are sums).   Never: patients, the weight lambda, bounds (the trainer's).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairsynth.config import ObjectiveConfig
from fairsynth.errors import CohortError
from fairsynth.fairness.counts import MEMBERS, POSITIVES, PREDICTED, TRUE_POSITIVES
from fairsynth.fairness.objectives import load_objective, load_term
from fairsynth.schemas import FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Coefficients:
    """The objective's value at the pooled counts, and its derivatives there."""

    loss: float  # L_F
    values: FloatArray  # (G, 2): dL_F/dS_g, dL_F/dTP_g; 0 for groups without members (dTP: without positives)


def coefficients(objective: ObjectiveConfig, counts: FloatArray, *, reference: npt.NDArray[np.bool_]) -> Coefficients:
    """Loss and derivatives of `objective` at pooled `counts` (G, 4); `reference` bool (G,).

    Raises ConfigError when the objective cannot be loaded, and CohortError when these counts leave it nobody to
    compare (no reference patient, no protected patient, or no positives where it needs them) or no finite gradient.
    """
    function = load_objective(objective)
    tensor = torch.tensor(counts, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor(reference, dtype=torch.bool)
    loss = function(tensor, reference=mask, comparison=objective.comparison)
    if not bool(torch.isfinite(loss)):
        raise CohortError.of(
            "the fairness objective has nobody to compare",
            where=f"objective: {', '.join(_undefined(objective, tensor, mask))}, pooled training counts of"
            f" {len(counts)} groups",
            expected="patients (for true-positive rates: positives) among reference and other groups",
            do="merge groups in the study file, or choose another objective",
        )
    (gradient,) = torch.autograd.grad(loss, tensor, allow_unused=True, materialize_grads=True)
    if not bool(torch.isfinite(gradient).all()):
        raise CohortError.of("the fairness objective has no finite gradient", where=f"objective: {names(objective)}")
    values = gradient[:, [PREDICTED, TRUE_POSITIVES]].numpy()
    values[counts[:, MEMBERS] == 0] = 0  # nobody multiplies these two, but pooled groups give them a slope
    values[counts[:, POSITIVES] == 0, 1] = 0
    return Coefficients(loss=loss.item(), values=values)


def names(objective: ObjectiveConfig) -> str:
    """The losses of `objective` in words: "disparate_impact + 0.5 worst_tpr"."""
    return " + ".join(f"{term.share:g} {term.name}" if term.share != 1 else term.name for term in objective.terms)


def _undefined(objective: ObjectiveConfig, counts: Tensor, reference: Tensor) -> list[str]:
    """Names of the losses that are not finite at `counts`."""
    losses = {
        term.name: load_term(term, target=objective.target)(counts, reference=reference, comparison=term.comparison)
        for term in objective.terms
    }
    return [name for name, loss in losses.items() if not bool(torch.isfinite(loss))]
