"""Sites that differ: sharing the optimiser's moments brings federated training nearer to the pooled optimum."""

from dataclasses import replace

import numpy as np
import pytest
from generator_toys import SMALL, hospital, study_of
from generator_toys import SMALL_VOCABULARY as WORDS

from fairsynth.errors import ProtocolError
from fairsynth.federation.aggregate import average
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import Moments, measure, train
from fairsynth.visits.records import Records

ROUNDS = 12


def mirrored(records):
    """The same patients with every code k written as C - 1 - k: what is common there is rare here."""
    order = np.repeat(np.arange(records.visits), np.diff(records.visit_offsets))
    codes = len(WORDS.codes) - 1 - records.codes
    return replace(records, codes=codes[np.lexsort((codes, order))])


SITES = {"a": hospital(400, seed=1), "b": mirrored(hospital(150, seed=2))}
POOLED = Records.concatenate(list(SITES.values()))
PATIENTS = {site: len(records) for site, records in SITES.items()}
STUDY = study_of(POOLED, learning_rate=1e-2, batch_size=16)


def mean(trained, get):
    return average({site: get(one) for site, one in trained.items()}, patients=PATIENTS)


def federated(*, shared):
    """Loss of site b, nats a visit, after all rounds."""
    weights, moments = initial_weights(WORDS, SMALL, seed=1), None
    for number in range(ROUNDS):
        study = replace(STUDY, moments=moments, learning_rate=1e-2 * (1 - number / ROUNDS))
        trained = {
            site: train(weights, records=records, study=study, coefficients=None, epochs=1, seed=number)
            for site, records in SITES.items()
        }
        weights = mean(trained, lambda one: one.weights)
        if shared:
            moments = Moments(
                first=mean(trained, lambda one: one.moments.first), second=mean(trained, lambda one: one.moments.second)
            )
    measured = measure(weights, records=SITES["b"], study=STUDY)
    return measured.nll / measured.cells


def test_the_smaller_of_two_sites_that_differ_is_modelled_better_with_shared_moments():
    assert federated(shared=True) < 0.95 * federated(shared=False)


def test_moments_have_the_names_and_shapes_of_the_weights_and_second_ones_are_not_negative():
    weights = initial_weights(WORDS, SMALL, seed=1)
    moments = train(weights, records=SITES["b"], study=STUDY, coefficients=None, epochs=1, seed=1).moments
    for arrays in (moments.first, moments.second):
        assert {name: array.shape for name, array in arrays.items()} == {
            name: array.shape for name, array in weights.items()
        }
    assert min(array.min() for array in moments.second.values()) >= 0
    assert max(array.max() for array in moments.second.values()) > 0


def test_without_a_step_there_are_no_moments():
    weights = initial_weights(WORDS, SMALL, seed=1)
    trained = train(weights, records=SITES["b"], study=STUDY, coefficients=None, epochs=0, seed=1)
    assert all(not array.any() for array in (*trained.moments.first.values(), *trained.moments.second.values()))
    assert all(np.array_equal(trained.weights[name], weights[name]) for name in weights)


def test_moments_of_another_model_are_refused():
    weights = initial_weights(WORDS, SMALL, seed=1)
    study = replace(STUDY, moments=Moments(first={"x": np.zeros(1, dtype=np.float32)}, second=weights))
    with pytest.raises(ProtocolError, match="unknown or missing weight"):
        train(weights, records=SITES["b"], study=study, coefficients=None, epochs=1, seed=1)
