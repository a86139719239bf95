"""Named random streams from one seed, so that adding a consumer moves no other.

Never: global random state.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream(seed: int, *path: str | int) -> int:
    """A 63-bit seed for one named purpose: `stream(plan.seed, "sample", "site-a", 7)`."""
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_stream(seed: int, *path: str | int) -> np.random.Generator:
    """A numpy generator for one named purpose."""
    return np.random.default_rng(stream(seed, *path))


class Streams:
    """Named numpy generators of one purpose, each going on where it was: drawn in parts is drawn at once."""

    def __init__(self, seed: int, *path: str | int) -> None:
        self._seed, self._path = seed, path
        self._begun: dict[tuple[str | int, ...], np.random.Generator] = {}

    def __call__(self, *path: str | int) -> np.random.Generator:
        """The generator of that name."""
        if path not in self._begun:
            self._begun[path] = numpy_stream(self._seed, *self._path, *path)
        return self._begun[path]


def torch_stream(seed: int, *path: str | int) -> torch.Generator:
    """A CPU torch generator for one named purpose."""
    import torch  # 1.7 s to import: only where tensors are drawn

    generator = torch.Generator()
    generator.manual_seed(stream(seed, *path))
    return generator
