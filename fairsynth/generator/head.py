"""The code level of HALO: logits of a visit's tokens, given the history and, for each token, the tokens before it.

In:  histories h_t, the visits' tokens.   Out: logits, or the training loss with its gradients in one go.
Never: padding, the visit level, files.

z = [h_t ; x_{t+1}], of N = E + V, goes through two N x N lower-triangular layers with a ReLU between; row E - 1 + k of
the second (counted from 0) is the logit of token k, so that token k sees h_t and the tokens before k only. The other
rows of the second layer, and what only they read, are never used, hence not stored. What is left:

    units = relu([L h + a ; H h + U x + b])     L (E, E), U (V - 1, V - 1) lower triangular;  H (V - 1, E) full
    logits = W units + c                        row k of W (V, E + V - 1) has its first E + k entries

U is stored by columns (`tokens`: row j is what token j adds to units j and above). Codes come before context tokens in
the layout (C codes, X = V - C others), which two things follow from. No code is on in a label visit, and all patients
share its history: units below E + C and code logits are the same for all label visits, and are computed once (row 0 of
R = 1 + sum T rows, which stands for B patients). No context token is on in a visit: only code panels of U are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fairsynth.generator.batch import Batch, PanelRows
from fairsynth.generator.triangular import ALIGNED, BLOCK, Panel, Triangle, edges, rounded

Target = Literal["codes", "label"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Terms:
    """What is summed over the cells of a batch, with y the target and p its predicted probability:

    scale * [ cross-entropy(p, y) + p * predicted + y p * true_positives ], the last two in the cells of `over` only
    (`codes`: code tokens of visits; `label`: token `label` of label visits). `predicted`, `true_positives` (B,).
    """

    scale: float
    over: Target = "codes"
    label: int = 0
    predicted: Tensor | None = None
    true_positives: Tensor | None = None


class Head(nn.Module):
    """The two triangular layers. `codes` is C, `tokens` V; panels have `block` rows, those of a batch too."""

    def __init__(self, *, embedding: int, tokens: int, codes: int, block: int = BLOCK) -> None:
        super().__init__()
        cuts = edges(codes, block=block)
        self.embedding, self.codes, self.block = embedding, codes, block
        self.low_shape = Triangle.lower([0, embedding], shift=1)
        self.tokens_shape = Triangle.upper([*cuts, tokens - 1], columns=tokens - 1)
        self.output_shape = Triangle.lower([*cuts, tokens], shift=embedding)
        self.low = nn.Parameter(torch.empty(self.low_shape.size))  # L
        self.low_bias = nn.Parameter(torch.empty(embedding))  # a
        self.high = nn.Linear(embedding, tokens - 1)  # H, b
        self.tokens = nn.Parameter(torch.empty(self.tokens_shape.size))  # U by columns
        self.output = nn.Parameter(torch.empty(self.output_shape.size))  # W
        self.output_bias = nn.Parameter(torch.empty(tokens))  # c
        self._held: dict[str, Tensor] = {}

    @property
    def width(self) -> int:
        """Columns of a matrix of units: E + V - 1, and as many zeros as panels reach beyond."""
        return rounded(self.embedding + self.high.out_features) + ALIGNED

    def scratch(self, name: str, *, like: Tensor) -> Tensor:
        """(R, width) numbers of any value, for R rows such as `like` has; kept for the next call.

        Fresh memory of this size is given back to the machine and taken anew at every step, page by page.
        """
        held = self._held.get(name)
        if (
            held is None
            or len(held) < len(like)
            or (held.dtype, held.device) != (like.dtype, like.device)
            or held.is_inference()  # which training could not write to
        ):
            self._held.pop(name, None)  # first, so that both need not fit
            del held
            held = self._held[name] = like.new_empty(len(like), self.width)
        return held[: len(like)]

    def release(self) -> None:
        """Let go of what `scratch` keeps."""
        self._held.clear()

    def triangles(self) -> dict[str, Triangle]:
        """The triangular weights, by name within the head."""
        return {"low": self.low_shape, "tokens": self.tokens_shape, "output": self.output_shape}

    def begin(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """(R, E) histories -> what they alone give: (R, E) low units, (R, V - 1) high units before tokens and ReLU."""
        (low,) = self.low_shape.views(self.low)
        return functional.relu(functional.linear(history, low, self.low_bias)), self.high(history)

    def logits(self, history: Tensor, batch: Batch) -> Tensor:
        """(R, E) histories -> (P, V) logits of every step, label visits first.

        Differentiable, for a term that needs a patient's logits together (`downstream`); all other training uses
        `loss`, which never holds all of them.
        """
        low, high = self.begin(history)
        codes, number = self.codes, len(batch)
        *code_panels, context_panel = self.tokens_shape.parts(self.tokens)
        columns = self.high.out_features
        added = [
            functional.pad(_bag(rows, panel)[:, : columns - rows.low], (rows.low, 0))
            for rows, panel in zip(batch.visits, code_panels, strict=True)
        ]
        visits = torch.cat([low[1:], functional.relu(high[1:] + sum(added))], dim=1)
        context = functional.relu(high[:1, codes:] + _bag(batch.contexts, context_panel))
        shared = torch.cat([low[:1], functional.relu(high[:1, :codes])], dim=1).expand(number, -1)
        units = torch.cat([torch.cat([shared, context], dim=1), visits])
        units = functional.pad(units, (0, self.width - units.shape[1]))
        parts = [
            functional.linear(units[:, : panel.last], view)
            for panel, view in zip(self.output_shape.panels, self.output_shape.parts(self.output), strict=True)
        ]
        return torch.cat(parts, dim=1) + self.output_bias

    def loss(self, history: Tensor, batch: Batch, *, end: int, terms: Terms) -> Tensor:
        """() the sum of `terms` over all cells of the batch, from (R, E) histories.

        `backward` of it adds to the gradients of the histories. The gradients of the head's own weights are formed
        here, panel by panel while a panel's logits are at hand, and added to `.grad` straight away, when `history`
        asks for a gradient: call it once for every `backward`, whose factor must be 1.
        """
        return cast(Tensor, _Loss.apply(history, self, batch, end, terms))  # type: ignore[no-untyped-call]  # torch


def _bag(rows: PanelRows, weight: Tensor) -> Tensor:
    """(rows, columns) sums of the panel's weight over each row's tokens."""
    return functional.embedding_bag(rows.tokens, weight, rows.starts, mode="sum")


class _Loss(torch.autograd.Function):
    """`Head.loss`: forward computes everything, backward hands out the histories' gradient."""

    @staticmethod
    def forward(ctx: Any, history: Tensor, head: Head, batch: Batch, end: int, terms: Terms) -> Tensor:
        gradient = history if ctx.needs_input_grad[0] else None
        work = _Work(head=head, batch=batch, terms=terms, end=end, history=history, trains=gradient is not None)
        total = work.run()
        ctx.save_for_backward(work.to_history)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (to_history,) = ctx.saved_tensors
        if (
            gradients[0].device.type == "cpu" and float(gradients[0]) != 1
        ):  # elsewhere the look would wait for the device
            raise RuntimeError("Head.loss: scale it by `terms.scale`, not afterwards")
        return to_history, None, None, None, None


