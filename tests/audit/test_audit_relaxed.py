"""What a predictor's last layer reads, and candidates ranked by it (relaxed scores: test_generator_downstream.py)."""

from __future__ import annotations

import audit_toy as toy
import numpy as np
import pytest

from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.predictors import Constant, FitSettings, LogisticRegression
from fairsynth.audit.relaxed import last_layer, training_feedback
from fairsynth.audit.transformer import Transformer
from fairsynth.augmentation.ranking import (
    alignment,
    best_of,
    gradient,
    loss_slopes,
    newton_direction,
    soft_predictions,
    with_constant,
)
from fairsynth.config import GeneratorConfig, GroupsConfig, ObjectiveConfig, SiteEntry, StudyConfig, TrainingConfig
from fairsynth.errors import ConfigError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.counts import count_patients
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.model import initial_weights
from fairsynth.generator.sample import Conditions, sample
from fairsynth.generator.train import Study, Totals, train
from fairsynth.visits.records import Records

SETTINGS = FitSettings(epochs=3, threads=1)
OBJECTIVE = ObjectiveConfig(name="equal_opportunity", target="label")
REFERENCE = np.array([True, False])
TRAIN = toy.draw([[300, 120], [60, 8]], seed=1)
VALIDATION = toy.draw([[300, 120], [300, 120]], seed=2)
CANDIDATES = toy.draw([[0, 0], [150, 150]], seed=3)


def fit(predictor, train):
    return predictor.fit(train, vocabulary=toy.VOCABULARY, settings=SETTINGS, seed=1)


def last_weights(fitted):
    if hasattr(fitted, "model"):
        head = fitted.model.head
        return np.append(head.weight.detach().numpy()[0], head.bias.item())
    return np.append(fitted.weights, fitted.bias)


@pytest.fixture(
    scope="module", params=[LogisticRegression(), Transformer()], ids=["logistic_regression", "transformer"]
)
def predictor(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(predictor):
    return fit(predictor, TRAIN)


def test_the_log_odds_are_linear_in_what_the_last_layer_reads(fitted):
    log_odds = with_constant(last_layer(fitted, VALIDATION)) @ last_weights(fitted)
    scores = blind_scores(fitted, VALIDATION, vocabulary=toy.VOCABULARY)
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds)), scores, atol=1e-6)
    assert scores.std() > 0.05


def gap(fitted):
    """Soft counts of the validation patients, and the loss L_DF at them with its coefficients."""
    scores = blind_scores(fitted, VALIDATION, vocabulary=toy.VOCABULARY)
    counts = count_patients(scores, labels=VALIDATION.label, group=VALIDATION.group, groups=2)
    return scores, coefficients(OBJECTIVE, counts, reference=REFERENCE)


def test_candidates_that_are_ranked_first_close_the_gap_more_than_those_ranked_last(predictor, fitted):
    scores, found = gap(fitted)
    _, slopes = soft_predictions(scores)
    weights = loss_slopes(slopes, labels=VALIDATION.label, group=VALIDATION.group, coefficients=found.values)
    direction = gradient(with_constant(last_layer(fitted, VALIDATION)), slopes=weights)
    ranked = alignment(
        with_constant(last_layer(fitted, CANDIDATES)),
        scores=blind_scores(fitted, CANDIDATES, vocabulary=toy.VOCABULARY),
        labels=CANDIDATES.label,
        direction=direction,
    )
    after = []
    for sign in (1, -1):
        own = {"group": CANDIDATES.group, "label": CANDIDATES.label, "quotas": np.array([[0, 0], [40, 40]])}
        kept = best_of(sign * ranked, share=0.0, seed=1, **own)
        mixed = Records.concatenate([TRAIN, CANDIDATES.take(kept)])
        after.append(gap(fit(predictor, mixed))[1].loss)
    assert after[0] < after[1] - 0.01


GENERATOR = GeneratorConfig(embedding=16, layers=1, heads=2, maximum_visits=4)
QUOTAS = np.array([[0, 0], [0, 150]])
MEMBERS = np.array([[300, 120], [60, 8]])


def generator(start, fed, *, weight, epochs, rate):
    """Weights after training on the real patients, steered by `fed`."""
    config = StudyConfig(
        schema="fairsynth.study/1",
        name="toy",
        seed=1,
        sites=(SiteEntry(site="a", config="a", data="a"),),
        groups=GroupsConfig(names=toy.VOCABULARY.groups, reference=toy.VOCABULARY.groups[:1]),
        generator=GENERATOR,
        objective=OBJECTIVE.model_copy(update={"weight": weight}),
        training=TrainingConfig(learning_rate=rate),
    )
    positions = float(TRAIN.visit_counts.mean() + 1)
    totals = Totals(patients=len(TRAIN), positions=positions)
    study = Study(vocabulary=toy.VOCABULARY, plan=config.plan(), totals=totals)
    return train(start, records=TRAIN, study=study, coefficients=fed, epochs=epochs, seed=1).weights


def test_a_generator_steered_by_the_effect_of_training_makes_patients_that_close_the_gap_when_trained_on():
    rates = base_rates(TRAIN, vocabulary=toy.VOCABULARY)
    start = at_home(initial_weights(toy.VOCABULARY, GENERATOR, seed=1), rates)
    plain = generator(start, None, weight=0.0, epochs=8, rate=4e-3)
    group, label = (np.repeat(axis.ravel(), QUOTAS.ravel()) for axis in np.indices(QUOTAS.shape))

    def mixed(weights):
        wanted = Conditions(group=group, label=label)
        drawn = sample(weights, vocabulary=toy.VOCABULARY, config=GENERATOR, conditions=wanted, seed=2)
        return Records.concatenate([TRAIN, drawn])

    first = mixed(plain)
    fitted = fit(LogisticRegression(), first)
    scores, found = gap(fitted)
    _, slopes = soft_predictions(scores)
    weights = loss_slopes(slopes, labels=VALIDATION.label, group=VALIDATION.group, coefficients=found.values)
    direction = newton_direction(
        gradient(with_constant(last_layer(fitted, VALIDATION)), slopes=weights),
        inputs=with_constant(last_layer(fitted, first)),
        scores=blind_scores(fitted, first, vocabulary=toy.VOCABULARY),
        penalty=1.0,
    )
    losses = {}
    for sign in (1, 0, -1):
        fed = training_feedback(fitted, direction=sign * direction, quotas=QUOTAS, members=MEMBERS)
        steered = generator(plain, fed, weight=0.3 * abs(sign), epochs=4, rate=1e-3)
        losses[sign] = gap(fit(LogisticRegression(), mixed(steered)))[1].loss
    assert losses[1] < losses[0] - 0.01
    assert losses[-1] > losses[0]


def test_a_predictor_without_a_linear_last_layer_is_refused():
    with pytest.raises(ConfigError):
        last_layer(Constant(score=0.5), VALIDATION)
