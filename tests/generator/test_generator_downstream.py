"""The downstream term, with predictors of the audit that are trained and then frozen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from generator_toys import SMALL, SMALL_VOCABULARY, hospital, rough_weights, study_of
from torch import Tensor

from fairsynth.audit.features import blind
from fairsynth.audit.predictors import Constant, FitSettings, LogisticRegression
from fairsynth.audit.relaxed import last_layer, relaxed, training_feedback
from fairsynth.audit.transformer import Transformer
from fairsynth.augmentation.ranking import alignment, with_constant
from fairsynth.config import ObjectiveConfig
from fairsynth.errors import CohortError, ConfigError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.counts import MEMBERS, pool
from fairsynth.fairness.objectives import load_objective
from fairsynth.generator.batch import Batch, Sequences
from fairsynth.generator.downstream import Feedback, switch
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.train import objective_of, train

LAYOUT = SMALL_VOCABULARY.layout
REFERENCE = np.array([True, False, False])
UNBOUNDED = 1e9
OBJECTIVE = ObjectiveConfig(name="equal_opportunity", target="label", weight=1.5, maximum_coefficient=UNBOUNDED)
PREDICTORS = {"logistic_regression": LogisticRegression(), "transformer": Transformer()}
EVERYONE = hospital(90, seed=12, shares=(0.5, 0.3, 0.2))


@pytest.fixture(scope="module", params=list(PREDICTORS))
def fitted(request):
    settings = FitSettings(epochs=4, threads=1)
    teacher = hospital(400, seed=5)
    return PREDICTORS[request.param].fit(teacher, vocabulary=SMALL_VOCABULARY, settings=settings, seed=1)


@pytest.fixture(scope="module")
def predictor(fitted):
    frozen = relaxed(fitted)
    if hasattr(frozen, "model"):
        frozen.model.double()
    return frozen


def batch_of(records) -> Batch:
    sequences = Sequences.of(records, vocabulary=SMALL_VOCABULARY, maximum_visits=SMALL.maximum_visits)
    return sequences.batch(np.arange(len(records)))


def generator(*, noise=0.15):
    weights = rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=3, noise=noise)
    return build(weights, vocabulary=SMALL_VOCABULARY, config=SMALL).double()


def relaxed_counts(model, records, predictor) -> tuple[Tensor, Batch]:
    """(G, 4) soft counts of the frozen predictor's scores, with a graph."""
    batch = batch_of(records)
    chances = torch.sigmoid(model(batch)[len(batch) :, LAYOUT.codes])
    scores = predictor.scores(chances, batch)
    columns = torch.stack([torch.ones_like(scores), batch.label.to(scores), scores, scores * batch.label], dim=1)
    return torch.zeros(3, 4, dtype=columns.dtype).index_add(0, batch.group, columns), batch


def gradient(model, records, *, study, slopes, predictor=None):
    model.zero_grad()
    objective_of(study, slopes=slopes, predictor=predictor).of(model, batch_of(records)).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


# --- frozen predictors -----------------------------------------------------------------------------------------------


def test_with_codes_that_are_certain_a_frozen_predictor_gives_the_predictor_s_own_scores(fitted):
    records = hospital(60, seed=8)
    batch = batch_of(records)
    certain = batch.dense(LAYOUT, torch.float32)[len(batch) :, LAYOUT.codes]
    found = relaxed(fitted).scores(certain, batch)
    expected = fitted.scores(blind(records, vocabulary=SMALL_VOCABULARY))[batch.rows.numpy()]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    assert expected.std() > 0.01


def test_a_frozen_predictor_does_not_know_the_label(predictor):
    records = hospital(30, seed=8)
    chances = torch.full((records.visits, 20), 0.3, dtype=torch.float64)
    other = blind(records, vocabulary=SMALL_VOCABULARY)
    assert torch.equal(predictor.scores(chances, batch_of(records)), predictor.scores(chances, batch_of(other)))


