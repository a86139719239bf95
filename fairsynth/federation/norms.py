"""How far updates usually go: what an update is compared to beside the limit that no training can pass.

In:  weights before and after an accepted update, and how far it could come.   Out: whether another goes too far.
Never: weights kept; a number of one site's kept under its name.

A distance is told in units (`bounds.Reach.unit`, learning rate x steps) a weight, root mean square. In them large and
small sites, early and late rounds compare. One step after quiet ones moves a weight by 3.16 of them, so the fixed part
of the limit lies above that: it must refuse no honest update (docs/validation.md).
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping

from fairsynth.federation.bounds import Reach, distances
from fairsynth.schemas import Arrays

CLIP = 4.0  # units of all weights together: no update below it is refused
CLIP_ARRAY = 6.0  # of one array, which may be a few weights that move alike
FACTOR = 5.0  # times the running median: beyond both, an update is refused
KEPT = 256  # latest updates that the median is of
ALL = "weights"  # of all arrays together


class Norms:
    """The distances of the latest accepted updates, by array and of all arrays together."""

    def __init__(self) -> None:
        self._told: dict[str, deque[float]] = {}

    @property
    def told(self) -> dict[str, tuple[float, ...]]:
        """The distances, oldest first, as they are kept with a committed round."""
        return {name: tuple(moved) for name, moved in self._told.items()}

    def restore(self, told: Mapping[str, Iterable[float]]) -> None:
        """Go on from distances that were kept."""
        self._told = {name: deque(moved, maxlen=KEPT) for name, moved in told.items()}

    def limit(self, name: str) -> float:
        """Units that the array `name`, or `ALL`, may move: the clip, or five times the running median if it is more."""
        told, clip = self._told.get(name), CLIP if name == ALL else CLIP_ARRAY
        return max(clip, FACTOR * statistics.median(told)) if told else clip

    def exceeded(self, moved: Mapping[str, float]) -> list[str]:
        """The names of the arrays that moved so many `units`, farther than others do, `ALL` among them."""
        return [name for name, far in moved.items() if not far <= self.limit(name)]

    def remember(self, moved: Mapping[str, float]) -> None:
        """Count an accepted update, once all of its round are judged: none is judged by who answered first."""
        for name, far in moved.items():
            self._told.setdefault(name, deque(maxlen=KEPT)).append(far)


def units(before: Arrays, after: Arrays, *, limit: Reach) -> dict[str, float]:
    """Root mean square distance of each array, and of `ALL`, in units; what may decay or round is taken off first."""
    moved = distances(before, after)
    free = {name: limit.free(name, array) for name, array in before.items()}
    told = {
        name: max(moved[name] - free[name], 0.0) / (limit.unit * math.sqrt(max(array.size, 1)))
        for name, array in before.items()
    }
    size = sum(array.size for array in before.values())
    together = math.hypot(*moved.values()) - math.hypot(*free.values())
    return {ALL: max(together, 0.0) / (limit.unit * math.sqrt(max(size, 1))), **told}
