"""The four approaches that are compared: what each adds to a site's real training patients.

In:  real training patients; patients to add, by approach.   Out: one mixed training set an approach.
Never: validation or held-out patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairsynth.augmentation.plan import members_of
from fairsynth.federation.plans import APPROACHES
from fairsynth.schemas import IntArray
from fairsynth.visits.records import Records

REAL_ONLY, PLAIN_SYNTHETIC, OVERSAMPLED, FAIRSYNTH = APPROACHES


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A training set: the real patients first, then those that the approach added."""

    approach: str
    records: Records
    added: IntArray  # (G, 2) added patients by (group, label)


def mix(train: Records, *, plain: Records, copies: Records, fairsynth: Records, groups: int) -> tuple[Mixed, ...]:
    """The four training sets in the order of `APPROACHES`.

    `plain` and `fairsynth` are synthetic patients of the two generators, `copies` are repeated real ones.
    """
    nobody = train.take(np.zeros(0, dtype=np.int64))
    added = {REAL_ONLY: nobody, PLAIN_SYNTHETIC: plain, OVERSAMPLED: copies, FAIRSYNTH: fairsynth}
    return tuple(
        Mixed(
            approach=approach,
            records=Records.concatenate([train, added[approach]]),
            added=members_of(added[approach].group, added[approach].label, groups=groups),
        )
        for approach in APPROACHES
    )
