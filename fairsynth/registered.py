"""What installed packages have registered under a name: objectives, tasks.

In:  a group of entry points.   Out: its entries by name.   Never: an import of what is registered.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType


def registered(group: str) -> MappingProxyType[str, EntryPoint]:
    """The entries of `group`, of the packages on the present path."""
    return _registered(group, tuple(sys.path))


@lru_cache(maxsize=8)  # each look reads the metadata of every package there is, and a study looks in every round
def _registered(group: str, path: tuple[str, ...]) -> MappingProxyType[str, EntryPoint]:
    del path  # what is found depends on it
    return MappingProxyType({entry.name: entry for entry in entry_points(group=group)})
