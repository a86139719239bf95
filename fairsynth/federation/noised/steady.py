"""Which coefficients stand out of the noise on the counts that they come from.

In:  an objective, pooled counts with noise, how much noise.   Out: coefficients, 0 where noise may have made them.
Never: a count of one site; a seed that an outcome could depend on (the noise is in the counts already).

The slope of |1 - DI| turns its sign at parity, so noise on counts may send a model the wrong way. The noise is known:
drawn again on top of the counts it shows how far each coefficient moves by it. One is used where it is more than
`SIGNAL` deviations from 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fairsynth.config import ObjectiveConfig
from fairsynth.errors import CohortError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.counts import MEMBERS, POSITIVES, PREDICTED, TRUE_POSITIVES
from fairsynth.schemas import FloatArray
from fairsynth.seeds import numpy_stream

SIGNAL = 2.0  # deviations
DRAWS = 100

Mask = npt.NDArray[np.bool_]


def possible(counts: FloatArray, *, label: bool) -> FloatArray:
    """(G, 4) the nearest counts to these that can be counts: N, P, S from 0, TP from 0 to P and to S.

    With `label` they are of patients: P and S are at most N.
    """
    found = np.maximum(counts, 0.0)
    if label:
        found[:, [POSITIVES, PREDICTED]] = np.minimum(found[:, [POSITIVES, PREDICTED]], found[:, [MEMBERS]])
    found[:, TRUE_POSITIVES] = np.minimum(found[:, TRUE_POSITIVES], found[:, [POSITIVES, PREDICTED]].min(axis=1))
    return found


def outstanding(
    objective: ObjectiveConfig, counts: FloatArray, *, deviations: FloatArray, reference: Mask, seed: int
) -> FloatArray:
    """(G, 2) the coefficients at `counts` (G, 4) that stand out of noise with `deviations` (G, 4); else 0.

    All are 0 where the objective has nobody to compare.
    """
    label = objective.target == "label"
    found = _values(objective, possible(counts, label=label), reference=reference)
    rng = numpy_stream(seed, "steady")
    drawn = np.stack(
        [
            _values(
                objective,
                possible(counts + deviations * rng.standard_normal(counts.shape), label=label),
                reference=reference,
            )
            for _ in range(DRAWS)
        ]
    )
    return np.where(np.abs(found) > SIGNAL * drawn.std(axis=0), found, 0.0)


def _values(objective: ObjectiveConfig, counts: FloatArray, *, reference: Mask) -> FloatArray:
    try:
        return coefficients(objective, counts, reference=reference).values
    except CohortError:
        return np.zeros((len(counts), 2))
