"""What the sites know of who has the outcome: the model that ranks a generator's candidates.

In:  each site's training and validation `Records`.   Out: a `Teacher` for each site.
Never: held-out patients; a patient that moves; a forest that moves.

Two models that err differently, half and half in log-odds. The *common* one is an exact federated logistic regression,
whose penalty is chosen by the validation log loss that the sites add up: it knows all sites' patients, and sums
of single tokens only. The *own* one is a random forest of one site's patients: it knows few of them, and how tokens
act together. It never leaves its site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from fairsynth import seeds
from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.federated_logistic import federated_logistic
from fairsynth.audit.fitting import FitSettings, Fitted
from fairsynth.audit.forest import RandomForest
from fairsynth.federation.newton import STRENGTHS
from fairsynth.schemas import FloatArray, SiteId
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

CLIP = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """The sites' common model, and one site's own where it has one."""

    common: Fitted
    own: Fitted | None = None

    def scores(self, records: Records) -> FloatArray:
        """(B,) the chance of label 1, from the mean of the models' log-odds."""
        if self.own is None:
            return self.common.scores(records)
        log_odds = (_log_odds(self.common.scores(records)) + _log_odds(self.own.scores(records))) / 2
        return np.asarray(0.5 * (1 + np.tanh(0.5 * log_odds)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Common:
    """The sites' common model, and the C that validation chose for it."""

    model: Fitted
    inverse_strength: float


def teach(
    train: Mapping[SiteId, Records],
    *,
    validation: Mapping[SiteId, Records],
    vocabulary: Vocabulary,
    threads: int,
    seed: int,
) -> dict[SiteId, Teacher]:
    """Each site's teacher. Raises CohortError unless the sites have patients of both labels."""
    with threadpool_limits(limits=threads):
        common = common_model(train, validation=validation, vocabulary=vocabulary).model
    return {
        site: Teacher(
            common=common,
            own=own_model(records, vocabulary=vocabulary, threads=threads, seed=seeds.stream(seed, "own", site)),
        )
        for site, records in train.items()
    }


def common_model(
    train: Mapping[SiteId, Records],
    *,
    validation: Mapping[SiteId, Records],
    vocabulary: Vocabulary,
    strengths: Sequence[float] = STRENGTHS,
) -> Common:
    """What all sites teach together. Raises CohortError unless they have patients of both labels."""
    found = {
        strength: federated_logistic(train, vocabulary=vocabulary, inverse_strength=strength) for strength in strengths
    }
    losses = {
        strength: sum(_log_loss(fitted, validation[site], vocabulary=vocabulary) for site in sorted(validation))
        for strength, fitted in found.items()
    }
    best = min(losses, key=lambda strength: (losses[strength], strength))
    return Common(model=found[best], inverse_strength=best)


def own_model(train: Records, *, vocabulary: Vocabulary, threads: int, seed: int) -> Fitted | None:
    """One site's own part of its teacher: None where its patients all have one label, which teaches nothing."""
    if len(np.unique(train.label)) < 2:
        return None
    return RandomForest().fit(train, vocabulary=vocabulary, settings=FitSettings(epochs=1, threads=threads), seed=seed)


def _log_loss(fitted: Fitted, records: Records, *, vocabulary: Vocabulary) -> float:
    """Nats, summed over patients."""
    log_odds = _log_odds(blind_scores(fitted, records, vocabulary=vocabulary))
    return float(np.logaddexp(0, np.where(records.label == 1, -log_odds, log_odds)).sum())


def _log_odds(scores: FloatArray) -> FloatArray:
    inside = np.clip(scores, CLIP, 1 - CLIP)
    return np.asarray(np.log(inside) - np.log1p(-inside))
