"""The visit level one row at a time: each patient's keys and values are kept, so that a row is read once.

In:  embedded rows, one for each patient of a batch that changes.   Out: histories h_t.
Never: randomness; a prefix read again.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import sdpa_kernel

from fairsynth.generator.model import ATTENTION, Block, Halo

_ROOM = 8  # rows that the cache grows by


class Cache:
    """Keys and values of n patients, of whom patient i has read `lengths[i]` rows.

    keys, values: one (n, heads, room, E / heads) tensor a layer. Begins without patients; all begin with the start row.
    """

    def __init__(self, model: Halo) -> None:
        self.model = model
        self._start: list[tuple[Tensor, Tensor]] = []
        self.start = self._read_start()
        self.lengths = torch.empty(0, dtype=torch.int64, device=model.device)
        self.keys = [key.expand(0, -1, -1, -1) for key, _ in self._start]
        self.values = [value.expand(0, -1, -1, -1) for _, value in self._start]

    def change(self, *, keep: Tensor, new: int) -> None:
        """Keep the patients at `keep` (indices), in that order, and add `new` ones that have read the start row."""
        if new == 0 and len(keep) == len(self.lengths):
            return
        self.lengths = torch.cat([self.lengths[keep], self.lengths.new_ones(new)])
        room = max(_ROOM, int(self.lengths.max()) if len(self.lengths) else 0)
        for layer, (key, value) in enumerate(self._start):
            self.keys[layer] = _joined(self.keys[layer], keep, key, new=new, room=room)
            self.values[layer] = _joined(self.values[layer], keep, value, new=new, room=room)

    def read(self, rows: Tensor) -> Tensor:
        """(n, E), the next embedded row of each patient -> (n, E) histories."""
        patients = torch.arange(len(rows), device=rows.device)
        longest = int(self.lengths.max()) + 1
        if longest > self.keys[0].shape[2]:
            pad = (0, 0, 0, longest + _ROOM - self.keys[0].shape[2])
            self.keys = [functional.pad(key, pad) for key in self.keys]
            self.values = [functional.pad(value, pad) for value in self.values]
        seen = torch.arange(longest, device=rows.device) <= self.lengths[:, None]  # (n, longest)
        mask = None if bool(seen.all()) else seen[:, None, None]
        with sdpa_kernel(ATTENTION):
            rows = self._read(rows, patients, mask=mask, longest=longest)
        self.lengths = self.lengths + 1
        return cast(Tensor, self.model.norm(rows))

    def _read(self, rows: Tensor, patients: Tensor, *, mask: Tensor | None, longest: int) -> Tensor:
        """(n, E) -> (n, E) through all blocks."""
        for layer, block in enumerate(cast(list[Block], self.model.blocks)):
            query, key, value = _heads(block.project(rows), block.heads)
            self.keys[layer][patients, :, self.lengths] = key
            self.values[layer][patients, :, self.lengths] = value
            attended = functional.scaled_dot_product_attention(
                query[:, :, None], self.keys[layer][:, :, :longest], self.values[layer][:, :, :longest], attn_mask=mask
            )
            rows = block.add(rows, attended.reshape(rows.shape))
        return rows

    def _read_start(self) -> Tensor:
        """(1, E) the history after the start row, which sees itself only."""
        rows = self.model.start()
        for block in cast(list[Block], self.model.blocks):
            _, key, value = _heads(block.project(rows), block.heads)
            self._start.append((key[:, :, None], value[:, :, None]))
            rows = block.add(rows, value.reshape(rows.shape))
        return cast(Tensor, self.model.norm(rows))


def _heads(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(n, 3 E) -> query, key and value, (n, heads, E / heads) each."""
    query, key, value = projected.view(len(projected), 3, heads, -1).unbind(1)
    return query, key, value


def _joined(kept: Tensor, keep: Tensor, start: Tensor, *, new: int, room: int) -> Tensor:
    """The rows `keep` of `kept`, then `new` times the start row; with room for `room` rows."""
    joined = kept.new_zeros(len(keep) + new, kept.shape[1], room, kept.shape[3])
    length = min(room, kept.shape[2])
    joined[: len(keep), :, :length] = kept[keep, :, :length]
    joined[len(keep) :, :, :1] = start
    return joined
