from __future__ import annotations

import time

import audit_toy as toy
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from fairsynth.audit.boosting import GradientBoosting
from fairsynth.audit.fitting import Constant, FitSettings, bag_of_tokens

SETTINGS = FitSettings(epochs=1, threads=1)
TRAIN = toy.draw([[300, 80], [300, 80]], seed=1)
FRESH = toy.draw([[200, 60], [200, 60]], seed=2)


def fit(train=TRAIN, *, seed: int = 5, weights=None, **sizes):
    boosting = GradientBoosting(**sizes)
    return boosting.fit(train, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=seed, weights=weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_it_equals_scikit_learn_on_the_whole_dense_matrix_though_columns_were_dropped(weighted):
    weights = np.random.default_rng(3).uniform(0.2, 3, size=len(TRAIN)) if weighted else None
    rare = toy.draw([[300, 80], [300, 80]], seed=1, signal=0.5)
    kept = (rare.codes < 20) | (np.arange(len(rare.codes)) % 40 == 0)  # codes from 20 on: too rare to split a leaf
    lengths = np.add.reduceat(np.append(kept, 0), rare.visit_offsets[:-1])
    lengths[np.diff(rare.visit_offsets) == 0] = 0
    train = type(rare)(
        **{
            **{name: getattr(rare, name) for name in rare.__dataclass_fields__},
            "codes": rare.codes[kept],
            "visit_offsets": np.concatenate([[0], np.cumsum(lengths)]),
        }
    )
    fitted = fit(train, tokens_share=1.0, weights=weights)
    dense = bag_of_tokens(train, vocabulary=toy.VOCABULARY).toarray()
    oracle = HistGradientBoostingClassifier(
        max_iter=150,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=10,
        l2_regularization=10.0,
        early_stopping=False,
    ).fit(dense, train.label, sample_weight=weights)
    expected = oracle.predict_proba(bag_of_tokens(FRESH, vocabulary=toy.VOCABULARY).toarray())[:, 1]
    assert len(fitted.columns) < dense.shape[1] - 5
    assert np.allclose(fitted.scores(FRESH), expected, atol=1e-12)


def test_the_tokens_kept_are_those_that_enough_patients_have_and_lack():
    train = toy.draw([[30, 8], [20, 4]], seed=8)
    dense = bag_of_tokens(train, vocabulary=toy.VOCABULARY).toarray()
    kept = [column for column in range(dense.shape[1]) if 10 <= (dense[:, column] == 1).sum() <= len(train) - 10]
    counts = dense.sum(axis=0)
    assert fit(train).columns.tolist() == kept
    assert {9, 10} <= set(counts.tolist())  # the limit itself is tried


def test_another_seed_gives_other_trees():
    assert not np.allclose(fit(seed=5).scores(FRESH), fit(seed=6).scores(FRESH))


def test_patients_too_few_to_split_give_the_share_of_positives():
    few = toy.draw([[5, 3], [4, 2]], seed=3)
    assert fit(few) == Constant(score=5 / 14)
    weights = np.where(few.label == 1, 9.0, 5.0)
    assert fit(few, weights=weights).score == pytest.approx(0.5)


def test_two_hundred_patients_teach_something():
    fitted = fit(toy.draw([[80, 20], [80, 20]], seed=4))
    assert roc_auc_score(FRESH.label, fitted.scores(FRESH)) > 0.75


def test_nobody_can_be_scored():
    assert fit().scores(FRESH.take(np.zeros(0, dtype=np.int64))).shape == (0,)


def test_five_thousand_patients_are_learnt_in_seconds():
    train = toy.draw([[3000, 500], [1000, 500]], seed=4)
    start = time.process_time()
    fit(train)
    assert time.process_time() - start < 10  # below 1 s of one idle core
