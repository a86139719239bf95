from __future__ import annotations

import time
from dataclasses import replace

import audit_toy as toy
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Oracle
from sklearn.metrics import roc_auc_score
from torch import nn

from fairsynth.audit.features import blind, features
from fairsynth.audit.predictors import PREDICTORS, FitSettings, bag_of_tokens, load_predictor
from fairsynth.audit.transformer import WIDTH, Dropout, Layer, Network, batches
from fairsynth.errors import ConfigError
from fairsynth.seeds import torch_stream
from fairsynth.visits.records import Records

SETTINGS = FitSettings(epochs=2, threads=1)
TRAIN = toy.draw([[300, 80], [300, 80]], seed=1)
FRESH = toy.draw([[200, 60], [200, 60]], seed=2)


def fit(name: str, train: Records = TRAIN, *, seed: int = 5, settings: FitSettings = SETTINGS):
    return load_predictor(name).fit(train, vocabulary=toy.VOCABULARY, settings=settings, seed=seed)


def with_label_flipped(records: Records) -> Records:
    """The same patients, each with the other label, in the context too."""
    lists = np.split(records.context, records.context_offsets[1:-1])
    label = toy.LAYOUT.label
    flipped = [np.sort(np.setxor1d(tokens, [label])) for tokens in lists]
    return replace(
        records,
        context=np.concatenate(flipped),
        context_offsets=np.concatenate([[0], np.cumsum([len(tokens) for tokens in flipped])]),
        label=1 - records.label,
    )


@pytest.mark.parametrize("name", PREDICTORS)
def test_flipping_the_label_of_a_patient_changes_no_score(name):
    fitted = fit(name)
    assert np.array_equal(fitted.scores(FRESH), fitted.scores(with_label_flipped(FRESH)))


@pytest.mark.parametrize("name", PREDICTORS)
def test_changing_the_group_or_a_code_changes_scores(name):
    fitted, other = fit(name), replace(FRESH, codes=(FRESH.codes + 1) % toy.CODES)
    assert not np.allclose(fitted.scores(FRESH), fitted.scores(other))
    regrouped = np.where(FRESH.context == toy.LAYOUT.groups.start, FRESH.context + 1, FRESH.context)
    assert not np.allclose(fitted.scores(FRESH), fitted.scores(replace(FRESH, context=regrouped)))


@pytest.mark.parametrize("name", PREDICTORS)
def test_scores_rank_fresh_patients_well_and_lie_in_the_unit_interval(name):
    scores = fit(name, settings=FitSettings(epochs=6, threads=1)).scores(FRESH)
    assert scores.dtype == np.float64 and scores.shape == (len(FRESH),)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert roc_auc_score(FRESH.label, scores) > 0.8


@pytest.mark.parametrize("name", PREDICTORS)
def test_labels_without_a_pattern_teach_nothing(name):
    shuffled = np.random.default_rng(0).permutation(TRAIN.label)
    scores = fit(name, replace(TRAIN, label=shuffled)).scores(FRESH)
    assert abs(roc_auc_score(FRESH.label, scores) - 0.5) < 0.15


@pytest.mark.parametrize("name", PREDICTORS)
def test_the_same_seed_gives_the_same_scores(name):
    assert np.array_equal(fit(name).scores(FRESH), fit(name).scores(FRESH))


def test_another_seed_gives_another_transformer():
    assert not np.allclose(fit("transformer", seed=5).scores(FRESH), fit("transformer", seed=6).scores(FRESH))


@pytest.mark.parametrize("name", PREDICTORS)
def test_fitting_leaves_the_global_random_state_and_the_thread_count_alone(name):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002  # the state that must not move
    few = TRAIN.take(np.arange(64))
    fit(name, few, settings=FitSettings(epochs=1, threads=threads + 1)).scores(few)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002  # as above
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_score_depends_on_the_patient_alone(name):
    fitted, rows = fit(name), np.array([7, 3, 400])
    assert np.allclose(fitted.scores(FRESH.take(rows)), fitted.scores(FRESH)[rows], atol=1e-6)


@pytest.mark.parametrize("name", PREDICTORS)
def test_training_patients_of_one_class_give_a_model_all_the_same(name):
    scores = fit(name, toy.draw([[30, 0], [10, 0]], seed=3)).scores(FRESH)
    assert (scores < 0.5).all()


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_patient_without_codes_or_phenotypes_can_be_scored(name):
    bare = Records(
        codes=np.zeros(0, dtype=np.int64),
        visit_offsets=np.zeros(2, dtype=np.int64),
        patient_offsets=np.array([0, 1]),
        context=np.array([toy.LAYOUT.groups.start]),
        context_offsets=np.array([0, 1]),
        group=np.array([0]),
        label=np.array([0]),
    )
    assert np.isfinite(fit(name).scores(bare)).all()


def test_logistic_regression_equals_scikit_learn_on_a_dense_matrix_made_by_hand():
    width = toy.LAYOUT.size
    dense = np.zeros((len(TRAIN), width))
    dense[TRAIN.visit_patient.repeat(np.diff(TRAIN.visit_offsets)), TRAIN.codes] = 1
    dense[np.arange(len(TRAIN)).repeat(np.diff(TRAIN.context_offsets)), TRAIN.context] = 1
    dense[:, [toy.LAYOUT.label, toy.LAYOUT.start, toy.LAYOUT.end]] = 0
    expected = Oracle(C=1.0, max_iter=2000).fit(dense, TRAIN.label).predict_proba(dense)[:, 1]
    assert np.allclose(fit("logistic_regression").scores(TRAIN), expected, atol=2e-3)
    assert bag_of_tokens(TRAIN, vocabulary=toy.VOCABULARY).sum() == dense.sum()


