"""One optimisation step: patients in, weights moved.

In:  a model, an optimiser, the data set, the rows of the step's patients.   Out: their loss.
Never: an order of patients, an epoch, a file.

Gradients are clipped to norm 1. A patient's loss does not depend on another's, so a step may be formed from parts; a
machine whose memory runs out halves them and goes on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fairsynth.generator.batch import Batch, Sequences
from fairsynth.generator.downstream import DownstreamTerm
from fairsynth.generator.head import Target, Terms
from fairsynth.generator.model import Halo
from fairsynth.schemas import IntArray
from fairsynth.visits.layout import TokenLayout

CLIP_NORM = 1.0
MEASURE_STEPS = 1024  # predicted visits in one batch without a gradient
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fairness:
    """The fairness term: (G, 2) bounded `slopes` n * c, over which tokens, and lambda."""

    slopes: Tensor
    target: Target
    weight: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """What a step minimises (see `loss`): its patients' mean; `positions` is predicted visits a patient, pooled.

    A `downstream` term needs all logits at once, which costs about as much again as the rest (docs/feedback.md).
    """

    layout: TokenLayout
    positions: float
    fairness: Fairness | None = None
    downstream: DownstreamTerm | None = None

    def of(self, model: Halo, batch: Batch, *, share: float = 1.0) -> Tensor:
        """() `share` times the loss of `batch`; call `backward` on it as it is, once (see `Head.loss`)."""
        scale = share / (self.layout.size * self.positions * len(batch))
        terms = self._terms(batch, scale=scale)
        if self.downstream is None:
            return model.loss(batch, terms)
        histories = model.histories(batch)
        extra = self.downstream.of(model.head.logits(histories, batch), batch, codes=self.layout.codes)
        return model.head.loss(histories, batch, end=self.layout.end, terms=terms) + scale * extra

    def _terms(self, batch: Batch, *, scale: float) -> Terms:
        term = self.fairness
        if term is None:
            return Terms(scale=scale)
        slopes = (term.weight * term.slopes).to(batch.group.device)[batch.group]  # (B, 2)
        return Terms(
            scale=scale,
            over=term.target,
            label=self.layout.label,
            predicted=slopes[:, 0],
            true_positives=slopes[:, 1],
        )


@dataclass(kw_only=True, eq=False)
class Descent:
    """A model on its way down.

    `part` is how many patients' gradients are formed at once; None: all of a step's. `precision` is that of matrix
    products (torch.bfloat16 where the hardware has it); weights, sums and the optimiser keep float32.
    """

    model: Halo
    optimiser: torch.optim.Adam
    sequences: Sequences
    objective: Objective
    part: int | None = None
    precision: torch.dtype | None = None
    skipped: Tensor = field(init=False)  # () steps that moved nothing; on the device, so that no step waits for it

    def __post_init__(self) -> None:
        self.skipped = torch.zeros((), device=self.model.device)

    def step(self, rows: IntArray) -> Tensor:
        """Move the weights by the patients `rows`; () their loss before, without a gradient."""
        while True:
            try:
                total = self._gradient(rows)
                break
            except torch.OutOfMemoryError:
                size = min(self.part or len(rows), len(rows))
                if size == 1:
                    raise
                self.part = size // 2
                self.model.head.release()
                LOGGER.warning("out of memory: gradients of %d patients at once from here on", self.part)
        self._clip()
        self.optimiser.step()
        return total

    def _clip(self) -> None:
        """Have the optimiser divide the gradients as it reads them, and do nothing where one is not finite."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.optimiser.grad_scale = (norm / CLIP_NORM).clamp_min(1)  # type: ignore[attr-defined]  # as GradScaler does
        self.optimiser.found_inf = found = (~norm.isfinite()).to(norm.dtype)  # type: ignore[attr-defined]
        self.skipped += found

    def report(self) -> None:
        """Say how many steps so far moved nothing, if any did."""
        if number := int(self.skipped):
            LOGGER.warning("steps that moved nothing, since a gradient was not finite: %d", number)

    def _gradient(self, rows: IntArray) -> Tensor:
        """Leave the gradient of the patients' mean loss in the parameters."""
        self.optimiser.zero_grad(set_to_none=False)  # fresh memory costs more than zeros
        device = self.model.device
        total = torch.zeros((), device=device)
        size = min(self.part or len(rows), len(rows))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            batch = self.sequences.batch(part, block=self.model.head.block).to(device)
            with torch.autocast(device.type, dtype=self.precision, enabled=self.precision is not None):
                share = self.objective.of(self.model, batch, share=len(part) / len(rows))
            share.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total = total + share.detach()
        return total


@torch.no_grad()
def nll(model: Halo, sequences: Sequences, *, layout: TokenLayout) -> tuple[float, int]:
    """The summed negative log-likelihood (nats) of all patients, and the predicted visits (label visits too) in it."""
    total = 0.0
    for batch in sequences.batches(steps=MEASURE_STEPS, block=model.head.block):
        total += float(model.loss(batch.to(model.device), Terms(scale=1.0)))
    return total, int(sequences.steps.sum())


def adam(model: Halo, *, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Adam:
    """Fused Adam over all weights (Kingma and Ba 2015); `weight_decay` is decoupled (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
