"""A random forest on the presence of tokens: what one site's patients say, without a common model.

In:  training `Records`.   Out: `FittedForest`, which scores patients.
Never: the label as an input, global random state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from fairsynth import seeds
from fairsynth.audit.fitting import FitSettings, Fitted, bag_of_tokens, checked_weights, constant_of
from fairsynth.schemas import FloatArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


@dataclass(frozen=True, kw_only=True)
class RandomForest:
    """Trees on bootstrap samples, each split seeing a random share of the tokens (Breiman 2001).

    Leaves are large: shares of positives in leaves of a few patients are mostly chance. A training set with one class
    only gives that class as the score of everyone.
    """

    trees: int = 300
    smallest_leaf: int = 8  # patients
    tokens_share: float = 0.2  # of the tokens, drawn for each split

    def fit(
        self,
        train: Records,
        *,
        vocabulary: Vocabulary,
        settings: FitSettings,
        seed: int,
        weights: FloatArray | None = None,
    ) -> Fitted:
        """Grow all trees on `train`; `seed` draws samples and tokens. `settings.epochs` is not used."""
        checked_weights(weights, patients=len(train))
        if constant := constant_of(train.label, weights=weights):
            return constant
        model = RandomForestClassifier(
            n_estimators=self.trees,
            min_samples_leaf=self.smallest_leaf,
            max_features=self.tokens_share,
            n_jobs=1,  # trees are small: threads cost more than they save
            random_state=seeds.stream(seed, "forest") % (1 << 32),
        )
        model.fit(bag_of_tokens(train, vocabulary=vocabulary).toarray(), train.label, sample_weight=weights)
        share = float(np.average(train.label, weights=weights))
        return FittedForest(model=model, share=share, smallest_leaf=self.smallest_leaf, vocabulary=vocabulary)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedForest:
    """Trees on `bag_of_tokens`; `share` is that of the positives in the training set."""

    model: RandomForestClassifier
    share: float
    smallest_leaf: int
    vocabulary: Vocabulary

    def scores(self, records: Records) -> FloatArray:
        """(B,) the mean share of positives in a patient's leaves, as if each leaf had one more patient, of `share`.

        So no score is 0 or 1, however few positives there are (an m-estimate, Cestnik 1990).
        """
        if not len(records):
            return np.zeros(0)
        found = self.model.predict_proba(bag_of_tokens(records, vocabulary=self.vocabulary).toarray())[:, 1]
        return np.asarray((self.smallest_leaf * found + self.share) / (self.smallest_leaf + 1))
