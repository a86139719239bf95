"""Comparisons that mend the model instead of the data: a constrained fit, and thresholds by group.

In:  training `Records`; validation `Records` for the thresholds.   Out: a fitted model that gives scores in [0, 1].
Never: held-out patients, a random draw when a patient is scored: both methods give randomised classifiers, and what is
returned is the chance of a positive prediction.

Both are fairlearn's (Agarwal et al. 2018; Hardt et al. 2016). fairlearn fits; what it has fitted is kept as arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from fairlearn import reductions
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from threadpoolctl import threadpool_limits

from fairsynth.audit.fitting import FitSettings, Fitted, Predictor, bag_of_tokens, constant_of
from fairsynth.audit.thresholds import Constraint, Objective, optimised
from fairsynth.schemas import FloatArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


class Mitigation(Protocol):
    """A model-level comparison. `fit` with the same arguments gives the same scores."""

    def fit(
        self, train: Records, *, validation: Records, vocabulary: Vocabulary, settings: FitSettings, seed: int
    ) -> Fitted:
        """Train on `train`, choose on `validation` what the method chooses there; the attribute is the group."""
        ...


@dataclass(frozen=True, kw_only=True)
class ExponentiatedGradient:
    """A randomised mixture of logistic regressions of least error whose rates differ little between groups.

    With `balanced`, the error is 1 - balanced accuracy; without it every wrong prediction costs the same, and where
    positives are rare the least error is to flag nobody, which is fair and useless.
    """

    constraint: Constraint = "equalized_odds"
    difference: float = 0.01  # allowed between a group's rate and everybody's
    balanced: bool = True
    rounds: int = 30  # at most; each fits up to ten regressions

    def fit(
        self, train: Records, *, validation: Records, vocabulary: Vocabulary, settings: FitSettings, seed: int
    ) -> Fitted:
        """Fit on `train` alone; nothing is drawn, so `validation` and `seed` change nothing.

        A group without a positive (negative) patient takes no part in the constraint on true (false) positive rates.
        Patients of one label only give that label as the score of everyone.
        """
        if constant := constant_of(train.label, weights=None):
            return constant
        bag = bag_of_tokens(train, vocabulary=vocabulary).toarray()
        positives = float(train.label.mean()) if self.balanced else 0.5
        model = reductions.ExponentiatedGradient(
            SklearnLogisticRegression(max_iter=2000),
            _moment(self.constraint, difference=self.difference),
            objective=reductions.ErrorRate(costs={"fp": 0.5 / (1 - positives), "fn": 0.5 / positives}),
            max_iter=self.rounds,
        )
        with threadpool_limits(limits=settings.threads), _without_warnings_of_pandas():
            model.fit(bag, train.label, sensitive_features=train.group)
        return _mixture(model, columns=bag.shape[1], vocabulary=vocabulary)


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMixture:
    """K linear classifiers and the chance with which each is asked.

    weights  (K, columns of `bag_of_tokens`)
    biases   (K,)
    chances  (K,) that sum to 1
    """

    weights: FloatArray
    biases: FloatArray
    chances: FloatArray
    vocabulary: Vocabulary

    def scores(self, records: Records) -> FloatArray:
        """(B,) the chance that the classifier asked predicts label 1."""
        log_odds = bag_of_tokens(records, vocabulary=self.vocabulary) @ self.weights.T + self.biases  # (B, K)
        return np.asarray(np.clip((log_odds > 0) @ self.chances, 0.0, 1.0), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class ThresholdOptimiser:
    """Any predictor, and thresholds by group that make the groups' rates on validation patients equal."""

    base: Predictor
    constraint: Constraint = "true_positive_rate_parity"
    objective: Objective = "balanced_accuracy_score"
    minimum_positives: int = 1  # of a group on validation, for thresholds of its own

    def fit(
        self, train: Records, *, validation: Records, vocabulary: Vocabulary, settings: FitSettings, seed: int
    ) -> Fitted:
        """Train `base` on `train`, then choose the thresholds on `validation` as `thresholds.optimised` does."""
        fitted = self.base.fit(train, vocabulary=vocabulary, settings=settings, seed=seed)
        return optimised(
            fitted,
            validation=validation,
            vocabulary=vocabulary,
            constraint=self.constraint,
            objective=self.objective,
            minimum_positives=self.minimum_positives,
        )


def _moment(constraint: Constraint, *, difference: float) -> Any:
    """fairlearn's object for a constraint."""
    kinds = {
        "equalized_odds": reductions.EqualizedOdds,
        "true_positive_rate_parity": reductions.TruePositiveRateParity,
    }
    return kinds[constraint](difference_bound=difference)


def _mixture(model: Any, *, columns: int, vocabulary: Vocabulary) -> LinearMixture:
    """What fairlearn has fitted, as arrays; classifiers that are never asked are left out."""
    asked = [(model.predictors_[key], chance) for key, chance in model.weights_.items() if chance > 0]
    linear = [_linear(classifier, columns=columns) for classifier, _ in asked]
    return LinearMixture(
        weights=np.stack([weights for weights, _ in linear]),
        biases=np.array([bias for _, bias in linear]),
        chances=np.array([chance for _, chance in asked], dtype=np.float64),
        vocabulary=vocabulary,
    )


def _linear(classifier: Any, *, columns: int) -> tuple[FloatArray, float]:
    """(columns,) weights and the bias; fairlearn's stand-in for patients of one label is a bias alone."""
    if isinstance(classifier, DummyClassifier):
        return np.zeros(columns), 1.0 if classifier.constant == 1 else -1.0
    return classifier.coef_[0].astype(np.float64), float(classifier.intercept_[0])


@contextmanager
def _without_warnings_of_pandas() -> Iterator[None]:
    """fairlearn 0.15 grows a Series in a way that pandas 3 warns of; the result is the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.Pandas4Warning)
        yield
