"""Confusion counts of a row -> where one more run, on one more held-out sample of this size, would fall.

In:  confusion counts (K, G, 4) of K seeds at a threshold.   Out: `Estimate` by metric, from counts alone.
Never: a row of a patient. Definitions of the intervals: docs/metrics.md, "Mean, sd and interval".

Student's interval over seeds says how well the mean is known; this one is wider, and holds both the seed's luck and
that of who was held out.
"""

from __future__ import annotations

import numpy as np

from fairsynth.config import Favourable
from fairsynth.fairness.comparison import Judged, Rules, Values, overall
from fairsynth.fairness.estimates import Estimate
from fairsynth.fairness.intervals import bootstrap
from fairsynth.fairness.metrics import BoolArray
from fairsynth.fairness.paired import CONFIDENCE
from fairsynth.schemas import IntArray

METRICS = ("worst_tpr", "disparate_impact", "f1", "ppv", "selection_rate", "tpr")
REPLICATES = 1000  # spread over the seeds


def one_more_run(
    confusion: IntArray,
    *,
    reference: BoolArray,
    sufficient: BoolArray,
    favourable: Favourable,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
) -> dict[str, Estimate]:
    """The estimates of `METRICS`; seeds without a patient are left out."""
    judged = confusion[confusion.any(axis=(1, 2))]  # (K, G, 4)
    redrawn = bootstrap(judged, replicates=-(-replicates // max(len(judged), 1)), rng=rng)
    rules = Rules(reference=reference, sufficient=sufficient, confidence=CONFIDENCE, favourable=favourable)
    found = overall(
        Judged(confusion=judged, observed=_values(judged, rules), replicates=_values(redrawn, rules), rules=rules)
    )
    return {metric: found[metric] for metric in METRICS}


def _values(confusion: IntArray, rules: Rules) -> Values:
    """Metrics of confusion counts (..., G, 4); nothing is said of the ranking."""
    no_scores = np.zeros((*confusion.shape[:-1], 2, 1), dtype=np.int64)
    return Values.of(confusion, no_scores, rules=rules)
