"""What a site checks of its own update before it leaves: once it is masked, the server can check its sum alone.

In:  the weights before and after training, moments and counts.   Out: the update, cut to the clip; or a ProtocolError.
Never: a value in a problem's text; a request, a file, the network.

These checks (4, 6 and 8 of docs/validation.md) catch a site's own faults. A site that lies skips them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fairsynth.config import StudyPlan
from fairsynth.federation.bounds import Reach, are_moments, distances
from fairsynth.federation.checks import refuse, rules, rules_of_counts
from fairsynth.generator.train import Moments
from fairsynth.schemas import Arrays, FloatArray, IntArray

_WHAT = "own update breaks a rule"


@dataclass(frozen=True, kw_only=True, eq=False)
class Clipped:
    """Weights whose distance from those received is at most the clip; `clipped` says whether they were cut to it."""

    weights: Arrays
    clipped: bool


def self_check(before: Arrays, after: Arrays, *, moments: Moments, limit: Reach) -> None:
    """Check a site's own update: finite, moved, no farther than its training can move, moments of clipped gradients.

    `before` and `after` are weights as they travel, without base rates. Raises ProtocolError with all problems.
    """
    arrays = {"weights": after, "first moments": moments.first, "second moments": moments.second}
    problems = [
        *rules(
            {
                **{
                    f"{kind}: the names of what was received": set(found) == set(before)
                    for kind, found in arrays.items()
                },
                **{f"{kind}: finite numbers": _is_finite(found) for kind, found in arrays.items()},
            },
            what=_WHAT,
        )
    ]
    refuse(problems)
    refuse(
        rules(
            {
                **{f"{name}: within what training can move": False for name in limit.exceeded(before, after)},
                **are_moments(moments.first, moments.second),
            },
            what=_WHAT,
        )
    )


def self_check_counts(counts: Mapping[str, FloatArray], *, cells: int, members: IntArray, plan: StudyPlan) -> None:
    """Check a site's own counts, (G, 4) each by name, as the server's door would. Raises ProtocolError.

    `cells` are visits (label visits included) times codes; `members` (G, 2) the training patients by label.
    """
    held: dict[str, bool | np.bool_] = {}
    for name, values in counts.items():
        held |= rules_of_counts(name, values, cells=cells, members=members, plan=plan)
    refuse(rules(held, what=_WHAT))


def clipped_update(after: Arrays, before: Arrays, *, clip: float) -> Clipped:
    """`after`, or where all weights together moved farther than `clip` (L2), the point on the way at that distance.

    One factor scales the whole update (Abadi et al. 2016), so its direction stays. Float32 in and out; the result's
    distance is at most `clip`, also after rounding. Raises ValueError unless `clip` is above 0 and the distance finite.
    """
    distance = math.hypot(*distances(before, after).values())
    if not (clip > 0 and math.isfinite(distance)):
        raise ValueError("clip must be above 0, and the update finite")
    if distance <= clip:
        return Clipped(weights=after, clipped=False)
    room = clip
    while True:
        scale = room / distance
        weights: Arrays = {
            name: (start + scale * (after[name].astype(np.float64) - start)).astype(np.float32)
            for name, start in ((name, array.astype(np.float64)) for name, array in before.items())
        }
        excess = math.hypot(*distances(before, weights).values()) - clip
        if excess <= 0:
            return Clipped(weights=weights, clipped=True)
        room = max(room - 2 * excess, 0.0)  # float32 rounded outwards


def _is_finite(arrays: Arrays) -> bool:
    return all(bool(np.isfinite(array.astype(np.float64)).all()) for array in arrays.values())
