from __future__ import annotations

import audit_toy as toy
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from fairsynth import seeds
from fairsynth.audit.features import blind
from fairsynth.audit.fitting import Constant, FitSettings, bag_of_tokens
from fairsynth.audit.forest import RandomForest

SETTINGS = FitSettings(epochs=1, threads=1)
TRAIN = toy.draw([[300, 80], [300, 80]], seed=1)
FRESH = toy.draw([[200, 60], [200, 60]], seed=2)


def fit(train=TRAIN, *, seed: int = 5, weights=None, **sizes):
    return RandomForest(**sizes).fit(train, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=seed, weights=weights)


def table(records) -> np.ndarray:
    return bag_of_tokens(records, vocabulary=toy.VOCABULARY).toarray()


@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_scikit_learn_s_drawn_towards_the_share_of_positives_by_one_patient(weighted):
    weights = np.random.default_rng(3).uniform(0.2, 3, size=len(TRAIN)) if weighted else None
    oracle = RandomForestClassifier(
        n_estimators=40, min_samples_leaf=8, max_features=0.2, random_state=seeds.stream(5, "forest") % 2**32
    ).fit(table(TRAIN), TRAIN.label, sample_weight=weights)
    leaves = oracle.predict_proba(table(FRESH))[:, 1]
    share = np.average(TRAIN.label, weights=weights)
    np.testing.assert_allclose(fit(weights=weights, trees=40).scores(FRESH), leaves * 8 / 9 + share / 9)


def test_no_score_is_0_or_1_where_leaves_are_pure():
    pure = toy.draw([[200, 60], [200, 60]], seed=3, signal=1.0)
    scores = fit(pure, trees=20).scores(pure)
    assert 0 < scores.min() < 0.05
    assert 0.8 < scores.max() < 1


def test_it_ranks_new_patients():
    assert roc_auc_score(FRESH.label, fit().scores(FRESH)) > 0.6


def test_the_seed_is_all_that_chance_has():
    one, again, other = (fit(seed=seed, trees=20).scores(FRESH) for seed in (5, 5, 6))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_label_is_not_seen():
    fitted = fit(trees=20)
    assert np.array_equal(fitted.scores(FRESH), fitted.scores(blind(FRESH, vocabulary=toy.VOCABULARY)))


def test_one_class_is_the_score_of_everyone():
    positives = TRAIN.take(np.flatnonzero(TRAIN.label == 1))
    assert fit(positives) == Constant(score=1.0)


def test_nobody_has_no_score():
    assert fit(trees=5).scores(FRESH.take(np.zeros(0, dtype=np.int64))).shape == (0,)
