from __future__ import annotations

import audit_toy as toy
import numpy as np
import pytest
import torch

from fairsynth import seeds
from fairsynth.audit.features import features
from fairsynth.audit.predictors import PREDICTORS, FitSettings, load_predictor
from fairsynth.audit.transformer import Dropout, Network, Transformer, batches, network_of, weights_of
from fairsynth.errors import ConfigError
from fairsynth.visits.records import Records

SETTINGS = FitSettings(epochs=2, threads=1)
TRAIN = toy.draw([[120, 40], [120, 40]], seed=1)
FRESH = toy.draw([[100, 30], [100, 30]], seed=2)
WEIGHTS = np.random.default_rng(7).uniform(0.1, 4.0, size=len(TRAIN))


def scores(name: str, weights, *, train: Records = TRAIN) -> np.ndarray:
    fitted = load_predictor(name).fit(train, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=5, weights=weights)
    return fitted.scores(FRESH)


@pytest.mark.parametrize("name", PREDICTORS)
def test_weights_of_one_change_nothing(name):
    assert np.allclose(scores(name, np.ones(len(TRAIN))), scores(name, None), atol=1e-9)


@pytest.mark.parametrize("name", PREDICTORS)
def test_heavier_positives_raise_the_scores(name):
    heavier = scores(name, np.where(TRAIN.label == 1, 20.0, 1.0))
    assert heavier.mean() > scores(name, None).mean() + 0.05


@pytest.mark.parametrize("name", PREDICTORS)
def test_positives_that_weigh_nothing_teach_nothing(name):
    assert scores(name, np.where(TRAIN.label == 1, 0.0, 1.0)).mean() < 0.1


@pytest.mark.parametrize("name", PREDICTORS)
@pytest.mark.parametrize(
    "wrong",
    [np.ones(3), np.zeros(len(TRAIN)), -np.ones(len(TRAIN)), np.full(len(TRAIN), np.nan), np.ones((len(TRAIN), 1))],
    ids=["too few", "all zero", "negative", "not a number", "two axes"],
)
def test_weights_that_do_not_fit_are_refused(name, wrong):
    with pytest.raises(ConfigError, match="not all 0"):
        scores(name, wrong)


def test_a_patient_of_weight_two_is_as_two_patients_to_the_logistic_regression():
    times = np.random.default_rng(1).integers(0, 3, size=len(TRAIN))
    copies = TRAIN.take(np.repeat(np.arange(len(TRAIN)), times))
    weighted = scores("logistic_regression", times.astype(np.float64))
    assert np.allclose(weighted, scores("logistic_regression", None, train=copies), atol=2e-3)
    assert not np.allclose(weighted, scores("logistic_regression", None), atol=2e-2)


def test_the_scale_of_the_weights_has_no_meaning_to_the_transformer():
    assert np.array_equal(scores("transformer", WEIGHTS), scores("transformer", 8 * WEIGHTS))
    assert not np.allclose(scores("transformer", WEIGHTS), scores("transformer", None))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_the_transformer_descends_the_weighted_mean_of_the_log_loss_written_out(weights):
    relative = np.ones(len(TRAIN)) if weights is None else weights / weights.mean()
    positives = float(relative @ TRAIN.label)
    model = Network(toy.VOCABULARY, prior=float(np.log((positives + 0.5) / (len(TRAIN) - positives + 0.5))))
    model.initialise(seeds.torch_stream(5, "initial"))
    dropout = Dropout(rate=0.1, generator=seeds.torch_stream(5, "dropout"))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(2):
        for rows in batches(TRAIN.visit_counts, size=64, rng=seeds.numpy_stream(5, "order", epoch)):
            logits = model(features(TRAIN.take(rows), vocabulary=toy.VOCABULARY), dropout)
            chance = torch.sigmoid(torch.where(torch.from_numpy(TRAIN.label[rows] == 1), logits, -logits))
            optimiser.zero_grad()
            (-torch.from_numpy(relative[rows]).float() * chance.log()).mean().backward()
            optimiser.step()
    fitted = Transformer().fit(TRAIN, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=5, weights=weights)
    expected = torch.sigmoid(model(features(FRESH, vocabulary=toy.VOCABULARY), None)).detach().numpy()
    assert np.allclose(fitted.scores(FRESH), expected, atol=2e-4)


def test_a_network_that_travelled_scores_as_before():
    fitted = Transformer().fit(TRAIN, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=5)
    weights = weights_of(fitted.model)
    arrived = network_of(weights, vocabulary=toy.VOCABULARY)
    before = fitted.scores(FRESH)
    with torch.no_grad():
        fitted.model.head.bias.add_(1.0)  # neither the copy nor what was built from it moves along
    inputs = features(FRESH, vocabulary=toy.VOCABULARY)
    assert np.allclose(torch.sigmoid(arrived(inputs, None)).detach().numpy(), before, atol=1e-6)
    assert weights["head.bias"] != fitted.model.head.bias.detach().numpy()
