"""How far an arm of a study has come: the model on its way, and what its next round depends on.

In:  values.   Out: frozen values.   Never: files, messages.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairsynth.fairness.damping import Steering
from fairsynth.generator.train import Moments
from fairsynth.schemas import Arrays, FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A global model on its way, and the pooled soft counts (G, 4) that its next coefficients come from."""

    arm: str
    weights: Arrays
    counts: FloatArray | None = None
    moments: Moments | None = None  # of the sites' optimisers, averaged; none before the first round
    steering: Steering | None = None  # of the last round; none in the plain arm


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """An arm after `done` of its rounds; `first` are the pooled counts (G, 4) of the model that it began with."""

    model: Model
    done: int = 0
    first: FloatArray | None = None
