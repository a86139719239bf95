"""HALO: a transformer over visits, and an autoregressive head over the tokens of one visit.

In:  a batch.   Out: one logit for every token of every predicted visit, or their loss.
Never: padding, files, global random state.

Visit level: bias-free multi-hot embedding + learned positions, pre-norm GPT-2 blocks, final LayerNorm -> history h_t.
Code level: `head`. Triangular weights are packed where they travel or lie on disk (`weights_of`, `build`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairsynth.config import GeneratorConfig
from fairsynth.errors import Problem, ProtocolError
from fairsynth.generator.base_rates import BIAS
from fairsynth.generator.batch import Batch, Bucket
from fairsynth.generator.head import Head, Terms
from fairsynth.generator.triangular import BLOCK, Triangle, block_for
from fairsynth.schemas import Arrays
from fairsynth.seeds import torch_stream
from fairsynth.visits.layout import Vocabulary

# Not cuDNN's: it plans 5 ms for every new shape, and nearly every batch has one.
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


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

    def forward(self, rows: Tensor, buckets: tuple[Bucket, ...]) -> Tensor:
        """(R, E) -> (R, E)."""
        return self.add(rows, self._attend(self.project(rows), buckets))

    def project(self, rows: Tensor) -> Tensor:
        """(R, E) -> (R, 3 E): query, key, value."""
        return cast(Tensor, self.attention_in(self.attention_norm(rows)))

    def add(self, rows: Tensor, attended: Tensor) -> Tensor:
        """(R, E) rows and what they attended to -> (R, E)."""
        rows = rows + self.attention_out(attended)
        return rows + cast(Tensor, self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(rows)))))

    def _attend(self, projected: Tensor, buckets: tuple[Bucket, ...]) -> Tensor:
        """(R, 3 E) -> (R, E). Row 0 is the start row of every patient; it sees itself only."""
        size = projected.shape[1] // 3
        mixed = [projected[:1, 2 * size :]]
        for bucket in buckets:
            if bucket.length == 2:
                mixed.append(self._attend_first(projected[:1], projected[1 : 1 + bucket.patients]))
                continue
            part = projected.index_select(0, bucket.gather)
            query, key, value = part.view(bucket.patients, bucket.length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
            own = attended.reshape(-1, size) if bucket.keep is not None else attended[:, 1:].reshape(-1, size)
            mixed.append(own if bucket.keep is None else own.index_select(0, bucket.keep))
        return torch.cat(mixed)

    def _attend_first(self, start: Tensor, rows: Tensor) -> Tensor:
        """(1, 3 E) the start row, (n, 3 E) row 1 of patients -> (n, E): a softmax over two rows is a sigmoid."""
        _, key, value = start.view(1, 3, self.heads, -1).unbind(1)
        query, own_key, own_value = rows.view(len(rows), 3, self.heads, -1).unbind(1)
        score = (query * (own_key - key)).sum(dim=-1, keepdim=True) / math.sqrt(query.shape[-1])
        return torch.lerp(value, own_value, torch.sigmoid(score).to(value.dtype)).flatten(1)


class Halo(nn.Module):
    """The generator. Build it with `build` or `initial_weights`: the constructor leaves the weights unset."""

    def __init__(self, *, vocabulary: Vocabulary, config: GeneratorConfig, block: int = BLOCK) -> None:
        super().__init__()
        self.layout = layout = vocabulary.layout
        self.embedding = nn.Parameter(torch.empty(layout.size - 1, config.embedding))  # `end` is never read
        self.positions = nn.Parameter(torch.empty(config.maximum_visits + 1, config.embedding))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.embedding)
        self.head = Head(embedding=config.embedding, tokens=layout.size, codes=layout.codes.stop, block=block)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    def forward(self, batch: Batch) -> Tensor:
        """(P, V) logits of every step's target, label visits first."""
        return self.head.logits(self.histories(batch), batch)

    def loss(self, batch: Batch, terms: Terms) -> Tensor:
        """() the sum of `terms` over all cells; see `Head.loss`."""
        return self.head.loss(self.histories(batch), batch, end=self.layout.end, terms=terms)

    def histories(self, batch: Batch) -> Tensor:
        """(R, E) h_t after the start row (row 0) and after each patient's rows 1 .. T."""
        rows = torch.cat([self.start(), self.embed(batch.inputs.tokens, batch.inputs.starts, batch.positions)])
        with sdpa_kernel(ATTENTION):
            for block in self.blocks:
                rows = block(rows, batch.buckets)
        return cast(Tensor, self.norm(rows))

    def start(self) -> Tensor:
        """(1, E) the embedded start row."""
        return self.embedding[self.layout.start : self.layout.start + 1] + self.positions[:1]

    def embed(self, tokens: Tensor, starts: Tensor, positions: Tensor) -> Tensor:
        """Rows of tokens in CSR, and their positions -> (rows, E)."""
        summed = functional.embedding_bag(tokens, self.embedding, starts, mode="sum")
        return summed + self.positions.index_select(0, positions)

    def triangles(self) -> dict[str, Triangle]:
        """The triangular weights, by name."""
        return {f"head.{name}": triangle for name, triangle in self.head.triangles().items()}


