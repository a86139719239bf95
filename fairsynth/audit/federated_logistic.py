"""A logistic regression of all sites' patients, from sums alone: the pooled optimum, not an approximation of it.

In:  each site's training `Records`.   Out: `FittedLogisticRegression`.
Never: a row of a site in what is added up.

The arithmetic is that of the protocol's phase "teach" (`federation.newton`), here in one process.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fairsynth.audit.fitting import bag_of_tokens
from fairsynth.audit.predictors import FittedLogisticRegression
from fairsynth.errors import CohortError
from fairsynth.federation.newton import Sums, minimise, sums_of
from fairsynth.schemas import FloatArray, SiteId
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


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

    def total(at: FloatArray) -> Sums:
        first, *others = (sums_of(rows[site], sites[site].label, at) for site in rows)
        return sum(others, start=first)

    start = np.zeros(next(iter(rows.values())).shape[1] + 1)
    weights = minimise(total, start=start, inverse_strength=inverse_strength).weights
    return FittedLogisticRegression(weights=weights[:-1], bias=float(weights[-1]), vocabulary=vocabulary)
