"""A logistic regression of all sites' patients, from sums alone: the pooled optimum, not an approximation of it.

In:  each site's training `Records`.   Out: `FittedLogisticRegression`.
Never: a row of a site in what is added up; a step that depends on the number of sites.

The gradient and the Hessian of a sum of patients' losses are sums over patients. So sites that send both for the same
weights let the server take exactly the Newton step that it would take on the pooled rows (the idea of GLORE, Wu et
al. 2012); about six steps do. What travels is one vector and one triangle of sums, fit for masking like any count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.special import expit

from fairsynth.audit.fitting import bag_of_tokens
from fairsynth.audit.predictors import FittedLogisticRegression
from fairsynth.errors import CohortError
from fairsynth.schemas import FloatArray, IntArray, SiteId
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

STEPS = 50  # at most
TOLERANCE = 1e-10  # of the Newton decrement, half its square being the loss that is still to be gained
HALVINGS = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Of a site's patients at given weights (F + 1,), the last of them the bias: what it sends in a step."""

    loss: float  # nats
    gradient: FloatArray  # (F + 1,)
    hessian: FloatArray  # (F + 1, F + 1)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            loss=self.loss + other.loss,
            gradient=self.gradient + other.gradient,
            hessian=self.hessian + other.hessian,
        )


def federated_logistic(
    sites: Mapping[SiteId, Records], *, vocabulary: Vocabulary, inverse_strength: float
) -> FittedLogisticRegression:
    """The weights that minimise inverse_strength * sum of the log losses + |weights|^2 / 2, bias not penalised.

    That is scikit-learn's objective on the pooled patients. Raises CohortError unless the sites have patients of both
    labels.
    """
    rows = {site: bag_of_tokens(sites[site], vocabulary=vocabulary).toarray() for site in sorted(sites)}
    positives = sum(int(records.label.sum()) for records in sites.values())
    if not 0 < positives < sum(map(len, sites.values())):
        raise CohortError.of("patients of one label only", where="federated logistic regression")
    weights = np.zeros(next(iter(rows.values())).shape[1] + 1)

    def total(at: FloatArray) -> Sums:
        parts = [sums_of(rows[site], sites[site].label, at) for site in rows]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        return _penalised(whole, at, inverse_strength=inverse_strength)

    now = total(weights)
    for _ in range(STEPS):
        step = linalg.solve(now.hessian, now.gradient, assume_a="pos")
        if float(now.gradient @ step) < TOLERANCE:
            break
        weights, now = _shortened(total, weights, step=step, now=now)
    return FittedLogisticRegression(weights=weights[:-1], bias=float(weights[-1]), vocabulary=vocabulary)


def sums_of(rows: FloatArray, label: IntArray, weights: FloatArray) -> Sums:
    """What a site with `rows` (n, F) and `label` (n,) sends for `weights` (F + 1,)."""
    log_odds = rows @ weights[:-1] + weights[-1]
    chance = expit(log_odds)
    left = chance - label
    curve = chance * (1 - chance)
    hessian = np.empty((len(weights), len(weights)))
    hessian[:-1, :-1] = (rows * curve[:, None]).T @ rows
    hessian[-1, :-1] = hessian[:-1, -1] = curve @ rows
    hessian[-1, -1] = curve.sum()
    loss = float(np.logaddexp(0, np.where(label == 1, -log_odds, log_odds)).sum())
    return Sums(loss=loss, gradient=np.append(left @ rows, left.sum()), hessian=hessian)


def _penalised(sums: Sums, weights: FloatArray, *, inverse_strength: float) -> Sums:
    """The sums times `inverse_strength`, with the penalty on all weights but the bias."""
    free = np.append(np.ones(len(weights) - 1), 0.0)
    return Sums(
        loss=inverse_strength * sums.loss + float((free * weights**2).sum()) / 2,
        gradient=inverse_strength * sums.gradient + free * weights,
        hessian=inverse_strength * sums.hessian + np.diag(free),
    )


def _shortened(
    total: Callable[[FloatArray], Sums], weights: FloatArray, *, step: FloatArray, now: Sums
) -> tuple[FloatArray, Sums]:
    """The Newton step, halved until the loss falls enough (Armijo)."""
    length, slope = 1.0, float(now.gradient @ step)
    for _ in range(HALVINGS):
        there = weights - length * step
        found = total(there)
        if found.loss <= now.loss - 1e-4 * length * slope:
            break
        length /= 2
    return there, found
