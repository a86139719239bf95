"""HALO as published, written plainly from its equations: what `benchmarks.generator` measures against.

In:  `Records`, or the weights of our own model.   Out: the same losses, gradients and samples, slowly.
Never: a trick. It pads every patient to n_ctx rows, multiplies both head matrices by their masks at every pass, holds
       the zero halves, reads the whole prefix again for every visit, and passes the head once for every code that any
       patient of the batch has.

Published (Theodorou et al. 2023): rows start | label visit | visits, the last with `end`, then padding; bias-free
embedding of multi-hot rows, learned positions, pre-norm GPT-2 blocks (GELU in elementary operations; theirs in the tanh
form, here the exact one, which ours has); z = [h_t ; x_{t+1}] of N = E + V through two N x N layers under a triangular
mask of integers, with a ReLU between; row E - 1 + k is the logit of token k. The loss is the mean cross-entropy over
all B (n_ctx - 1) V cells, of which padding counts as zero: the same number as that of `Objective(positions=n_ctx - 1)`,
whose sum over real cells is divided by V B `positions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fairsynth.generator.model import Halo
from fairsynth.visits.layout import TokenLayout
from fairsynth.visits.records import Records

Draw = Callable[[Tensor], Tensor]  # chances of some cells -> which of them are on, of the same shape


class MaskedLinear(nn.Module):
    """A square layer whose row i reads the inputs 0 .. i."""

    def __init__(self, size: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(size)
        self.weight = nn.Parameter(torch.empty(size, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(size).uniform_(-bound, bound))
        self.register_buffer("mask", torch.tril(torch.ones(size, size, dtype=torch.int32)))

    def forward(self, rows: Tensor) -> Tensor:
        """(..., N) -> (..., N)."""
        return functional.linear(rows, self.weight * self.mask, self.bias)


class NaiveBlock(nn.Module):
    """A pre-norm GPT-2 block over a padded batch."""

    def __init__(self, *, embedding: int, heads: int, rows: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(embedding)
        self.attention_in = nn.Linear(embedding, 3 * embedding)
        self.attention_out = nn.Linear(embedding, embedding)
        self.mlp_norm = nn.LayerNorm(embedding)
        self.mlp_in = nn.Linear(embedding, 4 * embedding)
        self.mlp_out = nn.Linear(4 * embedding, embedding)
        self.register_buffer("mask", torch.tril(torch.ones(rows, rows)))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, n, E) -> (B, n, E)."""
        hidden = hidden + self.attention_out(self._attend(self.attention_in(self.attention_norm(hidden))))
        return hidden + self.mlp_out(gelu(self.mlp_in(self.mlp_norm(hidden))))

    def _attend(self, projected: Tensor) -> Tensor:
        patients, rows, width = projected.shape
        query, key, value = projected.view(patients, rows, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])  # (B, heads, n, n)
        mask = self.mask[:rows, :rows]
        shares = torch.softmax(scores * mask - 1e10 * (1 - mask), dim=3)
        return (shares @ value).transpose(1, 2).reshape(patients, rows, width // 3)


def gelu(values: Tensor) -> Tensor:
    """x times the normal distribution function at x."""
    return 0.5 * values * (1 + torch.erf(values / math.sqrt(2)))


class NaiveHalo(nn.Module):
    """The published model; `rows` is n_ctx."""

    def __init__(self, *, tokens: int, embedding: int, layers: int, heads: int, rows: int) -> None:
        super().__init__()
        self.size, self.rows = embedding, rows
        self.embedding = nn.Linear(tokens, embedding, bias=False)
        self.positions = nn.Embedding(rows, embedding)
        self.blocks = nn.ModuleList(NaiveBlock(embedding=embedding, heads=heads, rows=rows) for _ in range(layers))
        self.norm = nn.LayerNorm(embedding)
        self.first = MaskedLinear(embedding + tokens)
        self.second = MaskedLinear(embedding + tokens)

    @classmethod
    def like(cls, model: Halo) -> NaiveHalo:
        """The published model with the weights of ours: entries that ours does not have are zero."""
        embedding = model.embedding.shape[1]
        naive = cls(
            tokens=model.layout.size,
            embedding=embedding,
            layers=len(model.blocks),
            heads=model.blocks[0].heads,
            rows=model.positions.shape[0] + 1,
        )
        with torch.no_grad():
            for name, values in as_naive(model, lambda parameter: parameter.detach()).items():
                naive.get_parameter(name).copy_(values)
        return naive

    def forward(self, visits: Tensor) -> Tensor:
        """(B, n, V) rows -> (B, n - 1, V) chances of rows 1 .. n - 1, each given the rows before it."""
        history = self.histories(visits)[:, :-1]
        return torch.sigmoid(self.logits(torch.cat([history, visits[:, 1:]], dim=2)))

    def histories(self, visits: Tensor) -> Tensor:
        """(B, n, V) -> (B, n, E) after each row."""
        hidden = self.embedding(visits) + self.positions(torch.arange(visits.shape[1], device=visits.device))
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)

    def logits(self, z: Tensor) -> Tensor:
        """(..., N) histories and tokens -> (..., V)."""
        return self.second(functional.relu(self.first(z)))[..., self.size - 1 : -1]

    def loss(self, batch: NaiveBatch) -> Tensor:
        """() mean cross-entropy over all cells, padding as zero."""
        chances = self(batch.visits) * batch.real
        return functional.binary_cross_entropy(chances, batch.visits[:, 1:] * batch.real)


