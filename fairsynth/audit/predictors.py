"""Downstream models by name, behind one protocol (fitting.py): fit on a training set, then score patients.

In:  training `Records` (real, mixed or synthetic).   Out: a fitted model that gives scores in [0, 1].
Never: the label as an input (features.py is the only way in), held-out patients, global random state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression

from fairsynth.audit.boosting import GradientBoosting
from fairsynth.audit.fitting import (
    Constant,
    FitSettings,
    Fitted,
    Predictor,
    bag_of_tokens,
    checked_weights,
    constant_of,
)
from fairsynth.audit.transformer import Transformer
from fairsynth.errors import ConfigError
from fairsynth.schemas import FloatArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

__all__ = [
    "PREDICTORS",
    "Constant",
    "FitSettings",
    "Fitted",
    "FittedLogisticRegression",
    "LogisticRegression",
    "Predictor",
    "bag_of_tokens",
    "load_predictor",
]


@dataclass(frozen=True, kw_only=True)
class LogisticRegression:
    """L2-regularised logistic regression on the presence of codes, phenotypes and demographic tokens.

    No random choice is made, so every seed gives the same model. A training set with one class only gives that class
    as the score of everyone.
    """

    inverse_strength: float = 1.0  # C of scikit-learn
    maximum_iterations: int = 2000

    def fit(
        self,
        train: Records,
        *,
        vocabulary: Vocabulary,
        settings: FitSettings,
        seed: int,
        weights: FloatArray | None = None,
    ) -> Fitted:
        """Train until convergence; `settings` and `seed` change nothing. A patient of weight 2 is as two patients."""
        checked_weights(weights, patients=len(train))
        if constant := constant_of(train.label, weights=weights):
            return constant
        model = SklearnLogisticRegression(C=self.inverse_strength, max_iter=self.maximum_iterations)
        model.fit(bag_of_tokens(train, vocabulary=vocabulary), train.label, sample_weight=weights)
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


PREDICTORS: Mapping[str, Predictor] = {
    "transformer": Transformer(),
    "logistic_regression": LogisticRegression(),
    "gradient_boosting": GradientBoosting(),
}


def load_predictor(name: str) -> Predictor:
    """The predictor called `name`. Raises ConfigError when there is none."""
    if name not in PREDICTORS:
        known = ", ".join(PREDICTORS)
        raise ConfigError.of("unknown predictor", where=f"audit.predictors: {name}", expected=f"one of: {known}")
    return PREDICTORS[name]
