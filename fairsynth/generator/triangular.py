"""How a triangular weight lies in memory, and how it travels.

In:  the shape of a triangle.   Out: panels (blocks of rows) to multiply with; packed vectors to send and to save.
Never: a full-size mask, a number for an entry that does not exist in what is packed.

The code level's two layers are lower triangular: half of each matrix does not exist. A triangle is stored as one flat
parameter, panel after panel: some rows, with the columns that any of them has. Products, gradients, optimiser steps and
averages then skip the missing half, but for the small corner of each panel, which is kept zero, as are up to 7 columns
that round its width up (a GPU multiplies only aligned rows at full speed). Packed, all that is left out too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

BLOCK = 256  # rows of a panel, where a product of few rows is slow and a missing half worth leaving out
BLOCK_CUDA = 1024  # on a GPU: fewer, larger kernels
ALIGNED = 8  # numbers: 16 bytes in bfloat16


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Rows `low` .. `high` - 1 with columns `first` .. `last` - 1, whole, from `start` on in the flat parameter.

    Columns from `end` on are those that round the width up.
    """

    low: int
    high: int
    first: int
    last: int
    end: int
    start: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.high - self.low, self.last - self.first

    @property
    def stop(self) -> int:
        """Where the next panel starts."""
        return self.start + (self.high - self.low) * (self.last - self.first)


@dataclass(frozen=True, kw_only=True)
class Triangle:
    """`lower`: row k has columns 0 .. k + shift - 1. `upper`: row k has columns k .. `end` - 1.

    The width of every panel but the last is rounded up.
    """

    side: Literal["lower", "upper"]
    panels: tuple[Panel, ...]
    shift: int = 0

    @classmethod
    def lower(cls, cuts: Sequence[int], *, shift: int) -> Self:
        """Rows cut at `cuts`; row k has its first k + `shift` columns."""
        panels: list[Panel] = []
        for low, high in itertools.pairwise(cuts):
            start = panels[-1].stop if panels else 0
            end = high - 1 + shift
            last = end if high == cuts[-1] else rounded(end)
            panels.append(Panel(low=low, high=high, first=0, last=last, end=end, start=start))
        return cls(side="lower", panels=tuple(panels), shift=shift)

    @classmethod
    def upper(cls, cuts: Sequence[int], *, columns: int) -> Self:
        """Rows cut at `cuts`; row k has columns k and above."""
        panels: list[Panel] = []
        for low, high in itertools.pairwise(cuts):
            start = panels[-1].stop if panels else 0
            last = columns if high == cuts[-1] else low + rounded(columns - low)
            panels.append(Panel(low=low, high=high, first=low, last=last, end=columns, start=start))
        return cls(side="upper", panels=tuple(panels))

    @property
    def size(self) -> int:
        """Numbers in the flat parameter."""
        return self.panels[-1].stop

    @property
    def free(self) -> int:
        """Numbers that exist: the length of the packed vector."""
        if self.side == "lower":
            return sum(sum(range(panel.low, panel.high)) + self.shift * panel.shape[0] for panel in self.panels)
        return sum(panel.end * panel.shape[0] - sum(range(panel.low, panel.high)) for panel in self.panels)

    def views(self, flat: Tensor) -> list[Tensor]:
        """Each panel of a flat tensor, (rows, columns)."""
        return [flat[panel.start : panel.stop].view(panel.shape) for panel in self.panels]

    def parts(self, flat: Tensor) -> list[Tensor]:
        """As `views`, to be read only: one gradient of the whole is formed of theirs, not one of it for each."""
        sizes = [panel.stop - panel.start for panel in self.panels]
        return [part.view(panel.shape) for part, panel in zip(torch.split(flat, sizes), self.panels, strict=True)]

    def trim(self, view: Tensor, panel: Panel) -> None:
        """Set the corner of a panel that does not exist to zero, in place."""
        if self.side == "lower":
            view[:, panel.low + self.shift :].tril_(-1)
        else:
            view[:, : panel.high - panel.low].triu_()
            view[:, panel.end - panel.first :].zero_()

    def keep(self, flat: Tensor) -> Tensor:
        """A copy of a flat tensor with every missing entry zero."""
        copy = flat.clone()
        for view, panel in zip(self.views(copy), self.panels, strict=True):
            self.trim(view, panel)
        return copy

    def pack(self, flat: Tensor) -> Tensor:
        """(free,) the entries that exist, row by row."""
        return torch.cat([view[self._exists(panel, flat.device)] for view, panel in self._pairs(flat)])

    def unpack(self, packed: Tensor) -> Tensor:
        """The flat tensor of a packed one; the inverse of `pack`."""
        flat = packed.new_zeros(self.size)
        start = 0
        for view, panel in self._pairs(flat):
            exists = self._exists(panel, flat.device)
            number = int(exists.sum())
            view[exists] = packed[start : start + number]
            start += number
        return flat

    def dense(self, flat: Tensor, *, columns: int) -> Tensor:
        """The (rows, `columns`) matrix, zeros and all."""
        full = flat.new_zeros(self.panels[-1].high, columns)
        for view, panel in self._pairs(flat):
            full[panel.low : panel.high, panel.first : panel.end] = view[:, : panel.end - panel.first]
        return full

    def _pairs(self, flat: Tensor) -> list[tuple[Tensor, Panel]]:
        return list(zip(self.views(flat), self.panels, strict=True))

    def _exists(self, panel: Panel, device: torch.device) -> Tensor:
        """(rows, columns) bool."""
        exists = torch.ones(panel.shape, dtype=torch.bool, device=device)
        self.trim(exists, panel)
        return exists


def rounded(width: int) -> int:
    """`width` rounded up to what is aligned."""
    return -(-width // ALIGNED) * ALIGNED


def block_for(device: torch.device | str) -> int:
    """Rows of a panel that suit a device. What is packed does not depend on it."""
    return BLOCK_CUDA if torch.device(device).type == "cuda" else BLOCK


def edges(rows: int, *, block: int = BLOCK) -> list[int]:
    """0, block, 2 block, ..., rows: where panels are cut."""
    return [*range(0, rows, block), rows]