@dataclass(frozen=True, kw_only=True, eq=False)
class NaiveBatch:
    """`visits` (B, n_ctx, V) multi-hot rows, `real` (B, n_ctx - 1, 1): which of rows 1 .. are not padding."""

    visits: Tensor
    real: Tensor


def batch_of(records: Records, patients: np.ndarray, *, layout: TokenLayout, rows: int) -> NaiveBatch:
    """The patients at `patients`, padded to `rows` rows."""
    visits = np.zeros((len(patients), rows, layout.size), dtype=np.float32)
    real = np.zeros((len(patients), rows - 1, 1), dtype=np.float32)
    visits[:, 0, layout.start] = 1
    for i, patient in enumerate(patients):
        visits[i, 1, records.context[records.context_offsets[patient] : records.context_offsets[patient + 1]]] = 1
        first, stop = records.patient_offsets[patient], records.patient_offsets[patient + 1]
        for place, visit in enumerate(range(first, stop)):
            visits[i, 2 + place, records.codes[records.visit_offsets[visit] : records.visit_offsets[visit + 1]]] = 1
        visits[i, 1 + stop - first, layout.end] = 1
        real[i, : 1 + stop - first] = 1
    return NaiveBatch(visits=torch.from_numpy(visits), real=torch.from_numpy(real))


class NaiveTraining:
    """The published optimisation step: a padded batch, the loss, plain Adam; no clipping."""

    def __init__(self, model: NaiveHalo, *, records: Records, layout: TokenLayout) -> None:
        self.model, self.records, self.layout = model, records, layout
        self.optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(self, patients: np.ndarray) -> Tensor:
        """Move the weights by the patients' loss, which is returned."""
        batch = batch_of(self.records, patients, layout=self.layout, rows=self.model.rows)
        device = self.model.embedding.weight.device
        batch = NaiveBatch(visits=batch.visits.to(device), real=batch.real.to(device))
        self.optimiser.zero_grad()
        loss = self.model.loss(batch)
        loss.backward()
        self.optimiser.step()
        return loss.detach()


# --- sampling --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class NaiveVisit:
    """`visit` (B, V) the drawn tokens; `passes` of the head that it took."""

    visit: Tensor
    passes: int


