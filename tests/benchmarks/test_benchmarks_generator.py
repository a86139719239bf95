"""The generator's benchmark at tiny sizes: every key, and figures that mean what they say."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from benchmarks import (
    generator,
    generator_growth,
    generator_reference,
    generator_sampling,
    generator_sides,
    generator_training,
    timing,
)
from benchmarks.generator_sides import Size
from fairsynth.generator.model import initial_weights

TINY = Size(tokens=64, embedding=8, layers=1, heads=2, rows=9)
EFFORT = generator.Effort(
    training=generator_training.Effort(size=TINY, large=None, turns=1, our_batches=(48, 64), naive_batches=(48,)),
    sampling=generator_sampling.Effort(middle=(TINY, 8), large=((TINY, 4),), turns=1, passes=2, batches=1),
    wire=(TINY,),
    growth=generator_growth.Effort(
        size=TINY, tokens=(40, 64), visits=(1, 8), rows=10, batch=4, patients=(20, 40), pass_batch=8, turns=1
    ),
)


@pytest.fixture
def here(monkeypatch):
    for module in (generator_training, generator_growth):
        monkeypatch.setattr(module, "apart", lambda work, *arguments: work(*arguments) or 1)
        monkeypatch.setattr(module, "gemm_rate", lambda: 1e11)


def test_one_run_gives_every_key(here, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(generator, "QUICK", EFFORT)
    monkeypatch.setattr(sys, "argv", ["generator", "--quick", "--json", "--out", str(tmp_path)])
    generator.main()
    found = json.loads(capsys.readouterr().out)
    assert tuple(found) == (*generator.KEYS, "details")
    assert all(math.isfinite(found[key]) for key in generator.KEYS)
    assert found["details"]["same_loss"]["holds"]
    assert json.loads((tmp_path / "generator.json").read_text()) == found
    curves = found["details"]["growth"]
    assert {name: list(curve) for name, curve in curves.items()} == {
        "tokens": ["40", "64"],
        "visits": ["1", "8"],
        "patients": ["20", "40"],
    }
    assert "<svg" in (tmp_path / "generator.svg").read_text()


def test_one_part_gives_its_own_keys_alone():
    assert list(generator.figures(EFFORT, only="wire")) == ["wire_bytes_ratio", "details"]


def test_the_plain_version_is_held_against_the_published_code():
    row = generator_reference.Published(size=TINY, batch=4, patients=100, sampled=3, visits=10)
    found = generator_reference.reference((row,), turns=1, passes=2)["details"]["reference"]["v64"]
    assert found["patients_over_published"] == found["patients_per_second"] / 100
    assert found["visits_over_published"] == found["visits_per_second"] / 10
    assert found["passes"] <= 64


def test_the_plain_version_has_as_many_parameters_as_the_published_code():
    rows = {one.size.tokens: generator_sides.numbers(one.size)["naive_model"] for one in generator_reference.TABLE}
    assert rows == {  # reference: 4.9, 14.1 and 207 million
        628: pytest.approx(4.9e6, rel=0.01),
        2028: pytest.approx(14.1e6, rel=0.01),
        6869: pytest.approx(207.0e6, rel=0.001),
    }


def test_what_travels_is_counted_exactly():
    found = generator_sides.numbers(TINY)
    arrays = initial_weights(TINY.words, TINY.config, seed=1)
    assert found["model"] == sum(array.size for array in arrays.values())
    assert found["head"] == sum(array.size for name, array in arrays.items() if name.startswith("head."))
    side = TINY.embedding + TINY.tokens
    assert found["naive_head"] == 2 * (side * side + side)


def test_a_long_head_sends_half_of_the_published_one():
    assert generator.wire((Size(tokens=2028),))["wire_bytes_ratio"] <= 0.55


def test_the_machines_own_speed_is_that_of_its_fastest_product(monkeypatch):
    times = iter([4.0, 0.5, 2.0])
    monkeypatch.setattr(timing, "seconds", lambda call: next(times))
    assert timing.gemm_rate(size=64, repeats=2) == 2 * 64**3 / 0.5


def test_versions_take_turns_and_warm_up_first():
    calls = []
    runs = {name: timing.Run(call=lambda name=name: calls.append(name), calls=calls_of) for name, calls_of in SPEEDS}
    times = timing.interleaved(runs, turns=2)
    assert calls == ["slow", "fast", *2 * ["slow", "fast", "fast"]]
    assert set(times) == {"slow", "fast"}


SPEEDS = (("slow", 1), ("fast", 2))


def test_the_published_passes_are_the_distinct_codes_of_first_visits_and_end():
    records = generator_sides.equally_long(TINY, 3, visits=2)
    first = [records.codes[slice(*records.visit_offsets[visit : visit + 2])] for visit in (0, 2)]
    assert generator_sampling.head_passes(records, 2) == len(set(np.concatenate(first).tolist())) + 1


def test_a_bounded_run_of_the_published_loop_passes_the_head_so_often():
    naive = generator_sides.naive_model(TINY)
    passes = []
    naive.second.register_forward_hook(lambda *_: passes.append(1))
    generator_sampling.bounded(naive, torch.zeros(2, 2, TINY.tokens), 5)
    assert len(passes) == 5


def test_needed_operations_grow_with_visits_and_not_with_rows():
    one, two = (generator_sides.equally_long(TINY, 4, visits=visits) for visits in (1, 2))
    model = generator_sides.our_model(TINY, one)
    patients = np.arange(4)
    start, single, double = (
        generator_sides.step_flops(model, records, chosen)
        for records, chosen in ((one, patients[:0]), (one, patients), (two, patients))
    )
    contexts = 6 * 4 * 28 * 27 / 2
    assert double - single == single - start - contexts > 0
    longer = generator_sides.our_model(Size(tokens=64, embedding=8, layers=1, heads=2, rows=12), one)
    assert generator_sides.step_flops(longer, one, patients) == single


def test_a_fresh_process_does_the_work():
    held = b"1" * 300_000_000
    assert timing.peak_rss() > len(held)
    assert 0 < timing.apart(timing.peak_rss) < len(held)