def test_the_read_out_equals_torch_attention_over_each_patient_alone():
    layer = Layer()
    rng = torch_stream(1, "test")
    for parameter in layer.parameters():
        parameter.data.normal_(0, 0.2, generator=rng)
    lengths = np.array([2, 0, 5])
    tokens = torch.randn(7, WIDTH, generator=rng)
    read = layer(tokens, lengths, None)
    oracle = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
    oracle.in_proj_weight.data = torch.cat([layer.query.weight, layer.key_value.weight]).data
    oracle.in_proj_bias.data = torch.cat([layer.query.bias, layer.key_value.bias]).data
    oracle.out_proj.load_state_dict(layer.output.state_dict())
    for patient, part in enumerate(torch.split(tokens, lengths.tolist())):
        sequence = torch.cat([part, layer.readout[None]])[None]  # the read-out token comes last
        causal = nn.Transformer.generate_square_subsequent_mask(sequence.shape[1])
        mixed = sequence + oracle(sequence, sequence, sequence, attn_mask=causal, need_weights=False)[0]
        mixed = layer.norms[0](mixed)
        mixed = layer.norms[1](mixed + layer.narrow(torch.relu(layer.widen(mixed))))
        assert torch.allclose(read[patient], mixed[0, -1], atol=1e-5)


def test_the_order_of_visits_matters_to_the_transformer_and_the_order_of_codes_does_not():
    two_visits = Records(
        codes=np.array([0, 1, 2, 10, 11]),
        visit_offsets=np.array([0, 3, 5]),
        patient_offsets=np.array([0, 2]),
        context=np.array([toy.LAYOUT.groups.start]),
        context_offsets=np.array([0, 1]),
        group=np.array([0]),
        label=np.array([0]),
    )
    swapped = replace(two_visits, codes=np.array([10, 11, 0, 1, 2]), visit_offsets=np.array([0, 2, 5]))
    reordered = replace(two_visits, codes=np.array([2, 0, 1, 11, 10]))
    fitted = fit("transformer")
    assert not np.isclose(fitted.scores(two_visits), fitted.scores(swapped), atol=1e-6)
    assert np.isclose(fitted.scores(two_visits), fitted.scores(reordered), atol=1e-6)


def test_dropout_keeps_the_expectation_and_the_stated_share():
    dropped = Dropout(rate=0.1, generator=torch_stream(1, "dropout"))(torch.ones(200_000))
    assert abs(float(dropped.mean()) - 1) < 0.01
    assert abs(float((dropped == 0).float().mean()) - 0.1) < 0.01


def test_every_parameter_is_trained():
    network = Network(toy.VOCABULARY, prior=0.0)
    network.initialise(torch_stream(1, "initial"))
    network(features(TRAIN, vocabulary=toy.VOCABULARY), None).pow(2).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_batches_hold_every_patient_once_and_differ_little_in_length():
    lengths = np.random.default_rng(0).integers(1, 40, size=1000)
    parts = list(batches(lengths, size=64, rng=np.random.default_rng(1)))
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    assert max(len(part) for part in parts) == 64
    assert np.mean([np.ptp(lengths[part]) for part in parts]) < 5


def test_blinding_removes_the_label_and_nothing_else():
    hidden = blind(FRESH, vocabulary=toy.VOCABULARY)
    assert not hidden.label.any()
    assert toy.LAYOUT.label not in hidden.context
    assert len(FRESH.context) - len(hidden.context) == FRESH.label.sum()
    seen, before = (features(each, vocabulary=toy.VOCABULARY) for each in (hidden, FRESH))
    for name in ("visits", "phenotypes", "demographics"):
        assert np.array_equal(getattr(seen, name).values, getattr(before, name).values)
        assert np.array_equal(getattr(seen, name).offsets, getattr(before, name).offsets)


def test_features_of_a_patient_are_read_by_hand():
    layout = toy.LAYOUT
    patient = Records(
        codes=np.array([3, 4, 3]),
        visit_offsets=np.array([0, 2, 3]),
        patient_offsets=np.array([0, 2]),
        context=np.array(
            [
                layout.groups.start + 1,
                layout.label,
                layout.sexes.start,
                layout.ages.start + 1,
                layout.phenotypes.start + 2,
            ]
        ),
        context_offsets=np.array([0, 5]),
        group=np.array([1]),
        label=np.array([1]),
    )
    inputs = features(patient, vocabulary=toy.VOCABULARY)
    assert inputs.demographics.values.tolist() == [1, 2, 5]  # groups 0-1, sexes 2-3, ages 4-5
    assert inputs.phenotypes.values.tolist() == [2]
    assert bag_of_tokens(patient, vocabulary=toy.VOCABULARY).nonzero()[1].tolist() == [3, 4, 32, 34, 35, 38]


def test_an_unknown_predictor_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match="transformer, logistic_regression"):
        load_predictor("random_forest")


def test_five_thousand_patients_are_learnt_in_seconds():
    train = toy.draw([[3000, 500], [1000, 500]], seed=4)
    start = time.process_time()
    fit("transformer", train, settings=FitSettings(epochs=1, threads=1))
    assert time.process_time() - start < 15  # about 2 s of one idle core; the slack is for slower ones
