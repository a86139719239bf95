import math

import numpy as np
import pytest
import torch
from generator_toys import SMALL, SMALL_VOCABULARY, hospital

from fairsynth.config import FitConfig
from fairsynth.errors import ConfigError
from fairsynth.generator import fit as fitting
from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import nll
from fairsynth.generator.fit import Epoch, History, epochs_of, fit, learning_rate, split, start
from fairsynth.generator.model import weights_of

QUICK = FitConfig(epochs=3, batch_size=16, learning_rate=1e-2, warm_up_steps=2, threads=1, device="cpu")


def sequences(number, *, seed):
    return Sequences.of(hospital(number, seed=seed), vocabulary=SMALL_VOCABULARY, maximum_visits=6)


TRAIN, VALIDATION = sequences(90, seed=1), sequences(40, seed=2)
FEW = sequences(20, seed=4)  # soon learnt by heart


def model():
    return start(hospital(90, seed=1), vocabulary=SMALL_VOCABULARY, config=SMALL, seed=3)


def mean_nll(halo, of):
    nats, predicted = nll(halo, of, layout=of.layout)
    return nats / predicted


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_the_model_keeps_the_weights_of_the_best_validation_nll():
    halo = model()
    worsening = QUICK.model_copy(update={"epochs": 40, "learning_rate": 3e-2, "weight_decay": 0.0, "patience": None})
    history = fit(halo, train=FEW, validation=VALIDATION, config=worsening, seed=1)
    found = [epoch.validation for epoch in history.epochs]
    assert history.best == int(np.argmin(found)) < len(found) - 1
    assert mean_nll(halo, VALIDATION) == pytest.approx(min(found), abs=1e-9)


def test_training_stops_when_patience_is_over():
    worsening = QUICK.model_copy(update={"epochs": 30, "learning_rate": 1e-1, "patience": 2})
    history = fit(model(), train=FEW, validation=VALIDATION, config=worsening, seed=1)
    assert len(history.epochs) == history.best + 1 + 2 < 30


def test_without_validation_patients_all_epochs_run_and_the_last_weights_stay():
    halo = model()
    history = fit(halo, train=TRAIN, config=QUICK, seed=1)
    assert (len(history.epochs), history.best) == (3, 2)
    assert history.epochs[-1].validation is None
    assert mean_nll(halo, TRAIN) < history.epochs[-1].train


def test_the_training_nll_of_an_epoch_is_in_nats_a_predicted_visit(monkeypatch):
    monkeypatch.setattr(fitting, "learning_rate", lambda *_, **__: 0.0)
    still = QUICK.model_copy(update={"epochs": 1})
    history = fit(model(), train=TRAIN, config=still, seed=1)
    assert history.epochs[0].train == pytest.approx(mean_nll(model(), TRAIN), rel=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    halos = [model(), model(), model()]
    for halo, seed in zip(halos, (1, 1, 2), strict=True):
        fit(halo, train=TRAIN, validation=VALIDATION, config=QUICK, seed=seed)
    first, second, other = map(weights_of, halos)
    assert same(first, second)
    assert not same(first, other)


def test_the_global_random_state_stays_where_it_was():
    before = torch.get_rng_state()
    fit(model(), train=TRAIN, config=QUICK, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_step_is_told_and_every_epoch():
    steps, epochs = [], []
    told = {"on_step": lambda done, every: steps.append((done, every)), "on_epoch": lambda h: epochs.append(h)}
    history = fit(model(), train=TRAIN, config=QUICK, seed=1, **told)
    assert steps == [(number + 1, 18) for number in range(18)]
    assert [len(told.epochs) for told in epochs] == [1, 2, 3]
    assert epochs[-1] == history


def test_the_learning_rate_warms_up_and_ends_at_its_final_share():
    config = FitConfig(learning_rate=2.0, warm_up_steps=9, final_learning_rate_share=0.1)
    rates = [learning_rate(step, steps=1000, config=config) for step in range(1000)]
    assert rates[0] == pytest.approx(0.2, rel=1e-6)
    assert int(np.argmax(rates)) == 9
    assert rates[9] == pytest.approx(2.0, rel=1e-3)
    assert rates[499] == pytest.approx(2.0 * 0.55, rel=0.01)
    assert rates[-1] == pytest.approx(0.2, rel=1e-6)
    few = [learning_rate(step, steps=30, config=config) for step in range(30)]
    assert int(np.argmax(few)) == 3


def test_the_best_epoch_is_that_of_the_lowest_validation_nll():
    found = (3.0, 1.0, 2.0)
    assert History(epochs=tuple(Epoch(train=0, validation=value) for value in found)).best == 1


def test_a_loss_that_is_no_longer_a_number_is_an_error():
    halo = model()
    with torch.no_grad():
        halo.norm.bias.fill_(math.inf)
    with pytest.raises(ConfigError, match="no longer a number: epoch 1"):
        fit(halo, train=TRAIN, validation=VALIDATION, config=QUICK, seed=1)


def test_a_split_has_every_patient_once_and_depends_on_the_seed():
    train, validation = split(50, share=0.1, seed=4)
    assert len(validation) == 5
    assert sorted([*train, *validation]) == list(range(50))
    assert not np.array_equal(validation, split(50, share=0.1, seed=5)[1])
    assert [len(part) for part in split(2, share=0.01, seed=1)] == [1, 1]
    assert [len(part) for part in split(1, share=0.5, seed=1)] == [1, 0]


def test_nobody_to_train_on_is_refused():
    nobody = Sequences.of(
        hospital(1, seed=1).take(np.zeros(0, dtype=np.int64)), vocabulary=SMALL_VOCABULARY, maximum_visits=6
    )
    with pytest.raises(ConfigError, match="no training patients"):
        fit(model(), train=nobody, config=QUICK, seed=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match="no GPU"):
        fit(model(), train=TRAIN, config=QUICK.model_copy(update={"device": "cuda"}), seed=1)


def test_half_the_digits_learn_as_much():
    found = {}
    for precision in ("float32", "bfloat16"):
        halo = model()
        config = QUICK.model_copy(update={"precision": precision})
        found[precision] = fit(halo, train=TRAIN, validation=VALIDATION, config=config, seed=1).epochs[-1].validation
        assert all(weight.dtype == np.float32 for weight in weights_of(halo).values())
    assert found["bfloat16"] != found["float32"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.01)


def test_on_a_cpu_the_precision_is_full_unless_asked_for():
    device = torch.device("cpu")
    found = [fitting.precision_of(FitConfig(precision=name), device) for name in ("auto", "float32", "bfloat16")]
    assert found == [None, None, torch.bfloat16]


@pytest.mark.parametrize(("patients", "epochs"), [(200, 60), (1_000, 60), (4_000, 25), (10_000, 12), (1_000_000, 12)])
def test_few_patients_are_passed_over_more_often_unless_the_configuration_says_how_often(patients, epochs):
    assert epochs_of(FitConfig(), patients=patients) == epochs
    assert epochs_of(FitConfig(epochs=7), patients=patients) == 7
