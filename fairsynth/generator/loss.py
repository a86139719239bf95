"""What training minimises, and the additive statistics of the fairness objective.

In:  logits of a batch.   Out: scalars and per-patient sums.
Never: a ratio of rates, or one patient's loss depending on another patient.

With V tokens, n patients pooled over all sites and `positions` predicted positions a patient on average (pooled):

    NLL_i = sum over the patient's predicted positions and all V tokens of the binary cross-entropy (nats; Eq. 3)
    loss  = mean over patients of [ NLL_i + lambda * n * (c_S[g] * s_i + c_TP[g] * tp_i) ] / (V * positions)

The constant divisor makes the first part HALO's loss: its mean over the pooled patients is the mean over the real
cells. The coefficients c = dL_F/dT of the pooled counts T make the second part the gradient of lambda * L_F (Eq. 4):
an average of sites weighted by their patients is the pooled objective. L_F stands beside the negative log-likelihood
of a patient, summed over classes as in Eq. 3, so that lambda means the same at every V: to first order, the minimum
of a target cell moves by -lambda * n * (c_S[g] + y * c_TP[g]) logits. Where a downstream loss steers, s_i is a frozen
predictor's score and tp_i is y_i s_i (`downstream`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fairsynth.generator.batch import Batch
from fairsynth.generator.head import Target
from fairsynth.visits.layout import TokenLayout


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientCounts:
    """(B,) each: actual positives (P), predicted (S) and true positives (TP) over a patient's target tokens."""

    positives: Tensor
    predicted: Tensor
    true_positives: Tensor


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The summed binary cross-entropy (nats) of all cells of (P, V) logits and targets."""
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")


def soft(logits: Tensor) -> Tensor:
    """Expected positive predictions of each cell: what training moves."""
    return torch.sigmoid(logits)


def hard(logits: Tensor) -> Tensor:
    """Positive predictions of each cell, P > 0.5: what reports show. It has no gradient."""
    return (logits > 0).to(logits.dtype)


def patient_counts(
    predictions: Tensor, target: Tensor, *, batch: Batch, over: Target, layout: TokenLayout
) -> PatientCounts:
    """Each patient's counts of (P, V) predictions.

    `codes`: all code tokens of the visits, label visit excluded. `label`: the label token of the label visit.
    """
    number = len(batch)
    steps = slice(number, None) if over == "codes" else slice(number)
    columns = layout.codes if over == "codes" else slice(layout.label, layout.label + 1)
    predicted, actual = predictions[steps, columns], target[steps, columns]
    patient = batch.step_patient[steps]

    def total(cells: Tensor) -> Tensor:
        return cells.new_zeros(len(batch)).index_add(0, patient, cells.sum(dim=1))

    return PatientCounts(positives=total(actual), predicted=total(predicted), true_positives=total(actual * predicted))