def initial_weights(vocabulary: Vocabulary, config: GeneratorConfig, *, seed: int) -> Arrays:
    """The weights that training starts from, the same everywhere for the same seed.

    GPT-2's initialisation for the transformer (normal, 0.02; projections back into the stream divided by
    sqrt(2 layers)), uniform in +-1/sqrt(N) for the head, whose output bias is 0: a site adds its own (`base_rates`).
    """
    generator = torch_stream(seed, "generator", "initial")
    bound = 1 / math.sqrt(config.embedding + vocabulary.layout.size)
    found: Arrays = {}
    for name, shape in shapes_of(_empty(vocabulary, config)).items():
        weight = torch.zeros(shape)
        if name.startswith("head.") and name != BIAS:
            weight.uniform_(-bound, bound, generator=generator)
        elif "norm.weight" in name:
            weight.fill_(1)
        elif not name.endswith("bias"):
            scale = math.sqrt(2 * config.layers) if name.endswith(("attention_out.weight", "mlp_out.weight")) else 1
            weight.normal_(0, 0.02 / scale, generator=generator)
        found[name] = weight.numpy()
    return found


def build(
    weights: Mapping[str, np.ndarray],
    *,
    vocabulary: Vocabulary,
    config: GeneratorConfig,
    device: torch.device | str = "cpu",
) -> Halo:
    """The model with these weights, laid out for `device`.

    Raises ProtocolError when names, shapes, type or finiteness do not fit.
    """
    model = _empty(vocabulary, config, block=block_for(device))
    check_weights(weights, model=model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(unpacked(weights[name], name, model=model))
    model.to(device)
    for name, triangle in model.triangles().items():
        model.get_parameter(name).register_hook(triangle.keep)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return model


def weights_of(model: Halo) -> Arrays:
    """A copy of the model's weights as they travel, by name: a triangular one as a vector of the entries it has."""
    return {name: packed(parameter, name, model=model) for name, parameter in model.named_parameters()}


def packed(values: Tensor, name: str, *, model: Halo) -> np.ndarray:
    """Values shaped like the parameter `name` as they travel."""
    triangle = model.triangles().get(name)
    values = values.detach() if triangle is None else triangle.pack(values.detach())
    return np.array(values.cpu().numpy())


def unpacked(array: np.ndarray, name: str, *, model: Halo) -> Tensor:
    """The inverse of `packed`, on the CPU."""
    triangle = model.triangles().get(name)
    values = torch.from_numpy(np.array(array))
    return values if triangle is None else triangle.unpack(values)


def shapes_of(model: Halo) -> dict[str, tuple[int, ...]]:
    """The shape in which each weight travels."""
    triangles = model.triangles()
    return {
        name: (triangles[name].free,) if name in triangles else tuple(parameter.shape)
        for name, parameter in model.named_parameters()
    }


def expected_shapes(vocabulary: Vocabulary, config: GeneratorConfig) -> dict[str, tuple[int, ...]]:
    """The shape in which each weight of a model of this size travels; nothing is allocated."""
    with torch.device("meta"):
        return shapes_of(Halo(vocabulary=vocabulary, config=config))


def check_weights(weights: Mapping[str, np.ndarray], *, model: Halo) -> None:
    """Raise ProtocolError with every way in which `weights` are not those of `model`."""
    shapes = shapes_of(model)
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


def _empty(vocabulary: Vocabulary, config: GeneratorConfig, *, block: int = BLOCK) -> Halo:
    """A model whose weights are unset; made on the meta device, so that no global random state moves."""
    with torch.device("meta"):
        model = Halo(vocabulary=vocabulary, config=config, block=block)
    return model.to_empty(device="cpu")
