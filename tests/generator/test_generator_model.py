import numpy as np
import pytest
import torch
from generator_naive import naive_cells, naive_logits, naive_mask, naive_tensor
from generator_toys import SMALL, SMALL_VOCABULARY, hospital, ints, records_of, rough_weights, study_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fairsynth.errors import CohortError, ProtocolError
from fairsynth.generator.batch import Sequences
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.train import objective_of
from fairsynth.visits.records import Records

LAYOUT = SMALL_VOCABULARY.layout
ROUGH = rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=5)
FRESH = initial_weights(SMALL_VOCABULARY, SMALL, seed=5)


def sequences(records):
    return Sequences.of(records, vocabulary=SMALL_VOCABULARY, maximum_visits=SMALL.maximum_visits)


def packed(records, *, weights=ROUGH, dtype=torch.float64):
    """(steps, V) logits of each patient, in the order of `records`."""
    batch = sequences(records).batch(np.arange(len(records)))
    with torch.no_grad():
        logits = build(weights, vocabulary=SMALL_VOCABULARY, config=SMALL).to(dtype)(batch).numpy()
    order = np.argsort(batch.rows.numpy())
    return [logits[batch.step_patient.numpy() == place] for place in order]


def one(*visits, phenotypes=(0,)):
    return records_of([(1, 0, 1, 2, phenotypes, visits)], words=SMALL_VOCABULARY)


def test_changing_a_code_moves_no_logit_up_to_it_and_moves_a_later_one():
    visit = {2, 5, 11}
    (before,) = packed(one([1, 3], visit, [0, 7]))
    for code in range(len(SMALL_VOCABULARY.codes)):
        (after,) = packed(one([1, 3], visit ^ {code}, [0, 7]))
        np.testing.assert_array_equal(after[:2], before[:2])
        np.testing.assert_allclose(after[2, : code + 1], before[2, : code + 1], rtol=0, atol=1e-12)
        assert (np.abs(after[2, code + 1 :] - before[2, code + 1 :]) > 1e-4).any()
        assert (np.abs(after[3] - before[3]) > 1e-4).any()


def test_changing_the_label_visit_moves_every_visit_after_it_but_none_of_its_own_earlier_tokens():
    (before,), (after,) = packed(one([1, 3], [4])), packed(one([1, 3], [4], phenotypes=(0, 1)))
    changed = LAYOUT.phenotypes.start + 1
    np.testing.assert_allclose(after[0, : changed + 1], before[0, : changed + 1], rtol=0, atol=1e-12)
    assert (np.abs(after[1:] - before[1:]).max(axis=1) > 1e-4).all()


def test_changing_a_later_visit_moves_no_earlier_visit():
    (before,), (after,) = packed(one([1], [2], [3])), packed(one([1], [2], [9, 10, 17]))
    np.testing.assert_array_equal(after[:3], before[:3])
    np.testing.assert_allclose(after[3, :4], before[3, :4], rtol=0, atol=1e-12)  # code 3 is the first that differs


@pytest.mark.parametrize(
    ("weights", "dtype", "tolerance"), [(ROUGH, torch.float64, 1e-10), (FRESH, torch.float32, 1e-5)]
)
def test_packed_logits_equal_the_naive_dense_model(weights, dtype, tolerance):
    records = hospital(30, seed=3)
    rows = naive_tensor(records, SMALL_VOCABULARY, length=SMALL.maximum_visits + 2)
    naive = naive_logits(weights, rows, config=SMALL)
    mask = naive_mask(records, length=rows.shape[1])
    for own, logits, real in zip(packed(records, weights=weights, dtype=dtype), naive, mask, strict=True):
        np.testing.assert_allclose(own, logits[real], atol=tolerance, rtol=tolerance)


def test_the_plain_loss_is_the_naive_mean_over_real_cells():
    records = hospital(30, seed=3)
    study = study_of(records)
    rows = naive_tensor(records, SMALL_VOCABULARY, length=SMALL.maximum_visits + 2)
    cells = naive_cells(naive_logits(ROUGH, rows, config=SMALL), rows[:, 1:])
    expected = cells[naive_mask(records, length=rows.shape[1])].mean()
    batch = sequences(records).batch(np.arange(len(records)))
    model = build(ROUGH, vocabulary=SMALL_VOCABULARY, config=SMALL)
    assert float(objective_of(study, slopes=None).of(model, batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_equal_and_unequal_lengths_gives_each_patient_its_own_logits():
    records = hospital(40, seed=8)
    together = packed(records)
    for i in (0, 7, 39):
        (alone,) = packed(records.take(ints([i])))
        np.testing.assert_allclose(together[i], alone, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sets(st.integers(0, 19)), min_size=1, max_size=6), min_size=1, max_size=6), st.randoms())
def test_a_batch_holds_exactly_the_rows_of_its_patients(visits, random):
    records = records_of([(i % 3, i % 2, 0, 1, [], own) for i, own in enumerate(visits)], words=SMALL_VOCABULARY)
    rows = ints(random.choices(range(len(visits)), k=4))
    batch = sequences(records).batch(rows)
    dense = naive_tensor(records, SMALL_VOCABULARY, length=8)
    real = naive_mask(records, length=8)
    own = batch.rows.numpy()
    expected = np.concatenate([dense[own, 1], *(dense[row, 2:][real[row, 1:]] for row in own)])
    np.testing.assert_array_equal(batch.dense(LAYOUT, torch.float32).numpy(), expected)
    inputs = np.concatenate([dense[row, 1:-1][real[row, 1:]] for row in own])
    np.testing.assert_array_equal(np.nonzero(inputs)[1], batch.inputs.tokens)
    np.testing.assert_array_equal(inputs.sum(1).cumsum() - inputs.sum(1), batch.inputs.starts)
    assert sorted(own.tolist()) == sorted(rows.tolist())


def test_batches_cover_every_patient_once_within_their_size():
    batches = list(sequences(hospital(50, seed=2)).batches(steps=12))
    assert sorted(np.concatenate([batch.rows for batch in batches]).tolist()) == list(range(50))
    assert max(batch.steps for batch in batches) <= 12


def test_a_patient_with_too_many_visits_is_refused_with_a_count():
    with pytest.raises(CohortError, match="1 of 2 patients"):
        sequences(Records.concatenate([one([1]), one(*[[1]] * 7)]))


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_state():
    state = torch.get_rng_state()
    first = initial_weights(SMALL_VOCABULARY, SMALL, seed=1)
    again = initial_weights(SMALL_VOCABULARY, SMALL, seed=1)
    other = initial_weights(SMALL_VOCABULARY, SMALL, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["embedding"], other["embedding"])
    assert all(array.dtype == np.float32 for array in first.values())


def test_every_misfit_of_received_weights_is_named_at_once():
    weights = initial_weights(SMALL_VOCABULARY, SMALL, seed=1)
    weights["positions"] = weights["positions"][:2]
    weights["norm.bias"] = np.full_like(weights["norm.bias"], np.nan)
    weights["embedding"] = weights["embedding"].astype(np.float64)
    weights["stranger"] = weights.pop("norm.weight")
    with pytest.raises(ProtocolError) as caught:
        build(weights, vocabulary=SMALL_VOCABULARY, config=SMALL)
    assert {problem.where for problem in caught.value.problems} == {
        "positions", "norm.bias", "embedding", "stranger", "norm.weight"
    }  # fmt: skip
