"""The tokens of a visit, drawn exactly and for all patients of a batch at once.

In:  histories, uniforms.   Out: the visits' tokens.
Never: an approximation; a pass over the whole head for every token.

Token k is on iff its logit exceeds logit(u_k). The head is strictly autoregressive, so x = [logits(x) > logit(u)] has
exactly one solution, the sequential sample. Panels of tokens are taken in order: what finished tokens contribute to a
panel is one product; inside it, iterating from "all off" settles at least one more token a pass, and stops at the
solution. In all, the head is passed once, whatever the number of tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fairsynth.generator.head import Head


def draw_visit(head: Head, history: Tensor, *, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """(n, E) histories, (n, V) uniforms -> (n, C) bool code tokens, (n,) bool whether the visit is the last."""
    size, codes = head.embedding, head.codes
    units = torch.cat(head.begin(history), dim=1)  # (n, width); high units wait for their tokens
    units = functional.pad(units, (0, head.width - units.shape[1]))
    threshold = torch.logit(uniform.to(history.dtype))
    visit = torch.zeros(len(history), codes, dtype=torch.bool, device=history.device)
    outputs, columns = head.output_shape.views(head.output), head.tokens_shape.views(head.tokens)
    for panel, weight, column in zip(head.output_shape.panels, outputs, columns, strict=True):
        if panel.low == codes:
            break
        width, split = panel.high - panel.low, size + panel.low
        own = slice(split, split + width)
        fixed = functional.linear(units[:, :split], weight[:, :split], head.output_bias[panel.low : panel.high])
        corners = column[:, :width], weight[:, split : split + width - 1].T
        drawn = settle(fixed, units[:, own], corners=corners, threshold=threshold[:, panel.low : panel.high])
        visit[:, panel.low : panel.high] = drawn
        tokens, starts = sparse(drawn)
        if len(tokens):
            units[:, split : split + column.shape[1]] += functional.embedding_bag(tokens, column, starts, mode="sum")
        units[:, own].relu_()
    units[:, size + codes :].relu_()
    last = outputs[-1][-1]
    return visit, units[:, : len(last)] @ last + head.output_bias[-1] > threshold[:, -1]


def settle(fixed: Tensor, units: Tensor, *, corners: tuple[Tensor, Tensor], threshold: Tensor) -> Tensor:
    """(n, w) bool: the tokens of a panel. `fixed` (n, w) logits without the panel's own units, `units` (n, w) those
    before its tokens and ReLU, `corners` what a token adds to the units (w, w) and a unit to the logits (w - 1, w).

    Patients whose tokens no longer change leave the computation.
    """
    adds, gives = corners
    width = gives.shape[0]
    drawn = fixed + functional.relu(units[:, :width]) @ gives > threshold
    waiting = drawn.any(dim=1).nonzero()[:, 0]
    while len(waiting):
        now = drawn[waiting]
        moved = units[waiting, :width] + now.to(units.dtype) @ adds[:, :width]
        new = fixed[waiting] + functional.relu(moved) @ gives > threshold[waiting]
        drawn[waiting] = new
        waiting = waiting[(new != now).any(dim=1)]
    return drawn


def sparse(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(n, N) bool -> token ids, and where each row's ids start."""
    owner, tokens = rows.nonzero(as_tuple=True)
    counts = torch.bincount(owner, minlength=len(rows))
    return tokens, counts.cumsum(0) - counts
