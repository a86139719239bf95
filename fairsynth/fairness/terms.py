"""Several fairness losses -> the one that is trained.

In:  loss functions of counts (G, 4), each with the comparison, share and favourable outcome that the plan gives it.
Out: one loss function of counts; its gradient is the sum of theirs, so sites' gradients still add up.
Never: names of losses, entry points (objectives.py), the weight lambda.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fairsynth.config import Favourable
from fairsynth.fairness.counts import MEMBERS, POSITIVES, PREDICTED, TRUE_POSITIVES

Loss = Callable[..., Tensor]  # as `objectives.Objective`


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """One loss and how it enters the sum."""

    loss: Loss
    comparison: str
    share: float


def favouring(loss: Loss, favourable: Favourable) -> Loss:
    """`loss`, told that this outcome does a patient good: for "negative" it sees the counts of `mirrored`."""
    if favourable == "positive":
        return loss

    def of_negatives(counts: Tensor, /, *, reference: Tensor, comparison: str) -> Tensor:
        return loss(mirrored(counts), reference=reference, comparison=comparison)

    return of_negatives


def mirrored(counts: Tensor) -> Tensor:
    """(G, 4) the counts with labels and predictions of 0 in place of those of 1; twice is the identity.

    Members stay; positives become N - P, predicted N - S, true positives the true negatives N - P - S + TP.
    """
    members, negatives = counts[:, MEMBERS], counts[:, MEMBERS] - counts[:, POSITIVES]
    unselected = members - counts[:, PREDICTED]
    true_negatives = negatives - counts[:, PREDICTED] + counts[:, TRUE_POSITIVES]
    return torch.stack([members, negatives, unselected, true_negatives], dim=1)


def weighted(parts: Sequence[Weighted]) -> Loss:
    """The sum over `parts` of share times loss; NaN where one of them is. A comparison given to it is ignored."""

    def total(counts: Tensor, /, *, reference: Tensor, comparison: str) -> Tensor:
        terms = [part.share * part.loss(counts, reference=reference, comparison=part.comparison) for part in parts]
        return torch.stack(terms).sum()

    return total
