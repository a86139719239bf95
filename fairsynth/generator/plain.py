"""HALO for one patient, in plain tensors: what `torch.func` can differentiate for many patients side by side.

In:  a model's weights as dense matrices, one patient's rows.   Out: the patient's loss, as `loss` and `head` define it.
Never: another patient; a custom gradient; anything faster than it is plain.

`model` forms one gradient of a whole batch and cannot say which patient asked for what. Here a patient's loss is a
function of its own rows alone. The triangular weights are full matrices under a mask, so that an entry that does not
exist has no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fairsynth.generator.batch import Sequences, gather
from fairsynth.generator.head import Target
from fairsynth.generator.model import Halo
from fairsynth.schemas import IntArray
from fairsynth.visits.layout import TokenLayout

Dense = dict[str, Tensor]  # weights or gradients by the model's names, triangles as matrices


class Patients(NamedTuple):
    """B patients of at most T visits. One patient is the same without the first dimension.

    rows   (B, T + 1, V) multi-hot: label visit, visits, nothing
    real   (B, T + 1) 1 where there is a row
    slopes (B, 2) lambda n c_S[g] and lambda n c_TP[g]
    label  (B,)
    """

    rows: Tensor
    real: Tensor
    slopes: Tensor
    label: Tensor

    def part(self, start: int, stop: int) -> Patients:
        """The patients `start` .. `stop` - 1."""
        return Patients(*(tensor[start:stop] for tensor in self))


@dataclass(frozen=True, kw_only=True, eq=False)
class Plain:
    """The size of a model, and where the entries of its triangles stand in their matrices."""

    layout: TokenLayout
    heads: int
    layers: int
    places: Mapping[str, Tensor]  # by name, (rows, columns): 1 + the place in the flat parameter, 0 where there is none
    over: Target = "codes"
    scale: float = 1.0  # of a patient's loss: 1 / (V * positions)

    @classmethod
    def of(cls, model: Halo, *, heads: int, over: Target, scale: float) -> Self:
        """Of `model` with `heads` attention heads, for a fairness term over `over`."""
        columns = {"head.low": model.head.embedding, "head.tokens": model.layout.size - 1}
        columns["head.output"] = model.head.embedding + model.layout.size - 1
        places = {}
        for name, triangle in model.triangles().items():
            flat = triangle.keep(torch.arange(1, triangle.size + 1))
            places[name] = triangle.dense(flat, columns=columns[name])
        return cls(layout=model.layout, heads=heads, layers=len(model.blocks), places=places, over=over, scale=scale)

    def dense(self, model: Halo) -> Dense:
        """The model's weights."""
        return {name: self._spread(name, parameter.detach()) for name, parameter in model.named_parameters()}

    def flat(self, name: str, values: Tensor, *, like: Tensor) -> Tensor:
        """Dense values of the weight `name` as the model keeps them, in the shape of `like`."""
        if name not in self.places:
            return values
        found = values.new_zeros(like.numel() + 1)
        found[self.places[name].flatten()] = values.flatten()
        return found[1:]

    def loss(self, weights: Dense, patient: Patients) -> Tensor:
        """() the loss of one patient: what `loss.py` says, without the mean over patients."""
        logits = self.logits(weights, patient.rows)
        cells = functional.binary_cross_entropy_with_logits(logits, patient.rows, reduction="none")
        total = (cells.sum(dim=1) * patient.real).sum()
        predicted, true_positives = self._counts(logits, patient)
        return self.scale * (total + patient.slopes[0] * predicted + patient.slopes[1] * true_positives)

    def logits(self, weights: Dense, rows: Tensor) -> Tensor:
        """(T + 1, V) multi-hot rows -> (T + 1, V) logits of each, given the rows before it."""
        inputs = rows[:, :-1]  # `end` is read by nothing
        start = weights["embedding"][self.layout.start : self.layout.start + 1]
        hidden = torch.cat([start, inputs[:-1] @ weights["embedding"]]) + weights["positions"][: len(rows)]
        for block in range(self.layers):
            prefix = f"blocks.{block}."
            hidden = self._block(
                hidden, {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            )
        return self._head(weights, _norm(hidden, weights, "norm"), inputs)

    def _head(self, weights: Dense, history: Tensor, inputs: Tensor) -> Tensor:
        low = history @ self._masked(weights, "head.low").T + weights["head.low_bias"]
        high = history @ weights["head.high.weight"].T + weights["head.high.bias"]
        high = high + inputs @ self._masked(weights, "head.tokens")
        units = torch.relu(torch.cat([low, high], dim=1))
        return units @ self._masked(weights, "head.output").T + weights["head.output_bias"]

    def _block(self, hidden: Tensor, weights: Dense) -> Tensor:
        steps, size = hidden.shape
        projected = _linear(_norm(hidden, weights, "attention_norm"), weights, "attention_in")
        query, key, value = projected.view(steps, 3, self.heads, -1).permute(1, 2, 0, 3)
        scores = query @ key.transpose(1, 2) / math.sqrt(size // self.heads)
        later = torch.ones(steps, steps, dtype=torch.bool, device=hidden.device).triu(1)
        attended = torch.softmax(scores.masked_fill(later, -math.inf), dim=-1) @ value
        hidden = hidden + _linear(attended.transpose(0, 1).reshape(steps, size), weights, "attention_out")
        inner = functional.gelu(_linear(_norm(hidden, weights, "mlp_norm"), weights, "mlp_in"))
        return hidden + _linear(inner, weights, "mlp_out")

    def _counts(self, logits: Tensor, patient: Patients) -> tuple[Tensor, Tensor]:
        """() each: the patient's expected positive predictions s_i, and true positives among them tp_i."""
        if self.over == "label":
            chance = torch.sigmoid(logits[0, self.layout.label])
            return chance, chance * patient.label
        chances = torch.sigmoid(logits[1:, self.layout.codes]) * patient.real[1:, None]
        return chances.sum(), (chances * patient.rows[1:, self.layout.codes]).sum()

    def _masked(self, weights: Dense, name: str) -> Tensor:
        return weights[name] * (self.places[name] > 0)

    def _spread(self, name: str, flat: Tensor) -> Tensor:
        if name not in self.places:
            return flat
        return torch.cat([flat.new_zeros(1), flat])[self.places[name]]


def patients_of(sequences: Sequences, rows: IntArray, *, slopes: Tensor) -> Patients:
    """The patients at `rows`; `slopes` (G, 2) are lambda n c by group."""
    steps = sequences.steps[rows]
    length, size = int(steps.max()), sequences.layout.size
    number = np.repeat(np.arange(len(rows)), steps)
    place = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
    elements, offsets = gather(sequences.offsets, np.repeat(sequences.starts[rows], steps) + place)
    dense = torch.zeros(len(rows), length, size)
    owner = np.repeat(np.arange(len(number)), np.diff(offsets))
    dense[number[owner], place[owner], sequences.tokens[elements]] = 1
    dense[np.arange(len(rows)), steps - 1, sequences.layout.end] = 1
    group = torch.from_numpy(sequences.group[rows])
    return Patients(
        rows=dense,
        real=torch.from_numpy(np.arange(length)[None, :] < steps[:, None]).to(dense.dtype),
        slopes=slopes.to(dense.dtype)[group],
        label=torch.from_numpy(sequences.label[rows]).to(dense.dtype),
    )


def _linear(rows: Tensor, weights: Dense, name: str) -> Tensor:
    return functional.linear(rows, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(rows: Tensor, weights: Dense, name: str) -> Tensor:
    return functional.layer_norm(rows, rows.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])
