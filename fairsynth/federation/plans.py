"""What a study plan fixes: its hash, its reference groups, its arms.

In:  a plan.   Out: values that server and sites must derive alike.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fairsynth.artefacts import sha256_json
from fairsynth.config import StudyPlan
from fairsynth.schemas import SiteId

PLAIN = "plain"  # HALO without the fairness term
FAIRSYNTH = "fairsynth"
ARMS = (PLAIN, FAIRSYNTH)
APPROACHES = ("real_only", "plain_synthetic", "oversampled", "fairsynth")  # in the order of every audit array
THRESHOLDS = ("half", "tuned")
SCORE_BINS = 200
POOLED = SiteId("all-sites")  # in masked studies: the site that the sum of all sites is the reply of


def plan_sha256(plan: StudyPlan) -> str:
    """The hash that names the study; every message carries it."""
    return sha256_json(plan.model_dump(mode="json", by_alias=True))


def learning_rate(plan: StudyPlan, *, round_number: int) -> float:
    """The sites' learning rate in a round: a half cosine from the plan's rate to `final_learning_rate_share` of it.

    Sites that differ pull the average to and fro at a constant rate: each starts its optimiser anew, moves far in one
    round, and the mean of two far points fits neither (docs/federation.md).
    """
    training = plan.training
    done = min(round_number / max(training.rounds - 1, 1), 1.0)
    least = training.final_learning_rate_share
    first = plan.privacy.noise.learning_rate if plan.privacy.noised else training.learning_rate
    return first * (least + (1 - least) * (1 + math.cos(math.pi * done)) / 2)


def counted_rounds(plan: StudyPlan) -> tuple[int, ...]:
    """The rounds of the fairsynth arm in which noised counts of the received model are released; the last is of the
    final model.
    """
    every, rounds = plan.privacy.noise.counted_every, plan.training.rounds
    return (*range(0, rounds, every), rounds)


def is_taught(plan: StudyPlan) -> bool:
    """Whether a teacher that the sites train together chooses who of the generator's candidates has the outcome."""
    return plan.augmentation.candidates == "taught"


def reference_mask(plan: StudyPlan) -> npt.NDArray[np.bool_]:
    """(G,) true for the groups that the others are compared to."""
    return np.array([group in plan.groups.reference for group in plan.groups.names], dtype=np.bool_)
