"""The benchmark of 16 bits on the wire, on two toy hospitals."""

import numpy as np
import pytest

from benchmarks import mimic_shaped, wire
from benchmarks.convergence import ROOT
from fairsynth.config import GeneratorConfig, TrainingConfig, read_study
from fairsynth.federation.messages import WEIGHT
from fairsynth.federation.wire import answer, answered, incoming, outgoing
from fairsynth.generator.model import initial_weights
from fairsynth.visits.cohort import Cohort

WORDS = mimic_shaped.vocabulary(60)


def cohort(seed):
    parts = [
        mimic_shaped.patients(WORDS, visits=mimic_shaped.usual_visits(number, seed=seed), seed=seed)
        for number in (60, 10, 20)
    ]
    return Cohort(vocabulary=WORDS, train=parts[0], validation=parts[1], held_out=parts[2])


@pytest.fixture(scope="module")
def plan():
    study = read_study(ROOT / "studies" / "demo.yaml").plan()
    changes = {
        "generator": GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=8),
        "training": TrainingConfig(rounds=2),
    }
    return study.model_copy(update=changes)


def test_every_format_is_measured_beside_float32(plan):
    found = wire.figures({"a": cohort(1), "b": cohort(2)}, plan, seeds=2)
    assert list(found) == ["seeds", "rounds", *wire.FORMATS]
    assert found["float32"]["from_float32"] == 0
    assert found["bfloat16"]["megabytes_a_round"] == pytest.approx(found["float32"]["megabytes_a_round"] / 2, abs=1e-3)
    assert found["float32"]["last_error"] < 1e-4
    assert 1e-4 < found["bfloat16"]["last_error"] < 2**-8
    assert found["bfloat16, weights themselves"]["last_error"] > 2**-8
    assert 0 < abs(found["bfloat16"]["most_from_float32"]) < 0.05 * found["float32"]["nll"]


def test_bfloat16_is_what_the_federation_does():
    weights = initial_weights(WORDS, GeneratorConfig(embedding=8, layers=1, heads=2), seed=1)
    form = wire.FORMATS["bfloat16"]
    received = wire.each(weights, form.weights)
    theirs = incoming(outgoing(weights, WEIGHT, wire="bfloat16"), WEIGHT, wire="bfloat16")
    after = {name: array + np.float32(0.0123) for name, array in received.items()}
    ours = wire.reply(after, received=received, kept=weights, form=form)
    expected = answered(answer(after, received=theirs, wire="bfloat16"), sent=weights, wire="bfloat16")
    for name in weights:
        np.testing.assert_array_equal(received[name], theirs[name])
        np.testing.assert_array_equal(ours[name], expected[name])
