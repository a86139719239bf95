"""The plain published model has our loss and our gradients, and samples token by token."""

import numpy as np
import pytest
import torch

from benchmarks import mimic_shaped
from benchmarks.naive_halo import NaiveHalo, NaiveTraining, batch_of, difference, next_visit, sample_rows
from fairsynth.config import GeneratorConfig
from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import Objective
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.visit import draw_visit

WORDS = mimic_shaped.vocabulary(320)  # of two panels of codes, the second one short
LAYOUT = WORDS.layout
CONFIG = GeneratorConfig(embedding=16, layers=2, heads=2, maximum_visits=6)
ROWS = CONFIG.maximum_visits + 2


def toy(*, noise):
    """Weights far from the sparse start, so that every dependence between tokens shows."""
    rng = np.random.default_rng(3)
    weights = initial_weights(WORDS, CONFIG, seed=3)
    rough = {name: array + rng.normal(0, noise, size=array.shape) for name, array in weights.items()}
    arrays = {name: array.astype(np.float32) for name, array in rough.items()}
    return build(arrays, vocabulary=WORDS, config=CONFIG)


def patients(*visits):
    return mimic_shaped.patients(WORDS, visits=np.array(visits))


def compare(model, records, *, positions=ROWS - 1):
    sequences = Sequences.of(records, vocabulary=WORDS, maximum_visits=CONFIG.maximum_visits)
    objective = Objective(layout=LAYOUT, positions=positions)
    rows = np.arange(len(records))
    batch = batch_of(records, rows, layout=LAYOUT, rows=ROWS)
    return difference(model, lambda: objective.of(model, sequences.batch(rows)), batch)


@pytest.mark.parametrize("noise", [0.01, 0.1])
@pytest.mark.parametrize("visits", [(1, 2, 1, 6, 3, 1, 1), (6, 6, 6)], ids=["short", "full"])
def test_the_published_model_has_our_loss_and_our_gradients(visits, noise):
    found = compare(toy(noise=noise), patients(*visits))
    assert found.loss < 1e-5
    assert found.gradients < 1e-5


def test_another_loss_is_seen():
    found = compare(toy(noise=0.1), patients(1, 2), positions=ROWS)
    assert found.loss == pytest.approx(1 / ROWS, rel=1e-3)
    assert found.gradients == pytest.approx(1 / ROWS, rel=1e-2)


def test_published_steps_go_downhill_and_leave_the_masked_half():
    model = NaiveHalo.like(toy(noise=0.01))
    training = NaiveTraining(model, records=patients(1, 1, 2, 1), layout=LAYOUT)
    losses = [float(training.step(np.arange(4))) for _ in range(10)]
    assert losses[-1] < losses[0]
    assert not (model.first.weight.detach() * (1 - model.first.mask)).any()


def test_the_published_loop_gives_the_sequential_sample_of_the_same_uniforms():
    model = NaiveHalo.like(toy(noise=0.1))
    visits = batch_of(patients(1, 1, 2, 3), np.arange(4), layout=LAYOUT, rows=ROWS).visits[:, :2]
    uniform = torch.from_numpy(np.random.default_rng(1).random((4, LAYOUT.size))).float()
    found = next_visit(model, visits, draw=lambda chances: uniform < chances)
    expected = torch.zeros(4, LAYOUT.size)
    for token in range(LAYOUT.size):
        with torch.no_grad():
            chances = model(torch.cat([visits, expected[:, None]], dim=1))[:, -1]
        expected[:, token] = (uniform[:, token] < chances[:, token]).float()
    assert torch.equal(found.visit, expected)
    distinct = int(expected.any(dim=0).sum())
    assert 0 < distinct <= found.passes <= distinct + 1


def test_our_sampler_gives_the_published_loops_sample_of_the_same_uniforms():
    model = toy(noise=0.1)
    naive = NaiveHalo.like(model)
    rows = batch_of(patients(1, 1, 2, 3, 1, 1), np.arange(6), layout=LAYOUT, rows=ROWS).visits[:, :2]
    uniform = torch.from_numpy(np.random.default_rng(2).random((6, LAYOUT.size)))
    uniform[:, LAYOUT.codes.stop : LAYOUT.end] = 1  # no context token and no start: ours imposes it
    expected = next_visit(naive, rows, draw=lambda chances: uniform < chances).visit.bool()
    with torch.no_grad():
        found, last = draw_visit(model.head, naive.histories(rows)[:, -1], uniform=uniform)
    assert torch.equal(found, expected[:, LAYOUT.codes])
    assert torch.equal(last, expected[:, LAYOUT.end])
    assert expected[:, LAYOUT.codes].sum() > 20


def test_a_bounded_number_of_passes_settles_as_many_tokens():
    model = NaiveHalo.like(toy(noise=0.1))
    found = next_visit(model, torch.zeros(4, 1, LAYOUT.size), draw=lambda chances: chances > -1, most_passes=3)
    assert found.passes == 3
    assert found.visit.any(dim=0).nonzero()[:, 0].tolist() == [0, 1, 2]


def test_sampling_ends_when_all_patients_have_ended_or_rows_are_full():
    model = NaiveHalo.like(toy(noise=0.1))
    start = torch.zeros(5, 1, LAYOUT.size)
    assert sample_rows(model, start, end=LAYOUT.end, draw=lambda chances: chances > 2).shape[1] == ROWS
    rows = sample_rows(model, start, end=LAYOUT.end, draw=lambda chances: chances > -1)
    assert rows.shape[1] == 2
    assert rows[:, 1].all()


def test_random_patients_have_the_shape_of_mimic():
    words = mimic_shaped.vocabulary(2028)
    records = mimic_shaped.patients(words, visits=mimic_shaped.usual_visits(2_000))
    assert words.layout.size == 2028
    assert records.visits / len(records) == pytest.approx(1.27, abs=0.05)
    assert len(records.codes) / records.visits == pytest.approx(22, abs=0.3)
    distinct = len(np.unique(records.codes[: records.visit_offsets[256]]))
    assert distinct == pytest.approx(1245, rel=0.1)  # reference/halo.md: passes for 256 visits
