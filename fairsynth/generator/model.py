"""HALO: a transformer over visits, and an autoregressive head over the tokens of one visit.

In:  the steps of a batch.   Out: one logit for every token of every predicted visit.
Never: padding, files, global random state.

Visit level: bias-free multi-hot embedding + learned positions, pre-norm GPT-2 blocks, final LayerNorm -> history h_t.
Code level: z = [h_t ; x_{t+1}], of N = E + V, goes through two N x N lower-triangular layers with a ReLU between; row
E - 1 + k of the second (counted from 0) is the logit of token k, so that token k sees h_t and the tokens before k only.
The other rows of the second layer, and what only they read, are never used, hence not stored. What is left falls into
five blocks (E history units `low`, V - 1 token units `high`):

    low  = relu(L h + a)                  L (E, E) lower triangular
    high = relu(H h + U x[:V-1] + b)      H (V - 1, E) full;  U lower triangular, stored transposed as `tokens`
    logits = A low + S high + c           A (V, E) full;      S (V, V - 1) strictly lower triangular

A triangular weight is stored with its other half zero, and its gradient there is zero: optimiser steps and averages
over sites keep it so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fairsynth.config import GeneratorConfig
from fairsynth.errors import Problem, ProtocolError
from fairsynth.generator.base_rates import BIAS
from fairsynth.generator.batch import Batch
from fairsynth.generator.triangular import strictly_lower_linear
from fairsynth.schemas import Arrays
from fairsynth.seeds import torch_stream
from fairsynth.visits.layout import Vocabulary


class Block(nn.Module):
    """A pre-norm GPT-2 block: causal self-attention, then a 4x GELU perceptron."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        size = config.embedding
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(size)
        self.attention_in = nn.Linear(size, 3 * size)
        self.attention_out = nn.Linear(size, size)
        self.mlp_norm = nn.LayerNorm(size)
        self.mlp_in = nn.Linear(size, 4 * size)
        self.mlp_out = nn.Linear(4 * size, size)

    def forward(self, steps: Tensor, runs: tuple[tuple[int, int], ...]) -> Tensor:
        """(P, E) -> (P, E); patients of equal length (a run) share one attention call."""
        steps = steps + self.attention_out(self._attend(self.attention_in(self.attention_norm(steps)), runs))
        return steps + cast(Tensor, self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(steps)))))

    def _attend(self, projected: Tensor, runs: tuple[tuple[int, int], ...]) -> Tensor:
        """(P, 3 E) queries, keys and values -> (P, E)."""
        mixed, start = [], 0
        for patients, length in runs:
            part = projected[start : start + patients * length]
            query, key, value = part.view(patients, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            mixed.append(attended.transpose(1, 2).reshape(patients * length, -1))
            start += patients * length
        return torch.cat(mixed)


class Head(nn.Module):
    """The code level: logits of a visit's tokens given the history and, for each token, the tokens before it."""

    def __init__(self, *, embedding: int, tokens: int) -> None:
        super().__init__()
        self.low = nn.Linear(embedding, embedding)  # L, a
        self.high = nn.Linear(embedding, tokens - 1)  # H, b
        self.tokens = nn.Parameter(torch.empty(tokens - 1, tokens - 1))  # U transposed: row j is what token j adds
        self.output_low = nn.Linear(embedding, tokens)  # A, c
        self.output_high = nn.Parameter(torch.empty(tokens, tokens - 1))  # S

    def forward(self, history: Tensor, tokens: Tensor, starts: Tensor) -> Tensor:
        """(P, E) histories and the visits' tokens in CSR (without `end`) -> (P, V) logits."""
        base, high = self.begin(history)
        return self.finish(base, high, tokens=tokens, starts=starts)

    def begin(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """What the history alone gives: (P, V) logits and (P, V - 1) hidden units before their ReLU."""
        low = functional.linear(history, self.low.weight, self.low.bias)
        return self.output_low(functional.relu(low)), self.high(history)

    def finish(self, base: Tensor, high: Tensor, *, tokens: Tensor, starts: Tensor) -> Tensor:
        """(P, V) logits from `begin` and the visits' tokens."""
        added = functional.embedding_bag(tokens, self.tokens, starts, mode="sum")
        return base + strictly_lower_linear(functional.relu(high + added), self.output_high)


class Halo(nn.Module):
    """The generator. Build it with `build` or `initial_weights`: the constructor leaves the weights unset."""

    def __init__(self, *, vocabulary: Vocabulary, config: GeneratorConfig) -> None:
        super().__init__()
        size = vocabulary.layout.size
        self.embedding = nn.Parameter(torch.empty(size - 1, config.embedding))  # `end` is never read
        self.positions = nn.Parameter(torch.empty(config.maximum_visits + 1, config.embedding))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.embedding)
        self.head = Head(embedding=config.embedding, tokens=size)

    def forward(self, batch: Batch) -> Tensor:
        """(P, V) logits of every step's target."""
        embedded = self.embed(batch.inputs, batch.input_starts, batch.positions)
        return cast(Tensor, self.head(self.mix(embedded, batch.runs), batch.targets, batch.target_starts))

    def embed(self, tokens: Tensor, starts: Tensor, positions: Tensor) -> Tensor:
        """Rows of tokens in CSR -> (P, E)."""
        return functional.embedding_bag(tokens, self.embedding, starts, mode="sum") + self.positions[positions]

    def mix(self, embedded: Tensor, runs: tuple[tuple[int, int], ...]) -> Tensor:
        """(P, E) embedded rows -> (P, E) histories h_t."""
        for block in self.blocks:
            embedded = block(embedded, runs)
        return cast(Tensor, self.norm(embedded))

    def triangular(self) -> tuple[tuple[nn.Parameter, Callable[[Tensor], Tensor]], ...]:
        """The weights of which only one triangle exists, with what keeps it."""
        head = self.head
        return (
            (cast(nn.Parameter, head.low.weight), torch.tril),
            (head.tokens, torch.triu),
            (head.output_high, lambda weight: torch.tril(weight, -1)),
        )


def initial_weights(vocabulary: Vocabulary, config: GeneratorConfig, *, seed: int) -> Arrays:
    """The weights that training starts from, the same everywhere for the same seed.

    GPT-2's initialisation for the transformer (normal, 0.02; projections back into the stream divided by
    sqrt(2 layers)), uniform in +-1/sqrt(N) for the head, whose output bias is 0: a site adds its own (`base_rates`).
    """
    model = _empty(vocabulary, config)
    generator = torch_stream(seed, "generator", "initial")
    bound = 1 / math.sqrt(config.embedding + vocabulary.layout.size)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name == BIAS:
                weight.zero_()
            elif name.startswith("head."):
                weight.uniform_(-bound, bound, generator=generator)
            elif name.endswith("bias"):
                weight.zero_()
            elif "norm" in name:
                weight.fill_(1)
            else:
                scale = math.sqrt(2 * config.layers) if name.endswith(("attention_out.weight", "mlp_out.weight")) else 1
                weight.normal_(0, 0.02 / scale, generator=generator)
    _keep_triangles(model)
    return weights_of(model)


def build(weights: Mapping[str, np.ndarray], *, vocabulary: Vocabulary, config: GeneratorConfig) -> Halo:
    """The model with these weights. Raises ProtocolError when names, shapes, type or finiteness do not fit."""
    model = _empty(vocabulary, config)
    check_weights(weights, model=model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(weights[name])))
    _keep_triangles(model)
    for weight, keep in model.triangular():
        weight.register_hook(keep)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return model


