import logging

import numpy as np
import pytest
import torch
from generator_toys import SMALL, SMALL_VOCABULARY, hospital, rough_weights

from fairsynth.config import GeneratorConfig
from fairsynth.generator.batch import Sequences, _tensors, _with_tensors
from fairsynth.generator.descent import CLIP_NORM, Descent, Objective, adam, nll
from fairsynth.generator.model import Halo, build, packed, shapes_of

LAYOUT = SMALL_VOCABULARY.layout
EVERYONE = np.arange(40)


@pytest.fixture(scope="module")
def sequences():
    return Sequences.of(hospital(40, seed=3), vocabulary=SMALL_VOCABULARY, maximum_visits=SMALL.maximum_visits)


def descent(sequences, *, model=None, **more):
    model = model or build(
        rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=2), vocabulary=SMALL_VOCABULARY, config=SMALL
    )
    objective = Objective(layout=LAYOUT, positions=float(sequences.steps.mean()))
    optimiser = adam(model, learning_rate=1e-2)
    return Descent(model=model, optimiser=optimiser, sequences=sequences, objective=objective, **more)


def gradient(down):
    down._gradient(EVERYONE)
    return {name: packed(parameter.grad, name, model=down.model) for name, parameter in down.model.named_parameters()}


def flat(values):
    return np.concatenate([array.ravel() for array in values.values()])


def test_parts_of_a_step_have_the_gradient_of_the_whole(sequences):
    whole, parts = gradient(descent(sequences)), gradient(descent(sequences, part=7))
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-5, atol=3e-6 * np.abs(values).max())


def test_out_of_memory_halves_the_part_says_so_and_ends_at_the_same_weights(sequences, monkeypatch, caplog):
    plain = descent(sequences)
    plain.step(EVERYONE)
    short, loss = descent(sequences), Halo.loss

    def scarce(model, batch, terms):
        if len(batch) > 10:
            raise torch.OutOfMemoryError("out of memory")
        return loss(model, batch, terms)

    monkeypatch.setattr(Halo, "loss", scarce)
    with caplog.at_level(logging.WARNING):
        short.step(EVERYONE)
    assert short.part == 10
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory: gradients of {part} patients at once from here on" for part in (20, 10)
    ]
    expected = dict(plain.model.named_parameters())
    for name, weight in short.model.named_parameters():
        if not name.endswith("attention_in.bias"):  # a key's bias has no gradient but rounding, which Adam scales up
            torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(Halo, "loss", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        short.step(EVERYONE)


def test_a_step_is_that_of_clipped_gradients(sequences):
    ours, plain = descent(sequences), descent(sequences)
    for down in (ours, plain):
        down.objective = Objective(layout=LAYOUT, positions=1e-3)  # a large gradient
    ours.step(EVERYONE)
    plain._gradient(EVERYONE)
    norm = torch.nn.utils.clip_grad_norm_(plain.model.parameters(), CLIP_NORM)
    plain.optimiser.step()
    assert norm > 10 * CLIP_NORM
    for first, second in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
        moment = [down.optimiser.state[p]["exp_avg"] for down, p in ((ours, first), (plain, second))]
        torch.testing.assert_close(*moment, rtol=1e-4, atol=1e-8)


def test_gradients_that_are_not_finite_move_nothing_and_are_counted(sequences, caplog):
    down = descent(sequences)
    before = [parameter.detach().clone() for parameter in down.model.parameters()]
    down.objective = Objective(layout=LAYOUT, positions=0.0 + 1e-45)  # its inverse overflows
    down.step(EVERYONE)
    down.report()
    assert caplog.messages == ["steps that moved nothing, since a gradient was not finite: 1"]
    for first, second in zip(before, down.model.parameters(), strict=True):
        assert torch.equal(first, second)


def test_bfloat16_products_give_nearly_the_same_gradient(sequences):
    exact, rough = flat(gradient(descent(sequences))), flat(gradient(descent(sequences, precision=torch.bfloat16)))
    error = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < 5e-2  # it is another precision, and close


@pytest.mark.parametrize("block", [3, 8])
def test_the_panels_height_changes_neither_loss_nor_what_travels(sequences, block, monkeypatch):
    usual = descent(sequences)
    monkeypatch.setattr("fairsynth.generator.model.block_for", lambda _: block)
    other = descent(sequences)
    assert other.model.head.block == block != usual.model.head.block
    assert shapes_of(other.model) == shapes_of(usual.model)
    first, second = gradient(usual), gradient(other)
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, rtol=1e-5, atol=3e-6 * np.abs(values).max())
    assert nll(other.model, sequences, layout=LAYOUT)[0] == pytest.approx(
        nll(usual.model, sequences, layout=LAYOUT)[0], rel=1e-6
    )


def test_a_batch_is_rebuilt_from_its_tensors_field_by_field(sequences):
    batch = sequences.batch(EVERYONE)
    assert batch.to("cpu") is batch
    marked = _with_tensors(batch, (tensor + 1 for tensor in _tensors(batch)))
    assert marked.buckets[0].patients == batch.buckets[0].patients
    assert torch.equal(marked.inputs.starts, batch.inputs.starts + 1)
    assert torch.equal(marked.visits[0].owner, batch.visits[0].owner + 1)
    assert torch.equal(marked.rows, batch.rows + 1)
    assert batch.to("meta").positions.is_meta


def test_patients_with_one_visit_attend_as_in_a_longer_bucket():
    config = GeneratorConfig(embedding=16, layers=2, heads=2, maximum_visits=6)
    model = build(
        rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=2), vocabulary=SMALL_VOCABULARY, config=config
    )
    records = hospital(40, seed=3)
    short = np.flatnonzero(records.visit_counts == 1)
    long = np.flatnonzero(records.visit_counts > 1)[:1]
    assert len(short) > 1
    sequences = Sequences.of(records, vocabulary=SMALL_VOCABULARY, maximum_visits=6)
    alone, beside = sequences.batch(short), sequences.batch(np.concatenate([short, long]))
    bucket = beside.buckets[0]
    assert bucket.length == 2
    with torch.no_grad():
        projected = model.blocks[0].project(torch.randn(1 + len(short), 16, generator=torch.Generator().manual_seed(0)))
        quick = model.blocks[0]._attend(projected, alone.buckets)
        query, key, value = (part.view(-1, 2, 8) for part in projected.split(16, dim=1))
        for row in range(1, len(projected)):
            two = [0, row]
            scores = (query[row] * key[two]).sum(dim=-1) / np.sqrt(8)
            expected = (torch.softmax(scores, dim=0)[..., None] * value[two]).sum(dim=0)
            torch.testing.assert_close(quick[row], expected.flatten(), rtol=1e-5, atol=1e-6)


def test_a_step_is_the_same_whatever_stood_in_the_heads_buffers(sequences):
    clean, used = descent(sequences), descent(sequences)
    with torch.inference_mode():
        nll(used.model, sequences, layout=LAYOUT)
    nll(used.model, sequences, layout=LAYOUT)
    used._gradient(EVERYONE)
    for held in used.model.head._held.values():
        held.fill_(torch.nan)
    first, second = gradient(clean), gradient(used)
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values)
    used.model.head.release()
    assert not used.model.head._held
