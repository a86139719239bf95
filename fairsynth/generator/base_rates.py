"""How often each token occurs at a site, as log-odds: what the shared weights leave out, and the site adds at home.

In:  a site's training records.   Out: (V,) log-odds; the weights as the site uses them, and as they travel.
Never: files, the network; a base rate in what travels.

Sites differ first of all in how often codes occur: an adult hospital and a children's hospital share few of them. One
output bias for both is pulled to and fro, and what the sites could learn together (which codes go with which outcome,
age, phenotype, or with each other) drowns in it. So each site adds the log-odds of its own rates to the output bias of
the shared weights, trains, and takes them off again before it sends: shared are the deviations from home
(docs/decisions/005-base-rates-at-home.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fairsynth.errors import ProtocolError
from fairsynth.schemas import Arrays, FloatArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

BIAS = "head.output_bias"  # (V,), the c of `model`


def base_rates(records: Records, *, vocabulary: Vocabulary) -> FloatArray:
    """(V,) log-odds of each token: codes and `end` by visit, context tokens by patient.

    Half an occurrence is added on either side (Jeffreys' prior): a token that the site never saw stays possible.
    """
    layout = vocabulary.layout
    occurs = np.bincount(np.concatenate([records.codes, records.context]), minlength=layout.size).astype(np.float64)
    occurs[layout.end] = len(records)
    chances = np.full(layout.size, float(records.visits))
    chances[layout.context] = len(records)
    return np.asarray(np.log(occurs + 0.5) - np.log(chances - occurs + 0.5))


def at_home(weights: Arrays, rates: FloatArray) -> Arrays:
    """Shared weights as the site uses them: its base rates added to the output bias.

    Raises ProtocolError when there is no output bias of as many tokens.
    """
    return {**weights, BIAS: _moved(weights, rates)}


def to_share(weights: Arrays, rates: FloatArray) -> Arrays:
    """The site's weights as they travel: its base rates taken off again; the inverse of `at_home` up to rounding."""
    return {**weights, BIAS: _moved(weights, -rates)}


def _moved(weights: Arrays, rates: FloatArray) -> npt.NDArray[np.float32]:
    if BIAS not in weights or weights[BIAS].shape != rates.shape:
        raise ProtocolError.of("output bias missing or of another shape", where=BIAS, expected=f"float32 {rates.shape}")
    return (weights[BIAS].astype(np.float64) + rates).astype(np.float32)
