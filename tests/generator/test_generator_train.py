import numpy as np
import pytest
import torch
from generator_naive import naive_cells, naive_logits, naive_mask, naive_tensor
from generator_toys import SMALL, SMALL_VOCABULARY, hospital, rough_weights, study_of

from fairsynth.config import ObjectiveConfig
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.objectives import load_objective
from fairsynth.generator import loss
from fairsynth.generator.batch import Sequences
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.train import measure, objective_of, train

LAYOUT = SMALL_VOCABULARY.layout
REFERENCE = np.array([True, False, False])
START = initial_weights(SMALL_VOCABULARY, SMALL, seed=4)


@pytest.fixture(scope="module")
def site():
    return hospital(600, seed=1)


@pytest.fixture(scope="module")
def plain(site):
    study = study_of(site, learning_rate=5e-3, batch_size=32)
    return train(START, records=site, study=study, coefficients=None, epochs=12, seed=2).weights


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


def unigram_nll(records, *, fitted_on):
    """Nats a visit under independent tokens with the frequencies of the label visit and of visits."""

    def cells(own):
        rows = naive_tensor(own, SMALL_VOCABULARY, length=8)[:, 1:]
        real = naive_mask(own, length=8)
        return rows[:, 0], rows[:, 1:][real[:, 1:]]

    total = 0.0
    for seen, new in zip(cells(fitted_on), cells(records), strict=True):
        rate = (seen.sum(0) + 0.5) / (len(seen) + 1)
        total -= (new * np.log(rate) + (1 - new) * np.log1p(-rate)).sum()
    return total / (len(records) + records.visits)


def test_validation_nll_beats_the_unigram_model(site, plain):
    unseen = hospital(200, seed=99)
    measured = measure(plain, records=unseen, study=study_of(site))
    assert measured.nll / measured.cells < 0.9 * unigram_nll(unseen, fitted_on=site)


def test_the_same_call_gives_the_same_bytes_and_leaves_the_global_state(site):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    few = site.take(np.arange(100))
    runs = [
        train(START, records=few, study=study_of(few, threads=2), coefficients=None, epochs=1, seed=s).weights
        for s in (7, 7, 8)
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_lambda_zero_is_plain_halo_bit_for_bit(site):
    few = site.take(np.arange(150))
    slopes = np.array([[0.01, 0.0], [-0.02, 0.0], [-0.02, 0.01]])
    off = study_of(few, objective=ObjectiveConfig(weight=0))
    halo = train(START, records=few, study=study_of(few), coefficients=None, epochs=2, seed=3)
    without = train(START, records=few, study=off, coefficients=slopes, epochs=2, seed=3)
    with_term = train(START, records=few, study=study_of(few), coefficients=slopes, epochs=2, seed=3)
    assert same(halo.weights, without.weights)
    assert not same(halo.weights, with_term.weights)
    assert not without.bounded


def test_zero_epochs_return_the_received_weights(site):
    assert same(train(START, records=site, study=study_of(site), coefficients=None, epochs=0, seed=3).weights, START)


def test_a_coefficient_beyond_its_bound_is_cut_and_reported(site):
    few = site.take(np.arange(64))
    study = study_of(few, objective=ObjectiveConfig(maximum_coefficient=2.0))
    at, beyond = np.zeros((3, 2)), np.zeros((3, 2))
    at[1, 0], beyond[1, 0] = -2.0 / len(few), -50.0 / len(few)
    cut = [train(START, records=few, study=study, coefficients=c, epochs=1, seed=3) for c in (at, beyond)]
    assert same(cut[0].weights, cut[1].weights)
    assert [result.bounded for result in cut] == [False, True]


@pytest.mark.parametrize("target", ["codes", "label"])
def test_measured_statistics_equal_a_brute_force_over_patients(target):
    records = hospital(60, seed=6)
    weights = rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=1)
    study = study_of(records, objective=ObjectiveConfig(target=target))
    rows = naive_tensor(records, SMALL_VOCABULARY, length=8)
    logits, real = naive_logits(weights, rows, config=SMALL), naive_mask(records, length=8)
    soft, hard = np.zeros((3, 4)), np.zeros((3, 4))
    for i, (group, visits) in enumerate(zip(records.group, records.visit_counts, strict=True)):
        where = np.s_[i, 1 : 1 + visits, LAYOUT.codes] if target == "codes" else np.s_[i, :1, LAYOUT.label]
        actual, score = rows[:, 1:][where], logits[where]
        for total, positive in ((soft, 1 / (1 + np.exp(-score))), (hard, score > 0)):
            total[group] += [1, actual.sum(), positive.sum(), (actual * positive).sum()]
    measured = measure(weights, records=records, study=study)
    np.testing.assert_allclose(measured.soft, soft, rtol=1e-5)
    np.testing.assert_array_equal(measured.hard, hard)
    assert measured.nll == pytest.approx(naive_cells(logits, rows[:, 1:])[real].sum(), rel=1e-5)
    assert measured.cells == real.sum()