def test_presence_over_visits_is_the_chance_that_one_of_them_has_the_code():
    records = hospital(200, seed=9)
    teacher = LogisticRegression().fit(
        records, vocabulary=SMALL_VOCABULARY, settings=FitSettings(epochs=1, threads=1), seed=0
    )
    batch = batch_of(records.take(np.flatnonzero(records.visit_counts == 3)[:1]))
    chances = torch.rand(3, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.logit(relaxed(teacher).scores(chances, batch))
    presence = np.array([1 - np.prod([1 - chances[t, c] for t in range(3)]) for c in range(20)])
    nothing = torch.logit(relaxed(teacher).scores(torch.zeros_like(chances), batch))
    assert float(found - nothing) == pytest.approx(presence @ teacher.weights[:20], abs=1e-9)


def test_a_predictor_without_a_gradient_is_refused():
    with pytest.raises(ConfigError):
        relaxed(Constant(score=0.5))


# --- the term --------------------------------------------------------------------------------------------------------


def test_its_gradient_is_that_of_the_loss_by_finite_differences(predictor):
    few = EVERYONE.take(np.arange(12))
    study = study_of(few, objective=OBJECTIVE)
    model = generator()
    slopes = torch.tensor([[0.7, -0.4], [-1.1, 2.0], [0.5, 0.9]], dtype=torch.float64)
    own = gradient(model, few, study=study, slopes=slopes, predictor=predictor)
    plain = gradient(model, few, study=study, slopes=None)
    batch = batch_of(few)
    objective = objective_of(study, slopes=slopes, predictor=predictor).downstream
    scale = 1 / (LAYOUT.size * study.totals.positions * len(few))

    def term():
        with torch.no_grad():
            return float(objective.of(model(batch), batch, codes=LAYOUT.codes)) * scale

    rng = np.random.default_rng(0)
    checked = 0
    for name, parameter in model.named_parameters():
        found = (own[name] - plain[name]).flatten()
        triangle = model.triangles().get(name)
        free = torch.ones_like(found) if triangle is None else triangle.keep(torch.ones_like(found))
        places = {int(found.abs().argmax()), int(rng.choice(np.flatnonzero(free.numpy())))}
        values = parameter.data.view(-1)
        for place in places:
            before = float(values[place])
            sides = []
            for step in (1e-5, -1e-5):
                values[place] = before + step
                sides.append(term())
            values[place] = before
            slope = (sides[0] - sides[1]) / 2e-5
            assert float(found[place]) == pytest.approx(slope, rel=1e-4, abs=1e-9)
            checked += abs(slope) > 1e-6
    assert checked > 10


def test_the_sites_gradients_sum_to_that_of_the_pooled_loss_when_one_site_lacks_a_group(predictor):
    site_of = np.random.default_rng(1).choice(3, size=len(EVERYONE), p=[0.7, 0.2, 0.1])
    site_of[(site_of == 1) & (EVERYONE.group == 2)] = 0
    study = study_of(EVERYONE, objective=OBJECTIVE)
    model = generator()
    counts, _ = relaxed_counts(model, EVERYONE, predictor)
    loss = load_objective(OBJECTIVE)(counts, reference=torch.tensor(REFERENCE), comparison="pooled")
    model.zero_grad()
    (OBJECTIVE.weight * loss / (LAYOUT.size * study.totals.positions)).backward()
    pooled = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    sites = [EVERYONE.take(site_of == site) for site in range(3)]
    shared = pool([relaxed_counts(model, site, predictor)[0].detach().numpy() for site in sites])
    values = coefficients(OBJECTIVE, shared, reference=REFERENCE).values
    slopes = torch.from_numpy(len(EVERYONE) * values)
    summed = dict.fromkeys(pooled, 0)
    for site in sites:
        share = len(site) / len(EVERYONE)
        steered, plain = (
            gradient(model, site, study=study, **how)
            for how in ({"slopes": slopes, "predictor": predictor}, {"slopes": None})
        )
        summed = {name: summed[name] + share * (steered[name] - plain[name]) for name in pooled}
    size = max(float(values.abs().max()) for values in pooled.values())
    error = max(float((summed[name] - pooled[name]).abs().max()) for name in pooled)
    assert size > 1e-6
    assert error <= 1e-6 * size


def soft_gap(model, predictor):
    """TPR of the reference group minus that of the others, by the frozen predictor's soft counts."""
    with torch.no_grad():
        counts, _ = relaxed_counts(model, EVERYONE, predictor)
    return float(counts[0, 3] / counts[0, 1] - counts[1:, 3].sum() / counts[1:, 1].sum())


@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_along_the_term_closes_the_gap_of_soft_scores_and_a_step_against_it_opens_it(predictor, sign):
    study = study_of(EVERYONE, objective=OBJECTIVE)
    model = generator()
    before = soft_gap(model, predictor)
    counts, _ = relaxed_counts(model, EVERYONE, predictor)
    found = coefficients(OBJECTIVE, counts.detach().numpy(), reference=REFERENCE)
    slopes = sign * torch.from_numpy(len(EVERYONE) * found.values)
    steered = gradient(model, EVERYONE, study=study, slopes=slopes, predictor=predictor)
    plain = gradient(model, EVERYONE, study=study, slopes=None)
    extra = {name: steered[name] - plain[name] for name in plain}
    length = float(sum((values**2).sum() for values in extra.values())) ** 0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter -= 0.002 * extra[name] / length
    assert abs(before) > 1e-4
    assert np.sign(abs(before) - abs(soft_gap(model, predictor))) == sign


# --- the effect of training ------------------------------------------------------------------------------------------

MEMBERS_BY_CELL = np.array([[40, 10], [30, 5], [5, 0]])
QUOTAS = np.array([[0, 20], [0, 25], [10, 7]])


def effect_of(fitted):
    size = last_layer(fitted, EVERYONE).shape[1] + 1
    direction = np.random.default_rng(3).normal(size=size)
    return direction, training_feedback(fitted, direction=direction, quotas=QUOTAS, members=MEMBERS_BY_CELL)


def test_with_codes_that_are_certain_the_effect_is_minus_the_alignment_of_the_candidates(fitted):
    direction, fed = effect_of(fitted)
    batch = batch_of(EVERYONE)
    found = fed.predictor.scores(batch.dense(LAYOUT, torch.float32)[len(batch) :, LAYOUT.codes], batch).numpy()
    records = EVERYONE.take(batch.rows.numpy())
    aligned = alignment(
        with_constant(last_layer(fitted, records)),
        scores=fitted.scores(records),
        labels=records.label,
        direction=direction,
    )
    for group, label in ((0, 1), (1, 1), (2, 0), (0, 0), (2, 1)):
        cell = (records.group == group) & (records.label == label)
        weight = 90 * QUOTAS[group, label] / MEMBERS_BY_CELL[group, label] if MEMBERS_BY_CELL[group, label] else 0
        np.testing.assert_allclose(found[cell], -weight * aligned[cell], rtol=1e-3, atol=2e-3)
    assert np.abs(found).max() > 1


def test_the_effect_has_the_gradient_of_finite_differences(fitted):
    _, fed = effect_of(fitted)
    effect = fed.predictor
    if hasattr(effect.predictor, "model"):
        effect.predictor.model.double()
    batch = batch_of(EVERYONE.take(np.arange(4)))
    chances = torch.rand(len(batch.patient), 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: effect.scores(p, batch), chances.requires_grad_())


# --- in training -----------------------------------------------------------------------------------------------------

START = initial_weights(SMALL_VOCABULARY, SMALL, seed=4)
VALUES = np.array([[0.1, 0.0], [-0.02, 0.0], [-0.02, 0.01]])


def trained(records, fed, **objective):
    study = study_of(records, objective=ObjectiveConfig(**objective))
    return train(START, records=records, study=study, coefficients=fed, epochs=1, seed=3)


def same(first, second):
    return all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_lambda_zero_is_plain_training_bit_for_bit_and_any_other_is_not(fitted):
    fed = Feedback(predictor=relaxed(fitted), coefficients=VALUES, patients=50)
    plain = trained(EVERYONE, None)
    assert same(plain, trained(EVERYONE, fed, weight=0))
    assert not same(plain, trained(EVERYONE, fed))
    assert same(trained(EVERYONE, fed), trained(EVERYONE, fed))


def test_feedback_of_fewer_validation_patients_weighs_the_same_at_the_same_rates(fitted):
    many = Feedback(predictor=relaxed(fitted), coefficients=VALUES / 200, patients=200)
    few = Feedback(predictor=relaxed(fitted), coefficients=VALUES / 50, patients=50)
    assert same(trained(EVERYONE, many), trained(EVERYONE, few))


def test_a_slope_beyond_its_bound_is_cut_and_reported(fitted):
    at = Feedback(predictor=relaxed(fitted), coefficients=np.clip(VALUES, -0.02, 0.02), patients=10)
    beyond = replace(at, coefficients=VALUES)
    cut = [trained(EVERYONE, fed, maximum_coefficient=0.2) for fed in (at, beyond)]
    assert same(*cut)
    assert [each.bounded for each in cut] == [False, True]


# --- the switch (Eq. 5) ----------------------------------------------------------------------------------------------

UNFAIR = np.array([[100.0, 20.0, 25.0, 12.0], [60.0, 10.0, 8.0, 3.0], [40.0, 10.0, 7.0, 4.0]])
FAIR = np.array([[100.0, 20.0, 25.0, 12.0], [50.0, 10.0, 12.5, 6.0], [50.0, 10.0, 12.5, 6.0]])
CODES = np.array([[900.0, 5000.0, 6000.0, 3000.0], [300.0, 1000.0, 1200.0, 500.0], [300.0, 900.0, 1100.0, 400.0]])


@pytest.mark.parametrize(
    ("validation", "tolerance", "by"),
    [(UNFAIR, 0.0, "downstream"), (FAIR, 0.0, "generator"), (UNFAIR, 0.9, "generator"), (UNFAIR, 0.1, "downstream")],
)
def test_the_downstream_loss_steers_while_it_is_above_its_tolerance(validation, tolerance, by):
    objective = ObjectiveConfig(name="disparate_impact", target="codes")
    found = switch(objective, validation=validation, generator=CODES, reference=REFERENCE, tolerance=tolerance)
    counts = validation if by == "downstream" else CODES
    expected = coefficients(objective, counts, reference=REFERENCE)
    assert found.by == by
    assert found.patients == counts[:, MEMBERS].sum()
    assert found.coefficients.loss == expected.loss > 0
    np.testing.assert_array_equal(found.coefficients.values, expected.values)


def test_an_objective_for_codes_is_taken_of_labels_downstream():
    objective = ObjectiveConfig(name="equalised_odds", target="label")
    found = switch(objective, validation=UNFAIR, generator=UNFAIR, reference=REFERENCE)
    assert (found.by, found.coefficients.loss) == (
        "downstream",
        coefficients(objective, UNFAIR, reference=REFERENCE).loss,
    )


def test_validation_without_anybody_to_compare_is_refused_not_called_fair():
    alone = UNFAIR * np.array([[1.0], [0.0], [0.0]])
    with pytest.raises(CohortError):
        switch(ObjectiveConfig(), validation=alone, generator=CODES, reference=REFERENCE)
