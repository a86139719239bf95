"""What a study plan fixes: its hash, its reference groups, its arms.

In:  a plan.   Out: values that server and sites must derive alike.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fairsynth.artefacts import sha256_json
from fairsynth.config import StudyPlan

PLAIN = "plain"  # HALO without the fairness term
FAIRSYNTH = "fairsynth"
ARMS = (PLAIN, FAIRSYNTH)
APPROACHES = ("real_only", "plain_synthetic", "oversampled", "fairsynth")  # in the order of every audit array
THRESHOLDS = ("half", "tuned")
SCORE_BINS = 200


def plan_sha256(plan: StudyPlan) -> str:
    """The hash that names the study; every message carries it."""
    return sha256_json(plan.model_dump(mode="json", by_alias=True))


def reference_mask(plan: StudyPlan) -> npt.NDArray[np.bool_]:
    """(G,) true for the groups that the others are compared to."""
    return np.array([group in plan.groups.reference for group in plan.groups.names], dtype=np.bool_)
