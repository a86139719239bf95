"""Base rates stay at home: sites share deviations from their own log-odds, and learn together what is common."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from generator_toys import SMALL, hospital, records_of, rough_weights, study_of
from generator_toys import SMALL_VOCABULARY as WORDS

from fairsynth.config import ObjectiveConfig
from fairsynth.errors import ProtocolError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.objectives import load_objective
from fairsynth.federation.aggregate import average
from fairsynth.generator import loss
from fairsynth.generator.base_rates import BIAS, at_home, base_rates, to_share
from fairsynth.generator.batch import Sequences
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.train import Moments, measure, objective_of, train
from fairsynth.visits.records import Records

LAYOUT = WORDS.layout
REFERENCE = np.array([True, False, False])


def log_odds(occurs, chances):
    return np.log((occurs + 0.5) / (chances - occurs + 0.5))


def test_rates_are_the_log_odds_of_each_token_by_visit_or_by_patient():
    # group, label, sex, age, phenotypes, visits
    patients = [(0, 1, 0, 2, [1], [[3, 4], [3]]), (1, 0, 1, 2, [], [[3]]), (0, 0, 1, 0, [1], [[]])]
    rates = base_rates(records_of(patients, words=WORDS), vocabulary=WORDS)
    assert rates[3] == pytest.approx(log_odds(3, 4))  # in three of four visits
    assert rates[4] == pytest.approx(log_odds(1, 4))
    assert rates[5] == pytest.approx(log_odds(0, 4))  # never seen, still possible
    assert rates[LAYOUT.end] == pytest.approx(log_odds(3, 4))  # three of four visits are a patient's last
    assert rates[LAYOUT.groups.start] == pytest.approx(log_odds(2, 3))
    assert rates[LAYOUT.label] == pytest.approx(log_odds(1, 3))
    assert rates[LAYOUT.sexes.start + 1] == pytest.approx(log_odds(2, 3))
    assert rates[LAYOUT.phenotypes.start + 1] == pytest.approx(log_odds(2, 3))
    assert rates.shape == (LAYOUT.size,)
    assert np.isfinite(rates).all()


def test_what_was_added_at_home_is_taken_off_before_it_travels():
    weights = rough_weights(words=WORDS, config=SMALL, seed=1)
    rates = base_rates(hospital(50, seed=1), vocabulary=WORDS)
    home = at_home(weights, rates)
    np.testing.assert_allclose(home[BIAS], weights[BIAS] + rates, rtol=1e-6)
    back = to_share(home, rates)
    np.testing.assert_allclose(back[BIAS], weights[BIAS], atol=1e-5)
    assert all(back[name] is weights[name] for name in weights if name != BIAS)
    assert back[BIAS].dtype == np.float32


@pytest.mark.parametrize("bias", [None, np.zeros(3, dtype=np.float32)])
def test_weights_without_an_output_bias_are_refused(bias):
    weights = initial_weights(WORDS, SMALL, seed=1)
    weights.pop(BIAS)
    if bias is not None:
        weights[BIAS] = bias
    with pytest.raises(ProtocolError, match="output bias"):
        at_home(weights, base_rates(hospital(20, seed=1), vocabulary=WORDS))


def test_before_any_training_a_site_expects_each_code_as_often_as_it_saw_it():
    site = hospital(300, seed=1)
    weights = at_home(initial_weights(WORDS, SMALL, seed=1), base_rates(site, vocabulary=WORDS))
    soft = measure(weights, records=site, study=study_of(site)).soft
    np.testing.assert_allclose(soft[:, 2].sum(), soft[:, 1].sum(), rtol=0.1)


# --- two hospitals with codes of their own ---------------------------------------------------------------------------


def mirrored(records):
    """The same patients with every code k written as C - 1 - k: what is common there is rare here."""
    order = np.repeat(np.arange(records.visits), np.diff(records.visit_offsets))
    codes = len(WORDS.codes) - 1 - records.codes
    return replace(records, codes=codes[np.lexsort((codes, order))])


SITES = {"a": hospital(400, seed=1), "b": mirrored(hospital(150, seed=2))}
PATIENTS = {site: len(records) for site, records in SITES.items()}
RATES = {site: base_rates(records, vocabulary=WORDS) for site, records in SITES.items()}
NOTHING = np.zeros(LAYOUT.size)
STUDY = study_of(Records.concatenate(list(SITES.values())), learning_rate=3e-3, batch_size=16)


def federated(rates, *, rounds=6):
    """Nats a visit over both sites after all rounds, with shared moments."""
    weights, moments = initial_weights(WORDS, SMALL, seed=1), None
    for number in range(rounds):
        trained = {
            site: train(
                at_home(weights, rates[site]),
                records=records,
                study=replace(STUDY, moments=moments),
                coefficients=None,
                epochs=1,
                seed=number,
            )
            for site, records in SITES.items()
        }
        shared = {site: to_share(one.weights, rates[site]) for site, one in trained.items()}
        weights = average(shared, patients=PATIENTS)
        moments = Moments(
            first=average({site: one.moments.first for site, one in trained.items()}, patients=PATIENTS),
            second=average({site: one.moments.second for site, one in trained.items()}, patients=PATIENTS),
        )
    found = [measure(at_home(weights, rates[site]), records=records, study=STUDY) for site, records in SITES.items()]
    return sum(one.nll for one in found) / sum(one.cells for one in found)


def test_sites_that_differ_learn_more_in_the_same_rounds_when_their_base_rates_stay_at_home():
    assert federated(RATES) < 0.95 * federated({"a": NOTHING, "b": NOTHING})


def test_the_sites_gradients_still_sum_to_the_pooled_gradient_each_with_its_own_base_rates():
    objective = ObjectiveConfig(name="disparate_impact", target="codes", weight=1.2, maximum_coefficient=1e9)
    study = study_of(Records.concatenate(list(SITES.values())), objective=objective)
    weights = rough_weights(words=WORDS, config=SMALL, seed=3, noise=0.15)
    everyone, total = sum(PATIENTS.values()), LAYOUT.size * study.totals.positions
    batches = {
        site: Sequences.of(records, vocabulary=WORDS, maximum_visits=SMALL.maximum_visits).batch(
            np.arange(len(records))
        )
        for site, records in SITES.items()
    }
    # autograd through the pooled objective: one model, each site's rates added to its own patients' logits
    model = build(weights, vocabulary=WORDS, config=SMALL).double()
    counts, nll = torch.zeros(3, 4, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for site, batch in batches.items():
        logits = model(batch) + torch.from_numpy(RATES[site])
        target = batch.dense(LAYOUT, logits.dtype)
        nll = nll + loss.cross_entropy(logits, target)
        own = loss.patient_counts(torch.sigmoid(logits), target, batch=batch, over="codes", layout=LAYOUT)
        columns = torch.stack([torch.ones_like(own.predicted), own.positives, own.predicted, own.true_positives], 1)
        counts = counts.index_add(0, batch.group, columns)
    fairness = load_objective(objective)(counts, reference=torch.tensor(REFERENCE), comparison="pooled")
    ((nll / everyone + objective.weight * fairness) / total).backward()
    pooled = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    values = coefficients(objective, counts.detach().numpy(), reference=REFERENCE).values
    summed = {name: torch.zeros_like(gradient) for name, gradient in pooled.items()}
    for site, batch in batches.items():
        home = build(weights, vocabulary=WORDS, config=SMALL).double()
        with torch.no_grad():
            dict(home.named_parameters())[BIAS].add_(torch.from_numpy(RATES[site]))
        objective_of(study, slopes=torch.from_numpy(everyone * values)).of(home, batch).backward()
        for name, parameter in home.named_parameters():
            summed[name] += PATIENTS[site] / everyone * parameter.grad
    model.zero_grad()
    (sum(_nll(model, batch, RATES[site]) for site, batch in batches.items()) / everyone / total).backward()
    plain = {name: parameter.grad for name, parameter in model.named_parameters()}
    fairness_part = max(float((pooled[name] - plain[name]).abs().max()) for name in pooled)
    assert fairness_part > 1e-6
    error = max(float((summed[name] - pooled[name]).abs().max()) for name in pooled)
    assert error <= 1e-6 * fairness_part


def _nll(model, batch, rates):
    logits = model(batch) + torch.from_numpy(rates)
    return loss.cross_entropy(logits, batch.dense(LAYOUT, logits.dtype))