class _Work:
    """One call of `Head.loss`. Rows: row 0 stands for the B label visits, rows 1 .. are visits."""

    def __init__(self, *, head: Head, batch: Batch, terms: Terms, end: int, history: Tensor, trains: bool) -> None:
        self.head, self.batch, self.terms, self.end, self.history = head, batch, terms, end, history
        self.trains = trains
        self.products = _Products.like(history)
        self.to_history: Tensor | None = None

    def run(self) -> Tensor:
        """() the loss; with `trains`, gradients are in `to_history` and in the head's parameters."""
        with torch.autocast(self.history.device.type, enabled=False):
            self._units()
            total = self._context_panel() + sum(self._code_panel(*each) for each in self._code_panels())
            if self.trains:
                self._back()
        return total * self.terms.scale

    def _units(self) -> None:
        """`units` (R, width), of which row 0 is right up to E + C; `context` (B, X - 1) units of label visits."""
        head, batch, size, codes = self.head, self.batch, self.head.embedding, self.head.codes
        (low,) = head.low_shape.views(head.low)
        self.stop = size + head.high.out_features  # of real columns
        self.units = units = head.scratch("units", like=self.history)
        self.products.write(units[:, :size], self.history, low.T)
        self.products.write(units[:, size : self.stop], self.history, head.high.weight.T)
        units[:, :size] += head.low_bias
        units[:, size : self.stop] += head.high.bias
        units[:, self.stop :] = 0
        *code_views, context_view = head.tokens_shape.views(head.tokens)
        for rows, view in zip(batch.visits, code_views, strict=True):
            units[1:, size + rows.low : size + rows.low + view.shape[1]] += _bag(rows, view)
        self.context = torch.relu(units[:1, size + codes : self.stop] + _bag(batch.contexts, context_view))
        units.relu_()
        if self.trains:
            self.to_units = head.scratch("to units", like=self.history)
            self.to_units[:, self.stop :] = 0  # the rest is written by the context panel, which sees all units

    def _code_panels(self) -> list[tuple[Panel, Tensor, PanelRows]]:
        views = self.head.output_shape.views(self.head.output)
        return list(zip(self.head.output_shape.panels, views, self.batch.visits, strict=False))

    def _code_panel(self, panel: Panel, weight: Tensor, rows: PanelRows) -> Tensor:
        """() the terms of one panel of code tokens; gradients of what it reads."""
        units = self.units[:, : panel.last]
        logits = self.products.times(units, weight.T).add_(self.head.output_bias[panel.low : panel.high])
        step = 1 + rows.owner  # of each target token
        cells = functional.softplus(logits)  # the cross-entropy of a cell that is off
        total = cells[1:].sum() + cells[0].sum() * len(self.batch) - logits[step, rows.tokens].sum()
        slope = logits.sigmoid_()
        extra = self._fairness(slope[1:], (rows.owner, rows.tokens)) if self.terms.over == "codes" else None
        slope[0] *= len(self.batch)
        slope[step, rows.tokens] -= 1
        if extra is not None:
            total = total + extra[0]
            slope[1:] += extra[1]
        if self.trains:
            slope *= self.terms.scale
            self._output(panel, slope, units)
            self.products.add(self.to_units[:, : panel.last], slope, weight)
        return total

    def _context_panel(self) -> Tensor:
        """() the terms of the context tokens and `end`, in label visits and in visits."""
        head, batch, panel = self.head, self.batch, self.head.output_shape.panels[-1]
        weight, split = head.output_shape.views(head.output)[-1], head.embedding + head.codes
        shared, own = weight[:, :split], weight[:, split:]
        units, mine = self.units[:, :split], self.units[1:, split : self.stop]
        first = self.products.times(units, shared.T).add_(head.output_bias[panel.low :])
        label_visits = self.products.times(self.context, own.T).add_(first[:1])
        visits = self.products.times(mine, own.T).add_(first[1:])
        contexts = batch.contexts
        last = self.end - panel.low
        total = functional.softplus(label_visits).sum() - label_visits[contexts.owner, contexts.tokens].sum()
        total = total + functional.softplus(visits).sum() - visits[batch.last, last].sum()
        of_labels, of_visits = torch.sigmoid(label_visits), torch.sigmoid(visits)
        extra = self._label_fairness(of_labels, panel) if self.terms.over == "label" else None
        of_labels[contexts.owner, contexts.tokens] -= 1
        of_visits[batch.last, last] -= 1
        if extra is not None:
            total = total + extra[0]
            of_labels[:, self.terms.label - panel.low] += extra[1]
        if self.trains:
            of_labels *= self.terms.scale
            of_visits *= self.terms.scale
            both = torch.cat([of_labels.sum(dim=0, keepdim=True), of_visits])
            into = self._output_gradient(panel)
            self.products.add(into[:, :split], both.T, units)
            self.products.add(into[:, split:], of_labels.T, self.context)
            self.products.add(into[:, split:], of_visits.T, mine)
            head.output_shape.trim(into, panel)
            _gradient(head.output_bias)[panel.low :] += both.sum(dim=0)
            self.products.write(self.to_units[:, :split], both, shared)
            self.products.write(self.to_units[1:, split : self.stop], of_visits, own)
            self.to_context = self.products.times(of_labels, own)
        return total

    def _fairness(self, chance: Tensor, targets: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
        """() the added terms over cells (sum T, w) of visits with these chances, and their slopes by logit."""
        if self.terms.predicted is None or self.terms.true_positives is None:
            return None
        patient = self.batch.patient
        weight = self.terms.predicted[patient][:, None].expand_as(chance).contiguous()
        weight[targets] += self.terms.true_positives[patient[targets[0]]]
        return (weight * chance).sum(), weight * chance * (1 - chance)

    def _label_fairness(self, chance: Tensor, panel: Panel) -> tuple[Tensor, Tensor] | None:
        """The same over the label token of label visits (B, X)."""
        if self.terms.predicted is None or self.terms.true_positives is None:
            return None
        chance = chance[:, self.terms.label - panel.low]
        weight = self.terms.predicted + self.terms.true_positives * self.batch.label
        return (weight * chance).sum(), weight * chance * (1 - chance)

    def _output_gradient(self, panel: Panel) -> Tensor:
        flat = _gradient(self.head.output)
        return flat[panel.start : panel.stop].view(panel.shape)

    def _output(self, panel: Panel, slope: Tensor, units: Tensor) -> None:
        into = self._output_gradient(panel)
        self.products.add(into, slope.T, units)
        self.head.output_shape.trim(into, panel)
        _gradient(self.head.output_bias)[panel.low : panel.high] += slope.sum(dim=0)

    def _back(self) -> None:
        """From the units' gradients to those of the first layer and of the histories."""
        head, batch, size, codes = self.head, self.batch, self.head.embedding, self.head.codes
        to_units = self.to_units.mul_(self.units > 0)
        to_context = self.to_context.mul_(self.context > 0)
        to_units[0, size + codes : self.stop] = to_context.sum(dim=0)
        shape = head.tokens_shape
        *code_views, context_view = shape.views(_gradient(head.tokens))
        for rows, panel, into in zip(batch.visits, shape.panels, code_views, strict=False):
            _add_by_token(into, rows, to_units[1:, size + rows.low : size + rows.low + into.shape[1]])
            shape.trim(into, panel)
        _add_by_token(context_view, batch.contexts, to_context)
        shape.trim(context_view, shape.panels[-1])
        to_low, to_high = to_units[:, :size], to_units[:, size : self.stop]
        (low,), (into,) = head.low_shape.views(head.low), head.low_shape.views(_gradient(head.low))
        self.products.add(into, to_low.T, self.history)
        head.low_shape.trim(into, head.low_shape.panels[0])
        self.products.add(_gradient(head.high.weight), to_high.T, self.history)
        sums = to_units.sum(dim=0)
        _gradient(head.low_bias).add_(sums[:size])
        _gradient(head.high.bias).add_(sums[size : self.stop])
        self.to_history = self.products.times(to_high, head.high.weight)
        self.products.add(self.to_history, to_low, low)


@dataclass(frozen=True, kw_only=True)
class _Products:
    """Matrix products in `inner` precision, sums in the precision of what they are added to."""

    inner: torch.dtype
    outer: torch.dtype

    @classmethod
    def like(cls, history: Tensor) -> Self:
        """In the precision of the autocast that is on, else in that of the histories."""
        kind = history.device.type
        inner = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else history.dtype
        return cls(inner=inner, outer=history.dtype)

    def times(self, left: Tensor, right: Tensor) -> Tensor:
        """left @ right."""
        left, right = left.to(self.inner), right.to(self.inner)
        if self.inner != self.outer and left.is_cuda:  # sums leave the chip as they are
            return torch.mm(left, right, out_dtype=self.outer)
        return (left @ right).to(self.outer)

    def write(self, into: Tensor, left: Tensor, right: Tensor) -> None:
        """into = left @ right."""
        if self.inner == self.outer:
            torch.mm(left, right, out=into)
        else:
            into.copy_(self.times(left, right))

    def add(self, into: Tensor, left: Tensor, right: Tensor) -> None:
        """into += left @ right."""
        if self.inner == self.outer:
            into.addmm_(left, right)
        else:
            into += self.times(left, right)


def _gradient(parameter: Tensor) -> Tensor:
    """The gradient to add to."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _add_by_token(into: Tensor, rows: PanelRows, to_rows: Tensor) -> None:
    """Add to each token's row of `into` (high - low, columns) the gradients of the rows that hold it."""
    if len(rows.rows):
        into += functional.embedding_bag(rows.rows, to_rows, rows.places, mode="sum")
