"""Label visits: group, label, sex and age from their joint distribution, then phenotypes; given any part of them.

In:  the history after the start row (one for all patients), conditions, uniforms.   Out: (n, X) bool context tokens.
Never: a chance that ignores what is given after a token.

Exactly one group, one sex and one age is on. For such a block the model's Bernoulli draws run in order until the first
that fires, under the condition that at least one does:

    P(first is k | any) = p_k prod_{j<k} (1 - p_j) / (1 - prod_j (1 - p_j))

All patients share the history, so the joint distribution of (group, label, sex, age) is one small table. A free token
is drawn from the table given all that is given, before it or after it, token by token: k is on with its chance given
that none before it in its block was. Phenotypes come after them in order; where one is given behind free tokens, whole
label visits are drawn until one fits (rejection: exact).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fairsynth.errors import ConfigError
from fairsynth.generator.conditions import FREE, Conditions
from fairsynth.generator.model import Halo
from fairsynth.generator.visit import settle

ATTEMPTS = 10_000
_TINY = 1e-300


class LabelVisits:
    """The model's label visits. Tokens are counted from the first context token, X in all with `start` and `end`."""

    def __init__(self, model: Halo, start: Tensor) -> None:
        """`start` (1, E) is the history after the start row."""
        head, layout = model.head, model.layout
        base = layout.codes.stop
        split = head.embedding + base
        low, high = head.begin(start)
        units = torch.cat([low, functional.relu(high[:, :base])], dim=1)
        weight = head.output_shape.views(head.output)[-1]
        self.fixed = functional.linear(units, weight[:, :split], head.output_bias[base:])  # (1, X)
        self.gives = weight[:, split:].T  # (X - 1, X)
        self.adds = head.tokens_shape.views(head.tokens)[-1]  # (X - 1, X - 1)
        self.units = high[:, base:]  # (1, X - 1), before tokens and ReLU
        self.blocks = [_shift(columns, base) for columns in (layout.groups, layout.sexes, layout.ages)]
        self.label, self.phenotypes = layout.label - base, _shift(layout.phenotypes, base)
        self.chances = self._joint()

    def draw(self, conditions: Conditions, uniforms: Callable[[np.ndarray, int], Tensor]) -> Tensor:
        """(n, X) bool. `uniforms(rows, attempt)` gives (len(rows), X) of the patients at `rows`.

        Raises ConfigError when no label visit with the phenotypes asked for came in `ATTEMPTS` tries.
        """
        number = len(conditions)
        visit = torch.zeros(number, self.fixed.shape[1], dtype=torch.bool, device=self.fixed.device)
        given = self._given(conditions)
        waiting = np.arange(number)
        for attempt in range(ATTEMPTS):
            uniform = uniforms(waiting, attempt)
            rows = torch.from_numpy(waiting).to(self.fixed.device)
            visit[rows], fits = self._draw([part[rows] for part in given], uniform)
            waiting = waiting[~fits.cpu().numpy()]
            if not len(waiting):
                return visit
        raise ConfigError.of(
            "phenotypes too rare for the generator",
            where=f"{len(waiting)} of {number} patients",
            expected=f"a label visit that fits within {ATTEMPTS} tries",
            do="ask for fewer phenotypes, or give group, label, sex and age as well",
        )

    def logits(self, visit: Tensor) -> Tensor:
        """(n, X) bool context tokens -> (n, X) logits."""
        added = visit[:, :-1].to(self.units.dtype) @ self.adds
        return self.fixed + functional.relu(self.units + added) @ self.gives

    def _draw(self, given: list[Tensor], uniform: Tensor) -> tuple[Tensor, Tensor]:
        """(m, X) label visits, and (m,) whether their phenotypes are as given."""
        *demographics, phenotypes = given
        visit = self._demographics(demographics, uniform)
        columns = self.phenotypes
        if columns.stop == columns.start:
            return visit, torch.ones(len(visit), dtype=torch.bool, device=visit.device)
        threshold = torch.logit(uniform[:, columns].to(self.fixed.dtype))
        imposed = self._imposed(given)
        infinite = torch.where(phenotypes == 1, -torch.inf, torch.inf).to(threshold.dtype)
        threshold = torch.where(imposed, infinite, threshold)
        added = visit[:, :-1].to(self.units.dtype) @ self.adds
        units = self.units + added
        before = slice(columns.start)
        fixed = self.fixed[:, columns] + functional.relu(units[:, before]) @ self.gives[before, columns]
        corners = self.adds[columns, columns], self.gives[columns, columns][:-1]
        drawn = settle(fixed, units[:, columns], corners=corners, threshold=threshold)
        visit[:, columns] = drawn
        return visit, ((phenotypes == FREE) | (drawn == (phenotypes == 1))).all(dim=1)

    def _imposed(self, given: list[Tensor]) -> Tensor:
        """(m, F) bool: the given phenotypes that no free token stands before."""
        *demographics, phenotypes = given
        whole = torch.stack([part != FREE for part in demographics]).all(dim=0)
        return whole[:, None] & (phenotypes != FREE).cumprod(dim=1).bool()

    def _demographics(self, given: list[Tensor], uniform: Tensor) -> Tensor:
        """(m, X) bool: group, label, sex and age, each from its chances given all that is given."""
        number = len(uniform)
        table = self.chances[None].expand(number, -1, -1, -1, -1)
        for axis, part in enumerate(given):
            size = table.shape[axis + 1]
            fits = (part[:, None] == FREE) | (part[:, None] == torch.arange(size, device=part.device))
            table = table * fits.view(number, *(size if place == axis else 1 for place in range(4)))
        visit = torch.zeros(number, self.fixed.shape[1], dtype=torch.bool, device=uniform.device)
        rows = torch.arange(number, device=uniform.device)
        groups, sexes, ages = self.blocks
        for part, columns in zip(given, (groups, self.label, sexes, ages), strict=True):
            chances = table.reshape(number, table.shape[1], -1).sum(dim=2)  # (m, size of the axis)
            if isinstance(columns, int):
                on = uniform[:, columns] < chances[:, 1] / chances.sum(dim=1).clamp_min(_TINY)
                chosen = torch.where(part == FREE, on.to(part.dtype), part)
                visit[:, columns] = chosen == 1
            elif columns.stop > columns.start:
                chosen = torch.where(part == FREE, first_to_fire(chances, uniform=uniform[:, columns]), part)
                visit[rows, columns.start + chosen] = True
            else:
                chosen = torch.zeros_like(part)
            table = table[rows, chosen]
        return visit

    def _joint(self) -> Tensor:
        """(G, 2, S, A) float64: the chance of each; an axis of an empty block has one entry."""
        groups, sexes, ages = self.blocks
        visit = torch.zeros(1, self.fixed.shape[1], dtype=torch.bool, device=self.fixed.device)
        joint = torch.ones(1, dtype=torch.float64, device=self.fixed.device)
        shape = []
        for columns in (groups, self.label, sexes, ages):
            logits = self.logits(visit)
            if isinstance(columns, int):
                chance = torch.sigmoid(logits[:, columns].double())
                chances, tokens = torch.stack([1 - chance, chance], dim=1), [None, columns]
            elif columns.stop > columns.start:
                chances, tokens = one_of(logits[:, columns]), list(range(columns.start, columns.stop))
            else:
                chances, tokens = torch.ones(len(visit), 1, dtype=torch.float64, device=joint.device), [None]
            joint = (joint[:, None] * chances).flatten()
            visit = visit.repeat_interleave(len(tokens), dim=0)
            for place, token in enumerate(tokens):
                if token is not None:
                    visit[place :: len(tokens), token] = True
            shape.append(len(tokens))
        return joint.view(*shape)

    def _given(self, conditions: Conditions) -> list[Tensor]:
        """Group, label, sex and age (n,), phenotypes (n, F): -1 where free."""
        number, device = len(conditions), self.fixed.device

        def tensor(array: np.ndarray | None, *more: int) -> Tensor:
            free = np.full((number, *more), FREE, dtype=np.int64)
            return torch.from_numpy(free if array is None else np.asarray(array, dtype=np.int64)).to(device)

        parts = (conditions.group, conditions.label, conditions.sex, conditions.age)
        return [*map(tensor, parts), tensor(conditions.phenotypes, self.phenotypes.stop - self.phenotypes.start)]


def one_of(logits: Tensor) -> Tensor:
    """(n, K) logits of a block while all of it is off -> (n, K) float64 chances that token k is the one that is on."""
    logits = logits.double()
    off = functional.logsigmoid(-logits).cumsum(1)
    first = functional.logsigmoid(logits) + off - functional.logsigmoid(-logits)
    return (first - torch.logsumexp(first, dim=1, keepdim=True)).exp()


def first_to_fire(chances: Tensor, *, uniform: Tensor) -> Tensor:
    """(n, K) chances of which one must be -> (n,) the first token whose uniform is below its chance, given that none
    before it was."""
    left = chances.flip(1).cumsum(1).flip(1).clamp_min(_TINY)
    hit = uniform < chances / left
    hit[:, -1] = True
    return hit.int().argmax(dim=1)


def _shift(columns: slice, base: int) -> slice:
    return slice(columns.start - base, columns.stop - base)
