"""HALO of torch's own layers, for Opacus to take apart: the oracle of each patient's gradient."""

import math

import torch
from torch import nn
from torch.nn import functional


class Halo(nn.Module):
    def __init__(self, dense, plain, *, embedding, longest):
        super().__init__()
        size = plain.layout.size
        self.start, self.heads = plain.layout.start, plain.heads
        self.embedding = nn.Linear(size - 1, embedding, bias=False)
        self.positions = nn.Embedding(longest, embedding)
        self.blocks = nn.ModuleList(Block(embedding, plain.heads) for _ in range(plain.layers))
        self.norm = nn.LayerNorm(embedding)
        self.low = nn.Linear(embedding, embedding)
        self.high = nn.Linear(embedding, size - 1)
        self.tokens = nn.Linear(size - 1, size - 1, bias=False)
        self.output = nn.Linear(embedding + size - 1, size)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(self.turned(name, dense[self.ours(name)]))

    @staticmethod
    def ours(name):
        """The package's name of a parameter."""
        names = {
            "embedding.weight": "embedding",
            "positions.weight": "positions",
            "low.weight": "head.low",
            "low.bias": "head.low_bias",
            "high.weight": "head.high.weight",
            "high.bias": "head.high.bias",
            "tokens.weight": "head.tokens",
            "output.weight": "head.output",
            "output.bias": "head.output_bias",
        }
        return names.get(name, name)

    @staticmethod
    def turned(name, values):
        """The package keeps two of the matrices the other way round."""
        return values.transpose(-2, -1) if name in ("embedding.weight", "tokens.weight") else values

    def forward(self, rows):
        """(B, T + 1, V) -> the same shape."""
        inputs = rows[:, :, :-1]
        first = torch.zeros_like(inputs[:, :1])
        first[:, :, self.start] = 1
        ids = torch.arange(rows.shape[1]).expand(len(rows), -1)
        hidden = self.embedding(torch.cat([first, inputs[:, :-1]], dim=1)) + self.positions(ids)
        for block in self.blocks:
            hidden = block(hidden)
        history = self.norm(hidden)
        units = torch.cat([self.low(history), self.high(history) + self.tokens(inputs)], dim=2)
        return self.output(torch.relu(units))


class Block(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention_in, self.attention_out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.mlp_in, self.mlp_out = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, x):
        number, steps, size = x.shape
        query, key, value = (
            part.view(number, steps, self.heads, -1).transpose(1, 2)
            for part in self.attention_in(self.attention_norm(x)).split(size, dim=2)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(size // self.heads)
        seen = torch.ones(steps, steps).tril().bool()
        attended = functional.softmax(scores.masked_fill(~seen, -1e30), dim=3) @ value
        x = x + self.attention_out(attended.transpose(1, 2).reshape(number, steps, size))
        return x + self.mlp_out(functional.gelu(self.mlp_in(self.mlp_norm(x))))