def full_gradient(model, records, *, study, slopes):
    """The gradient over all of `records` in one batch, by name."""
    batch = Sequences.of(records, vocabulary=SMALL_VOCABULARY, maximum_visits=SMALL.maximum_visits).batch(
        np.arange(len(records))
    )
    model.zero_grad()
    objective_of(study, slopes=slopes).of(model, batch).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def pooled_gradient(model, records, *, study):
    """Autograd through the pooled objective itself: BCE and lambda L_F of the counts, ratio of rates included."""
    batch = Sequences.of(records, vocabulary=SMALL_VOCABULARY, maximum_visits=SMALL.maximum_visits).batch(
        np.arange(len(records))
    )
    objective = study.plan.objective
    model.zero_grad()
    logits = model(batch)
    target = batch.dense(LAYOUT, logits.dtype)
    own = loss.patient_counts(torch.sigmoid(logits), target, batch=batch, over=objective.target, layout=LAYOUT)
    columns = torch.stack([torch.ones_like(own.predicted), own.positives, own.predicted, own.true_positives], dim=1)
    counts = torch.zeros(3, 4, dtype=torch.float64).index_add(0, batch.group, columns)
    fairness = load_objective(objective)(counts, reference=torch.tensor(REFERENCE), comparison=objective.comparison)
    nll = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum() / len(records)
    ((nll + objective.weight * fairness) / (LAYOUT.size * study.totals.positions)).backward()
    return counts.detach().numpy(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    "objective",
    [
        ObjectiveConfig(name="disparate_impact", target="codes", weight=1.2, maximum_coefficient=1e9),
        ObjectiveConfig(name="disparate_impact", target="label", weight=1.2, maximum_coefficient=1e9),
        ObjectiveConfig(name="worst_tpr", target="codes", weight=5.0, maximum_coefficient=1e9),
    ],
    ids=lambda objective: f"{objective.name}-{objective.target}",
)
def test_the_sites_gradients_sum_to_the_pooled_gradient_when_one_site_lacks_a_group(objective):
    everyone = hospital(120, seed=12, shares=(0.5, 0.3, 0.2))
    site_of = np.random.default_rng(1).choice(3, size=120, p=[0.7, 0.2, 0.1])
    site_of[(site_of == 1) & (everyone.group == 2)] = 0
    assert not (everyone.group[site_of == 1] == 2).any()
    study = study_of(everyone, objective=objective)
    weights = rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=3, noise=0.15)
    model = build(weights, vocabulary=SMALL_VOCABULARY, config=SMALL).double()
    counts, pooled = pooled_gradient(model, everyone, study=study)
    values = coefficients(objective, counts, reference=REFERENCE).values
    slopes = torch.from_numpy(len(everyone) * values)
    summed = dict.fromkeys(pooled, 0)
    for site in range(3):
        members = everyone.take(site_of == site)
        own = full_gradient(model, members, study=study, slopes=slopes)
        summed = {name: summed[name] + len(members) / len(everyone) * own[name] for name in own}
    plain = full_gradient(model, everyone, study=study, slopes=None)
    fairness_part = max(float((pooled[name] - plain[name]).abs().max()) for name in pooled)
    error = max(float((summed[name] - pooled[name]).abs().max()) for name in pooled)
    assert fairness_part > 1e-6
    assert error <= 1e-6 * fairness_part


def test_the_fairness_term_has_a_gradient_and_moves_the_rates_toward_parity(site, plain):
    study = study_of(site, objective=ObjectiveConfig(weight=2.0), learning_rate=2e-3)
    before = measure(plain, records=site, study=study).soft
    values = coefficients(study.plan.objective, before, reference=REFERENCE)
    model = build(plain, vocabulary=SMALL_VOCABULARY, config=SMALL)
    slopes = torch.from_numpy(len(site) * values.values)
    with_term = full_gradient(model, site, study=study, slopes=slopes)
    without = full_gradient(model, site, study=study, slopes=None)
    assert all(not torch.equal(with_term[name], without[name]) for name in with_term)

    steered = train(plain, records=site, study=study, coefficients=values.values, epochs=1, seed=5).weights
    unsteered = train(plain, records=site, study=study, coefficients=None, epochs=1, seed=5).weights
    after, control = (measure(weights, records=site, study=study).soft for weights in (steered, unsteered))
    assert disparity(before) > 0.2
    assert disparity(after) < disparity(before) - 0.05
    assert disparity(after) < disparity(control) - 0.05


def test_rounds_with_stale_coefficients_settle_nearer_parity_and_stay_faithful(site, plain):
    """Coefficients are slopes at the model that was received; local steps must not run away along them."""
    nll, gap = {}, {}
    for weight in (0.0, 0.5):
        study = study_of(site, objective=ObjectiveConfig(weight=weight), learning_rate=2e-3)
        weights, gap[weight] = plain, []
        for number in range(5):
            counts = measure(weights, records=site, study=study).soft
            values = coefficients(study.plan.objective, counts, reference=REFERENCE).values
            weights = train(weights, records=site, study=study, coefficients=values, epochs=1, seed=number).weights
            gap[weight].append(disparity(measure(weights, records=site, study=study).soft))
        nll[weight] = measure(weights, records=site, study=study).nll
    assert max(gap[0.5][-3:]) < min(gap[0.0][-3:])
    assert nll[0.5] < 1.02 * nll[0.0]


def disparity(counts):
    rate = counts[1:, 2].sum() / counts[1:, 0].sum()
    return abs(1 - rate / (counts[0, 2] / counts[0, 0]))
