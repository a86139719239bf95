"""Candidates of a cell -> those whose training would lower the global downstream fairness loss most.

In:  what the predictor's last, linear layer reads of each patient (B, D), its scores, the coefficients c_g of the
     pooled validation counts.   Out: a number for each candidate, and the candidates to keep, by index.
Never: a patient's record, a synthetic validation patient, a predictor's class.

Logistic regression is its own last layer (`bag_of_tokens`, with `with_constant`); for the transformer the layer's
inputs are its read-outs, and only the last layer's part of the gradient is compared. With log-odds z_i = theta . x_i, a
candidate's training gradient is (score_i - y_i) x_i. L(T) is the objective at soft counts of real validation patients,
so dL/dtheta = sum_i (c_S[g] + y_i c_TP[g]) ds_i/dz_i x_i: a sum over patients, hence over sites that share theta. A
step of descent on candidate i changes L by minus the learning rate times < gradient of i, dL/dtheta >: that ranks.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, cg

from fairsynth.errors import CohortError, ConfigError
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.seeds import numpy_stream

Inputs: TypeAlias = "sparse.csr_array | FloatArray"  # (B, D)

NEAR = 1e-12  # scores nearer to 0 or 1 are taken as this far from it
TOLERANCE = 1e-8  # of the conjugate gradients, relative


def with_constant(inputs: Inputs) -> Inputs:
    """(B, D + 1) the inputs and, last, a one for the bias."""
    ones = np.ones((inputs.shape[0], 1))
    if isinstance(inputs, np.ndarray):
        return np.concatenate([inputs, ones], axis=1)
    return sparse.csr_array(sparse.hstack([inputs, sparse.csr_array(ones)]))


def soft_predictions(
    scores: FloatArray, *, threshold: float = 0.5, temperature: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """(B,) each: soft positive predictions s at a threshold, and their slopes ds/dz by the score's log-odds z.

    s = sigmoid((z - log-odds of the threshold) / temperature). At 0.5 and 1 it is the score itself; the colder, the
    nearer to the hard prediction, and the more the patients near the threshold count alone.
    """
    known = np.clip(scores, NEAR, 1 - NEAR)
    shifted = np.log(known / (1 - known)) - np.log(threshold / (1 - threshold))
    soft = 0.5 * (1 + np.tanh(0.5 * shifted / temperature))
    return soft, soft * (1 - soft) / temperature


def loss_slopes(slopes: FloatArray, *, labels: IntArray, group: IntArray, coefficients: FloatArray) -> FloatArray:
    """(B,) dL/dz_i of each validation patient: (c_S[g] + y_i c_TP[g]) times its slope ds_i/dz_i.

    `slopes` (B,) are the second result of `soft_predictions`; `coefficients` (G, 2) those of the soft counts, pooled
    over the sites (`fairness.coefficients`). So that what helps fairness at the cost of all is not ranked first, add
    w (score_i - y_i) for a term of w times the patients' cross-entropy.
    """
    own = coefficients[group]  # (B, 2)
    return np.asarray((own[:, 0] + labels * own[:, 1]) * slopes)


def gradient(inputs: Inputs, *, slopes: FloatArray) -> FloatArray:
    """(D,) dL/dtheta = sum_i dL/dz_i x_i of a site's patients; the sums of sites that share theta add."""
    return np.asarray(inputs.T @ slopes)


def newton_direction(gradient: FloatArray, *, inputs: Inputs, scores: FloatArray, penalty: float) -> FloatArray:
    """(D,) H^-1 `gradient`, with H the Hessian of sum BCE + penalty / 2 |weights|^2 at the training patients.

    For a predictor that is trained until it converges (logistic regression with inverse strength 1 / penalty), not a
    step but the new minimum counts: to first order, training on one more candidate moves it by -H^-1 of the candidate's
    gradient (Koh and Liang 2017), so that `alignment` with this direction is the fall of L itself. The last column of
    `inputs` is taken as the bias, which is not penalised.
    """
    spread = scores * (1 - scores)
    ridge = np.append(np.full(inputs.shape[1] - 1, float(penalty)), 1e-9)

    def curvature(vector: FloatArray) -> FloatArray:
        return np.asarray(inputs.T @ (spread * (inputs @ vector)) + ridge * vector)

    diagonal = np.asarray(_squares(inputs).T @ spread) + ridge
    size = inputs.shape[1]
    matrix = LinearOperator((size, size), matvec=curvature, dtype=np.float64)
    scale = LinearOperator((size, size), matvec=lambda vector: vector / diagonal, dtype=np.float64)
    found, failed = cg(matrix, gradient, rtol=TOLERANCE, maxiter=20 * size, M=scale)
    if failed:
        raise ConfigError.of(
            "no Newton direction", where="ranking", expected="a penalty above 0 and finite inputs", do="check both"
        )
    return np.asarray(found, dtype=np.float64)


def alignment(
    inputs: Inputs, *, scores: FloatArray, labels: IntArray, direction: FloatArray, normalised: bool = False
) -> FloatArray:
    """(B,) < gradient of each candidate's cross-entropy, direction >: above 0, training on it lowers L.

    `normalised` divides by the length of the candidate's gradient: which way it points, not how far. Without it,
    candidates with many codes and those that the predictor is wrong about win.
    """
    residual = scores - labels
    found = residual * (inputs @ direction)
    if not normalised:
        return np.asarray(found)
    squares = np.asarray(_squares(inputs).sum(axis=1), dtype=np.float64)
    length = np.abs(residual) * np.sqrt(squares)
    return np.asarray(np.divide(found, length, out=np.zeros(len(found)), where=length > 0))


def best_of(
    candidates: FloatArray, *, group: IntArray, label: IntArray, quotas: IntArray, share: float, seed: int
) -> IntArray:
    """Indices, rising, of the candidates to keep: `quotas[g, y]` of each cell, drawn from the best `share` of it.

    `candidates` (B,) are their alignments; of equal ones the earlier is better. Within the best share (at least the
    quota) all have the same chance. A share of 0 keeps the very best, among which outliers are and patients that
    resemble each other; a share of 1 does not look at the alignments. Raises CohortError when a cell has fewer
    candidates than its quota, ConfigError on a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ConfigError.of("share of candidates", where="ranking", expected="0 to 1")
    kept: list[npt.NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    for (g, y), number in np.ndenumerate(quotas):
        own = np.flatnonzero((group == g) & (label == y))
        if len(own) < number:
            raise CohortError.of(
                "fewer candidates than the quota", where=f"group {g}, label {y}", do="generate more candidates"
            )
        ranked = own[np.argsort(-candidates[own], kind="stable")]
        among = ranked[: max(int(number), int(np.ceil(share * len(own))))]
        drawn = numpy_stream(seed, "ranking", g, y).permutation(len(among))[: int(number)]
        kept.append(among[drawn])
    return np.sort(np.concatenate(kept))


def _squares(inputs: Inputs) -> Inputs:
    return inputs**2 if isinstance(inputs, np.ndarray) else inputs.power(2)