@torch.no_grad()
def next_visit(model: NaiveHalo, visits: Tensor, *, draw: Draw, most_passes: int | None = None) -> NaiveVisit:
    """The next visit of every patient, given their (B, n, V) rows; every prefix is read again.

    Each pass draws all tokens that are left; the first token drawn by any patient is kept, and with it that nobody has
    a token before it. That is one pass for each distinct token of the batch, and one more. `most_passes` stops early.
    """
    history = model.histories(visits)[:, -1]  # (B, E)
    visit = torch.zeros(len(visits), visits.shape[2], device=visits.device)
    done = passes = 0
    while done < visit.shape[1] and passes != most_passes:
        drawn = draw(torch.sigmoid(model.logits(torch.cat([history, visit], dim=1))))
        passes += 1
        left = drawn[:, done:].any(dim=0).nonzero()
        if not len(left):
            break
        first = done + int(left[0, 0])
        visit[:, first] = drawn[:, first].to(visit.dtype)
        done = first + 1
    return NaiveVisit(visit=visit, passes=passes)


def sample_rows(model: NaiveHalo, visits: Tensor, *, end: int, draw: Draw) -> Tensor:
    """(B, n, V) rows to begin with -> (B, n', V): visits are added until all patients have ended, or n_ctx rows."""
    while visits.shape[1] < model.rows and not visits[:, :, end].any(dim=1).all():
        visits = torch.cat([visits, next_visit(model, visits, draw=draw).visit[:, None]], dim=1)
    return visits


# --- the weights of our model ----------------------------------------------------------------------------------------


def as_naive(model: Halo, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """`of` each parameter of our model (itself, or its gradient), in the shape and under the name that it has here."""
    values = {name: of(parameter) for name, parameter in model.named_parameters()}
    embedding, positions = values.pop("embedding"), values.pop("positions")
    head = {name.removeprefix("head."): values.pop(name) for name in list(values) if name.startswith("head.")}
    return {
        **values,
        "embedding.weight": functional.pad(embedding, (0, 0, 0, 1)).T,
        "positions.weight": functional.pad(positions, (0, 0, 0, 1)),
        **_head_as_naive(model, head),
    }


def _head_as_naive(model: Halo, values: dict[str, Tensor]) -> dict[str, Tensor]:
    shapes, size, tokens = model.head.triangles(), model.embedding.shape[1], model.layout.size
    first = values["low"].new_zeros(size + tokens, size + tokens)
    first[:size, :size] = shapes["low"].dense(values["low"], columns=size)
    first[size:-1, :size] = values["high.weight"]
    first[size:-1, size:-1] = shapes["tokens"].dense(values["tokens"], columns=tokens - 1).T
    second = torch.zeros_like(first)
    second[size - 1 : -1, :-1] = shapes["output"].dense(values["output"], columns=size + tokens - 1)
    return {
        "first.weight": first,
        "first.bias": functional.pad(torch.cat([values["low_bias"], values["high.bias"]]), (0, 1)),
        "second.weight": second,
        "second.bias": functional.pad(values["output_bias"], (size - 1, 1)),
    }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Between ours and the published model on one batch: of the loss, relative; of the gradients, the largest over
    all entries relative to the largest gradient of the same parameter."""

    loss: float
    gradients: float


def difference(model: Halo, loss: Callable[[], Tensor], batch: NaiveBatch) -> Difference:
    """Compare; `loss()` is our mean loss of the same patients with `positions` n_ctx - 1, not yet differentiated."""
    naive = NaiveHalo.like(model)
    model.zero_grad(set_to_none=False)
    ours, theirs = loss(), naive.loss(batch)
    ours.backward()
    theirs.backward()
    gradients = as_naive(model, _gradient)
    worst = 0.0
    for name, parameter in naive.named_parameters():
        expected = _gradient(parameter)
        scale = max(float(expected.abs().max()), torch.finfo(expected.dtype).tiny)
        worst = max(worst, float((gradients[name] - expected).abs().max()) / scale)
    return Difference(loss=abs(ours.item() / theirs.item() - 1), gradients=worst)


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
