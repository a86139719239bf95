"""The optimum of a logistic regression of all sites' patients, from sums alone: the arithmetic of site and server.

In:  at a site, rows and labels; at the server, a function that gives all sites' sums at given weights.
Out: sums over patients; the weights of the pooled optimum.
Never: a row in what is added up; a step that depends on the number of sites; messages, files.

The gradient and the Hessian of a sum of patients' losses are sums over patients. So sites that send both for the same
weights let the server take exactly the Newton step that it would take on the pooled rows (the idea of GLORE, Wu et
al. 2012); about six steps do. What travels is one vector and one triangle of sums, fit for masking like any count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairsynth.schemas import FloatArray, IntArray

STRENGTHS = (0.1, 0.03, 0.01, 0.003)  # inverse, as scikit-learn's C: what validation patients choose from
STEPS = 50  # at most
TOLERANCE = 1e-10  # nats: twice the loss that a step can still gain, at which one more is the last
HALVINGS = 30
ROUNDING = 2e-7  # nats: what the difference of two losses may be off by, each rounded to 2^-29 at 64 masked sites


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Of a site's patients at given weights (F + 1,), the last of them the bias: what it sends in a step."""

    loss: float  # nats
    gradient: FloatArray  # (F + 1,)
    hessian: FloatArray  # (F + 1, F + 1)
    validation: float = 0.0  # nats of validation patients at these weights, which nothing here minimises

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            loss=self.loss + other.loss,
            gradient=self.gradient + other.gradient,
            hessian=self.hessian + other.hessian,
            validation=self.validation + other.validation,
        )


Total = Callable[[FloatArray], Sums]  # weights (F + 1,) -> the sums of all sites there


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimum:
    """Weights (F + 1,) of a penalised optimum, and all sites' sums there, not penalised."""

    weights: FloatArray
    sums: Sums


def minimise(total: Total, *, start: FloatArray, inverse_strength: float) -> Optimum:
    """The weights that minimise inverse_strength * loss + |weights|^2 / 2, bias not penalised, by Newton's method.

    That is scikit-learn's objective. Raises LinAlgError when the sums are of no logistic regression.
    """
    from scipy import linalg  # here, because most messages need no scipy, and each is a new process

    weights, sums = start, total(start)
    for _ in range(STEPS):
        now = penalised(sums, weights, inverse_strength=inverse_strength)
        step = linalg.solve(now.hessian, now.gradient, assume_a="pos")
        if float(now.gradient @ step) < TOLERANCE * inverse_strength:
            weights = weights - step  # errors square: where one more is 1e-5, none is left after it
            sums = total(weights)
            break
        weights, sums = _shortened(total, weights, step=step, now=now, inverse_strength=inverse_strength)
    return Optimum(weights=weights, sums=sums)


def sums_of(rows: FloatArray, label: IntArray, weights: FloatArray) -> Sums:
    """What a site with `rows` (n, F) and `label` (n,) sends for `weights` (F + 1,)."""
    log_odds = rows @ weights[:-1] + weights[-1]
    from scipy.special import expit

    chance = expit(log_odds)
    left = chance - label
    curve = chance * (1 - chance)
    hessian = np.empty((len(weights), len(weights)))
    hessian[:-1, :-1] = (rows * curve[:, None]).T @ rows
    hessian[-1, :-1] = hessian[:-1, -1] = curve @ rows
    hessian[-1, -1] = curve.sum()
    return Sums(loss=_nats(log_odds, label), gradient=np.append(left @ rows, left.sum()), hessian=hessian)


def log_loss(rows: FloatArray, label: IntArray, weights: FloatArray) -> float:
    """Nats of patients with `rows` (n, F) and `label` (n,) at `weights` (F + 1,), added up."""
    return _nats(rows @ weights[:-1] + weights[-1], label)


def penalised(sums: Sums, weights: FloatArray, *, inverse_strength: float) -> Sums:
    """The sums times `inverse_strength`, with the penalty on all weights but the bias."""
    free = np.append(np.ones(len(weights) - 1), 0.0)
    return Sums(
        loss=inverse_strength * sums.loss + float((free * weights**2).sum()) / 2,
        gradient=inverse_strength * sums.gradient + free * weights,
        hessian=inverse_strength * sums.hessian + np.diag(free),
    )


def triangle(hessian: FloatArray) -> FloatArray:
    """The upper triangle (N (N + 1) / 2,) of a symmetric matrix (N, N), row by row."""
    return hessian[np.triu_indices(len(hessian))]


def symmetric(upper: npt.NDArray[np.generic], *, size: int) -> FloatArray:
    """The symmetric matrix (size, size) with this upper triangle."""
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size)] = upper
    return matrix + np.triu(matrix, 1).T


def _nats(log_odds: FloatArray, label: IntArray) -> float:
    return float(np.logaddexp(0, np.where(label == 1, -log_odds, log_odds)).sum())


def _shortened(
    total: Total, weights: FloatArray, *, step: FloatArray, now: Sums, inverse_strength: float
) -> tuple[FloatArray, Sums]:
    """The Newton step, halved until the penalised loss, which is `now` at `weights`, falls enough (Armijo).

    Falls that masked losses are too coarse to show count as enough: near the optimum no step would ever show one.
    """
    allowed = ROUNDING * inverse_strength
    length, slope = 1.0, float(now.gradient @ step)
    for _ in range(HALVINGS):
        there = weights - length * step
        found = total(there)
        if (
            penalised(found, there, inverse_strength=inverse_strength).loss
            <= now.loss - 1e-4 * length * slope + allowed
        ):
            break
        length /= 2
    return there, found
