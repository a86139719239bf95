"""A predictor that the sites train together, simulated in one process: FedAvg, and FairFed's weighting of the sites.

In:  each site's training `Records`.   Out: one `Federated` transformer for all sites, and what each site weighed.
Never: messages (the sites are in memory: this is a comparison, not a protocol), held-out patients.

A round: every site starts from the global weights, makes one pass over its own patients with an optimiser of its own,
and the global weights become the weighted mean of what comes back (McMahan et al. 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fairsynth import seeds
from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.fitting import FitSettings, Fitted
from fairsynth.audit.transformer import (
    FittedTransformer,
    Transformer,
    begin,
    log_odds,
    network_of,
    weights_of,
)
from fairsynth.errors import CohortError, ConfigError
from fairsynth.fairness.counts import MEMBERS, POSITIVES, PREDICTED, TRUE_POSITIVES, count_patients, pool
from fairsynth.fairness.metrics import BoolArray
from fairsynth.generator.train import threads
from fairsynth.schemas import Arrays, FloatArray, SiteId
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

Sites = Mapping[SiteId, Records]


class Weighting(Protocol):
    """How much each site's weights count in a round's mean."""

    def shares(self, sites: Sites, *, model: Fitted, vocabulary: Vocabulary) -> dict[SiteId, float]:
        """Numbers that sum to 1; `model` is the one that the round starts from."""
        ...


@dataclass(frozen=True, kw_only=True)
class BySize:
    """FedAvg: n_k / n, the site's share of all training patients."""

    def shares(self, sites: Sites, *, model: Fitted, vocabulary: Vocabulary) -> dict[SiteId, float]:
        """The sites' shares; `model` has no influence."""
        patients = sum(map(len, sites.values()))
        return {site: len(records) / patients for site, records in sites.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class FairFed:
    """FairFed (Ezzeldin et al. 2023): sites whose fairness is like everybody's count more.

    w_k is proportional to n_k exp(-beta D_k). D_k = |F_k - F| is the gap between the site's equal-opportunity
    difference F_k (TPR of all protected patients minus TPR of all reference patients) and that of all sites together,
    both of the global model that the round starts from, on validation patients. Where a site lacks a positive on either
    side F_k is undefined, and the gap between its accuracy and everybody's takes its place, as in the paper.

    Rates are of soft predictions: where positives are rare hardly a score passes 0.5, every F_k would be 0 and the
    weights FedAvg's. `reference` (G,) marks the reference groups; beta = 0 is FedAvg.
    """

    validation: Sites
    reference: BoolArray
    beta: float = 1.0

    def shares(self, sites: Sites, *, model: Fitted, vocabulary: Vocabulary) -> dict[SiteId, float]:
        """The sites' shares. Raises CohortError when a site has no validation patient."""
        for site in sites:
            if not len(self.validation.get(site, ())):
                raise CohortError.of("no validation patient", where=f"FairFed: {site}", do="give every site some")
        counts = {site: _counts(self.validation[site], model=model, vocabulary=vocabulary) for site in sorted(sites)}
        everybody = pool(list(counts.values()))
        gaps = {site: fairness_gap(own, everybody=everybody, reference=self.reference) for site, own in counts.items()}
        raw = {site: len(sites[site]) * float(np.exp(-self.beta * gap)) for site, gap in gaps.items()}
        total = sum(raw.values())
        return {site: value / total for site, value in raw.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Federated:
    """The sites' common predictor."""

    fitted: FittedTransformer
    shares: tuple[dict[SiteId, float], ...]  # of each site in the mean, by round

    def scores(self, records: Records) -> FloatArray:
        """(B,) the predicted chance of label 1."""
        return self.fitted.scores(records)


def federated(
    sites: Sites, *, vocabulary: Vocabulary, settings: FitSettings, seed: int, rounds: int, weighting: Weighting
) -> Federated:
    """Train the transformer of `audit.transformer` on all sites for `rounds` rounds of one local pass each.

    `settings.epochs` is not used. The order of `sites` has no influence. Raises CohortError without a training patient,
    ConfigError on fewer than one round.
    """
    patients = sum(map(len, sites.values()))
    if not patients:
        raise CohortError.of("no training patient", where="federated predictor", do="check the cohorts' filters")
    if rounds < 1:
        raise ConfigError.of("no round", where=f"federated predictor: rounds {rounds}", expected="at least 1")
    with threads(settings.threads):
        prior = log_odds(sum(float(records.label.sum()) for records in sites.values()), patients=patients)
        weights = weights_of(begin(vocabulary, prior=prior, seed=seed))
        history: list[dict[SiteId, float]] = []
        for number in range(rounds):
            history.append(weighting.shares(sites, model=_fitted(weights, vocabulary, settings), vocabulary=vocabulary))
            replies = {
                site: local_pass(
                    weights, train=sites[site], vocabulary=vocabulary, seed=seeds.stream(seed, "round", number, site)
                )
                for site in sorted(sites)
            }
            weights = weighted_mean(replies, shares=history[-1])
    return Federated(fitted=_fitted(weights, vocabulary, settings), shares=tuple(history))


def local_pass(weights: Arrays, *, train: Records, vocabulary: Vocabulary, seed: int) -> Arrays:
    """The weights after one pass over a site's own patients."""
    model = network_of(weights, vocabulary=vocabulary)
    Transformer().descend(model, train=train, vocabulary=vocabulary, epochs=1, seed=seed)
    return weights_of(model)


def weighted_mean(replies: Mapping[SiteId, Arrays], *, shares: Mapping[SiteId, float]) -> Arrays:
    """sum_k w_k weights_k, summed in float64 by site id, given in float32; the shares w_k sum to 1."""
    names = next(iter(replies.values()))
    return {
        name: sum(
            (np.asarray(replies[site][name], dtype=np.float64) * shares[site] for site in sorted(replies)),
            start=np.zeros(names[name].shape),
        ).astype(np.float32)
        for name in names
    }


def fairness_gap(own: FloatArray, *, everybody: FloatArray, reference: BoolArray) -> float:
    """|F_k - F| of counts (G, 4), or the gap in accuracy where the site's F_k is undefined."""
    difference = opportunity_difference(own, reference=reference)
    if np.isfinite(difference):
        return float(abs(difference - opportunity_difference(everybody, reference=reference)))
    return abs(_accuracy(own) - _accuracy(everybody))


def opportunity_difference(counts: FloatArray, *, reference: BoolArray) -> float:
    """TPR of all protected minus TPR of all reference patients, of counts (G, 4); NaN when one is undefined."""
    sides = [counts[side].sum(axis=0) for side in (~reference, reference)]  # (4,) each
    if any(side[POSITIVES] == 0 for side in sides):
        return float("nan")
    protected, base = (side[TRUE_POSITIVES] / side[POSITIVES] for side in sides)
    return float(protected - base)


def _accuracy(counts: FloatArray) -> float:
    """The expected share of right predictions: (TP + TN) / N, with TN = N - P - (S - TP)."""
    total = counts.sum(axis=0)  # (4,)
    negatives_right = total[MEMBERS] - total[POSITIVES] - (total[PREDICTED] - total[TRUE_POSITIVES])
    return float((total[TRUE_POSITIVES] + negatives_right) / total[MEMBERS])


def _counts(validation: Records, *, model: Fitted, vocabulary: Vocabulary) -> FloatArray:
    """(G, 4) soft counts of a site's validation patients."""
    scores = blind_scores(model, validation, vocabulary=vocabulary)
    return count_patients(scores, labels=validation.label, group=validation.group, groups=len(vocabulary.groups))


def _fitted(weights: Arrays, vocabulary: Vocabulary, settings: FitSettings) -> FittedTransformer:
    model = network_of(weights, vocabulary=vocabulary)
    return FittedTransformer(model=model, vocabulary=vocabulary, threads=settings.threads)
