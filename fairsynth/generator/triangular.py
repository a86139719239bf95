"""A product with a strictly lower-triangular matrix that skips most of the zero half.

In:  hidden units, weights.   Out: their product, with exact gradients.
Never: a full-size mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

BLOCK = 128  # rows of the weight matrix that share one product


def strictly_lower_linear(hidden: Tensor, weight: Tensor) -> Tensor:
    """(P, C) x (V, C) -> (P, V): row k of `weight` sees `hidden[:, :k]` only.

    `weight` must be zero on and above its diagonal; its gradient is.
    """
    return cast(Tensor, _StrictlyLower.apply(hidden, weight))  # type: ignore[no-untyped-call]  # torch leaves `apply` untyped


class _StrictlyLower(torch.autograd.Function):
    """Blocks of rows, each multiplied with the columns that its last row sees."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        blocks = _blocks(weight)
        return torch.cat([hidden[:, :seen] @ weight[low:high, :seen].T for low, high, seen in blocks], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        hidden, weight = ctx.saved_tensors
        to_hidden, to_weight = torch.zeros_like(hidden), torch.zeros_like(weight)
        for low, high, seen in _blocks(weight):
            part = gradient[:, low:high]
            to_hidden[:, :seen].addmm_(part, weight[low:high, :seen])
            to_weight[low:high, :seen] = part.T @ hidden[:, :seen]
            to_weight[low:high, low:seen].tril_(-1)
        return to_hidden, to_weight


def _blocks(weight: Tensor) -> Iterator[tuple[int, int, int]]:
    """(first row, row after the last, columns seen) of each block."""
    rows, columns = weight.shape
    for low in range(0, rows, BLOCK):
        high = min(low + BLOCK, rows)
        yield low, high, min(high - 1, columns)
