"""What every predictor shares: the protocol, the weights of patients, the bag of tokens.

In:  training `Records`, perhaps a weight for each patient.   Out: a fitted model that gives scores in [0, 1].
Never: an algorithm that learns (predictors.py, transformer.py, boosting.py, mitigation.py), the label as an input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from fairsynth.audit.features import demographic_tokens, features, phenotype_tokens
from fairsynth.errors import ConfigError
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What a study fixes about fitting."""

    epochs: int  # passes over the training set, where the predictor makes passes
    threads: int  # of this process; results may differ in the last bit between thread counts


class Fitted(Protocol):
    """A trained predictor."""

    def scores(self, records: Records) -> FloatArray:
        """(B,) the predicted chance of label 1, in [0, 1]."""
        ...


class Predictor(Protocol):
    """A downstream model. `fit` with the same arguments gives the same scores."""

    def fit(
        self,
        train: Records,
        *,
        vocabulary: Vocabulary,
        settings: FitSettings,
        seed: int,
        weights: FloatArray | None = None,
    ) -> Fitted:
        """Train on `train` alone; `train.label` is the outcome. `seed` drives every random choice.

        `weights` (B,) says how many patients each one counts for; without it, everybody is one. Raises ConfigError
        when there is not one finite weight of at least 0 for each patient, or when all are 0.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The same score for everyone."""

    score: float

    def scores(self, records: Records) -> FloatArray:
        """(B,) `score`."""
        return np.full(len(records), self.score)


def constant_of(label: IntArray, *, weights: FloatArray | None) -> Constant | None:
    """What a training set teaches whose patients all have one label: that label. None where there are two."""
    present = np.unique(label if weights is None else label[weights > 0])
    if len(present) > 1:
        return None
    return Constant(score=float(present[0]) if len(present) else 0.0)


def checked_weights(weights: FloatArray | None, *, patients: int) -> FloatArray | None:
    """`weights` as they came. Raises ConfigError when they are not one number a patient that can be weighed with."""
    if weights is None or (
        weights.shape == (patients,) and np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0
    ):
        return weights
    raise ConfigError.of(
        "patients' weights do not fit",
        where=f"fit: weights of shape {weights.shape} for {patients} patients",
        expected="one finite number of at least 0 a patient, not all 0",
    )


def bag_of_tokens(records: Records, *, vocabulary: Vocabulary) -> sparse.csr_array:
    """(B, codes + phenotypes + demographic tokens) 0/1: whether a patient has the token, in any visit."""
    layout = vocabulary.layout
    inputs = features(records, vocabulary=vocabulary)
    code_rows = records.visit_patient[inputs.visits.rows]
    codes, phenotypes = len(vocabulary.codes), phenotype_tokens(layout)
    rows = np.concatenate([code_rows, inputs.phenotypes.rows, inputs.demographics.rows])
    columns = np.concatenate(
        [inputs.visits.values, inputs.phenotypes.values + codes, inputs.demographics.values + codes + phenotypes]
    )
    shape = (len(records), codes + phenotypes + demographic_tokens(layout))
    bag = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    bag.sum_duplicates()
    bag.data[:] = 1.0
    return bag
