"""What all sites know together of who has the outcome: the model that ranks a generator's candidates.

In:  each site's training and validation `Records`.   Out: a fitted model, and what was chosen.
Never: held-out patients; a patient that moves.

The mean of two models' log-odds: an exact federated logistic regression, whose penalty is chosen by the validation
log loss that the sites add up, and a few transformers trained by FedAvg from different seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairsynth import seeds
from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.federated_logistic import federated_logistic
from fairsynth.audit.federated_predictor import BySize, federated
from fairsynth.audit.fitting import FitSettings, Fitted
from fairsynth.federation.newton import STRENGTHS
from fairsynth.schemas import FloatArray, SiteId
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

CLIP = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """The sites' common knowledge."""

    members: tuple[Fitted, ...]
    shares: tuple[float, ...]  # of each member in the mean; they sum to 1
    inverse_strength: float  # that validation chose

    def scores(self, records: Records) -> FloatArray:
        """(B,) the predicted chance of label 1."""
        log_odds = sum(
            (
                share * _log_odds(member.scores(records))
                for member, share in zip(self.members, self.shares, strict=True)
            ),
            start=np.zeros(len(records)),
        )
        return np.asarray(0.5 * (1 + np.tanh(0.5 * log_odds)))


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """Its size: `transformers` of them, each trained for `rounds`; with none, the logistic regression teaches alone."""

    transformers: int = 4
    rounds: int = 3
    strengths: Sequence[float] = STRENGTHS


def teach(
    train: Mapping[SiteId, Records],
    *,
    validation: Mapping[SiteId, Records],
    vocabulary: Vocabulary,
    settings: TeacherSettings,
    threads: int,
    seed: int,
) -> Teacher:
    """Train the teacher on `train`. Raises CohortError unless the sites have patients of both labels."""
    found = {
        strength: federated_logistic(train, vocabulary=vocabulary, inverse_strength=strength)
        for strength in settings.strengths
    }
    losses = {
        strength: sum(_log_loss(fitted, validation[site], vocabulary=vocabulary) for site in sorted(validation))
        for strength, fitted in found.items()
    }
    best = min(losses, key=lambda strength: (losses[strength], strength))
    fit = FitSettings(epochs=1, threads=threads)
    networks = [
        federated(
            train,
            vocabulary=vocabulary,
            settings=fit,
            seed=seeds.stream(seed, "teacher", number),
            rounds=settings.rounds,
            weighting=BySize(),
        )
        for number in range(settings.transformers)
    ]
    halves = [0.5 / len(networks)] * len(networks) if networks else []
    return Teacher(members=(found[best], *networks), shares=(0.5 if networks else 1.0, *halves), inverse_strength=best)


def _log_loss(fitted: Fitted, records: Records, *, vocabulary: Vocabulary) -> float:
    """Nats, summed over patients."""
    log_odds = _log_odds(blind_scores(fitted, records, vocabulary=vocabulary))
    return float(np.logaddexp(0, np.where(records.label == 1, -log_odds, log_odds)).sum())


def _log_odds(scores: FloatArray) -> FloatArray:
    inside = np.clip(scores, CLIP, 1 - CLIP)
    return np.asarray(np.log(inside) - np.log1p(-inside))
