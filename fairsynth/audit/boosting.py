"""Gradient-boosted trees on the presence of tokens.

In:  training `Records`.   Out: `FittedBoosting`, which scores patients.
Never: a hidden split of the training patients (no early stopping), the label as an input, global random state.

Why these sizes: on validation patients of Diabetes-130 they came within 2 % of the lowest log loss of seven candidates
at each of five training sizes; with scikit-learn's own, made for larger tables, it was up to 1.6 times as high
(docs/augmentation.md, `benchmarks/boosting.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from fairsynth import seeds
from fairsynth.audit.fitting import Constant, FitSettings, Fitted, bag_of_tokens, checked_weights, constant_of
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


@dataclass(frozen=True, kw_only=True)
class GradientBoosting:
    """Boosted trees (Friedman 2001) by histograms; small trees, each split seeing a random share of the tokens.

    A training set with one class only gives that class as the score of everyone; one without a token that could split
    it (too few patients) gives the share of positives.
    """

    trees: int = 150
    learning_rate: float = 0.05
    leaves: int = 8
    smallest_leaf: int = 10  # patients
    penalty: float = 10.0  # L2, on the leaves' values
    tokens_share: float = 0.3  # of the tokens, drawn for each split

    def fit(
        self,
        train: Records,
        *,
        vocabulary: Vocabulary,
        settings: FitSettings,
        seed: int,
        weights: FloatArray | None = None,
    ) -> Fitted:
        """Grow all trees on all of `train`; `seed` draws the tokens of each split. `settings.epochs` is not used.

        A weight scales a patient's loss; `smallest_leaf` counts patients whatever they weigh.
        """
        checked_weights(weights, patients=len(train))
        if constant := constant_of(train.label, weights=weights):
            return constant
        bag = bag_of_tokens(train, vocabulary=vocabulary)
        columns = _that_can_split(bag.sum(axis=0), patients=len(train), smallest=self.smallest_leaf)
        if not len(columns):
            return Constant(score=float(np.average(train.label, weights=weights)))
        model = HistGradientBoostingClassifier(
            max_iter=self.trees,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=self.smallest_leaf,
            l2_regularization=self.penalty,
            max_features=self.tokens_share,
            early_stopping=False,
            random_state=seeds.stream(seed, "boosting") % (1 << 32),
        )
        with threadpool_limits(limits=settings.threads):
            model.fit(_dense(bag[:, columns]), train.label, sample_weight=weights)
        return FittedBoosting(model=model, columns=columns, vocabulary=vocabulary, threads=settings.threads)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedBoosting:
    """Trees on the `columns` of `bag_of_tokens`."""

    model: HistGradientBoostingClassifier
    columns: IntArray
    vocabulary: Vocabulary
    threads: int

    def scores(self, records: Records) -> FloatArray:
        """(B,) the predicted chance of label 1."""
        if not len(records):
            return np.zeros(0)
        bag = bag_of_tokens(records, vocabulary=self.vocabulary)
        with threadpool_limits(limits=self.threads):
            chances = self.model.predict_proba(_dense(bag[:, self.columns]))  # (B, 2)
        return np.asarray(chances[:, 1], dtype=np.float64)


def _that_can_split(having: npt.NDArray[np.integer | np.floating], *, patients: int, smallest: int) -> IntArray:
    """The tokens that at least `smallest` patients have and as many lack; no tree could use another one."""
    return np.flatnonzero((having >= smallest) & (patients - having >= smallest)).astype(np.int64)


def _dense(bag: sparse.csr_array) -> npt.NDArray[np.float32]:
    """(B, columns) the 0/1 matrix."""
    return bag.toarray().astype(np.float32)
