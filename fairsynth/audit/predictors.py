"""Downstream models behind one protocol: fit on a training set, then score patients.

In:  training `Records` (real, mixed or synthetic).   Out: a fitted model that gives scores in [0, 1].
Never: the label as an input (features.py is the only way in), held-out patients, global random state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression

from fairsynth.audit.features import demographic_tokens, features, phenotype_tokens
from fairsynth.audit.transformer import Transformer
from fairsynth.errors import ConfigError
from fairsynth.schemas import FloatArray
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

    def fit(self, train: Records, *, vocabulary: Vocabulary, settings: FitSettings, seed: int) -> Fitted:
        """Train on `train` alone; `train.label` is the outcome. `seed` drives every random choice."""
        ...


@dataclass(frozen=True, kw_only=True)
class LogisticRegression:
    """L2-regularised logistic regression on the presence of codes, phenotypes and demographic tokens.

    No random choice is made, so every seed gives the same model. A training set with one class only gives that class
    as the score of everyone.
    """

    inverse_strength: float = 1.0  # C of scikit-learn
    maximum_iterations: int = 2000

    def fit(self, train: Records, *, vocabulary: Vocabulary, settings: FitSettings, seed: int) -> Fitted:
        """Train until convergence; `settings` and `seed` change nothing."""
        if len(present := np.unique(train.label)) < 2:
            return Constant(score=float(present[0]) if len(present) else 0.0)
        model = SklearnLogisticRegression(C=self.inverse_strength, max_iter=self.maximum_iterations)
        model.fit(bag_of_tokens(train, vocabulary=vocabulary), train.label)
        return FittedLogisticRegression(
            weights=model.coef_[0].astype(np.float64), bias=float(model.intercept_[0]), vocabulary=vocabulary
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedLogisticRegression:
    """`weights` (columns of `bag_of_tokens`,) and `bias` of the log-odds."""

    weights: FloatArray
    bias: float
    vocabulary: Vocabulary

    def scores(self, records: Records) -> FloatArray:
        """(B,) the predicted chance of label 1."""
        log_odds = bag_of_tokens(records, vocabulary=self.vocabulary) @ self.weights + self.bias
        return np.asarray(0.5 * (1 + np.tanh(0.5 * log_odds)), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The same score for everyone."""

    score: float

    def scores(self, records: Records) -> FloatArray:
        """(B,) `score`."""
        return np.full(len(records), self.score)


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


PREDICTORS: Mapping[str, Predictor] = {
    "transformer": Transformer(),
    "logistic_regression": LogisticRegression(),
}


def load_predictor(name: str) -> Predictor:
    """The predictor called `name`. Raises ConfigError when there is none."""
    if name not in PREDICTORS:
        known = ", ".join(PREDICTORS)
        raise ConfigError.of("unknown predictor", where=f"audit.predictors: {name}", expected=f"one of: {known}")
    return PREDICTORS[name]