def weights_of(model: Halo) -> Arrays:
    """A copy of the model's weights, by name."""
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}


def check_weights(weights: Mapping[str, np.ndarray], *, model: Halo) -> None:
    """Raise ProtocolError with every way in which `weights` are not those of `model`."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    problems = [
        Problem(what="unknown or missing weight", where=name) for name in sorted(shapes.keys() ^ weights.keys())
    ]
    for name in sorted(shapes.keys() & weights.keys()):
        array = weights[name]
        if array.shape != shapes[name] or array.dtype != np.float32:
            expected = f"float32 {shapes[name]}"
            problems.append(Problem(what=f"weight is {array.dtype} {array.shape}", where=name, expected=expected))
        elif not np.isfinite(array).all():
            problems.append(Problem(what="weight is not finite", where=name))
    if problems:
        raise ProtocolError(problems)


def _empty(vocabulary: Vocabulary, config: GeneratorConfig) -> Halo:
    """A model whose weights are unset; made on the meta device, so that no global random state moves."""
    with torch.device("meta"):
        model = Halo(vocabulary=vocabulary, config=config)
    return model.to_empty(device="cpu")


def _keep_triangles(model: Halo) -> None:
    """Set the halves that do not exist to zero."""
    with torch.no_grad():
        for weight, keep in model.triangular():
            weight.copy_(keep(weight))
