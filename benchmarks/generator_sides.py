"""The two sides of `benchmarks.generator` at one size: our model and the published one, ready for a step or a visit.

In:  sizes.   Out: `Ours`, `Naive`; the numbers that travel; the operations that a step needs.
Never: a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import mimic_shaped
from benchmarks.naive_halo import NaiveHalo, NaiveTraining
from fairsynth.config import GeneratorConfig
from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import Descent, Objective, adam
from fairsynth.generator.model import Halo, build, shapes_of
from fairsynth.schemas import IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


@dataclass(frozen=True, kw_only=True)
class Size:
    """`tokens` is V, `rows` n_ctx: start, label visit and up to `rows` - 2 visits."""

    tokens: int
    embedding: int = 256
    layers: int = 4
    heads: int = 8
    rows: int = 48

    @property
    def words(self) -> Vocabulary:
        """A vocabulary of that many tokens."""
        return mimic_shaped.vocabulary(self.tokens)

    @property
    def config(self) -> GeneratorConfig:
        """Our model of that size."""
        return GeneratorConfig(
            embedding=self.embedding, layers=self.layers, heads=self.heads, maximum_visits=self.rows - 2
        )


MIDDLE = Size(tokens=2028)
LARGE = Size(tokens=6869, embedding=768, layers=12, heads=12)


def usual(size: Size, number: int) -> Records:
    """Patients with 1.27 visits on average."""
    return mimic_shaped.patients(size.words, visits=mimic_shaped.usual_visits(number))


def equally_long(size: Size, number: int, *, visits: int) -> Records:
    """Patients with `visits` visits each."""
    return mimic_shaped.patients(size.words, visits=np.full(number, visits, dtype=np.int64))


def our_model(size: Size, records: Records) -> Halo:
    """Weights that draw patients such as `records`."""
    weights = mimic_shaped.generator_weights(size.words, size.config, records=records)
    return build(weights, vocabulary=size.words, config=size.config)


def our_training(model: Halo, size: Size, records: Records) -> Descent:
    """Our optimisation step, as training does it."""
    sequences = Sequences.of(records, vocabulary=size.words, maximum_visits=size.rows - 2)
    objective = Objective(layout=size.words.layout, positions=float(size.rows - 1))
    return Descent(model=model, optimiser=adam(model, learning_rate=1e-3), sequences=sequences, objective=objective)


def naive_model(size: Size) -> NaiveHalo:
    """The published model with random weights."""
    return NaiveHalo(tokens=size.tokens, embedding=size.embedding, layers=size.layers, heads=size.heads, rows=size.rows)


def naive_training(size: Size, records: Records) -> NaiveTraining:
    """The published optimisation step."""
    return NaiveTraining(naive_model(size), records=records, layout=size.words.layout)


def endless(patients: int, *, batch: int) -> Iterator[IntArray]:
    """Batches of random patients, for ever."""
    rng = np.random.default_rng(1)
    while True:
        yield rng.integers(patients, size=batch)


# --- numbers that travel, operations that are needed -----------------------------------------------------------------


def numbers(size: Size) -> dict[str, int]:
    """How many numbers our head and model have where they travel, and how many the published ones have."""
    with torch.device("meta"):
        model, naive = Halo(vocabulary=size.words, config=size.config), naive_model(size)
    ours = {name: int(np.prod(shape)) for name, shape in shapes_of(model).items()}
    theirs = {name: parameter.numel() for name, parameter in naive.named_parameters()}
    return {
        "head": sum(number for name, number in ours.items() if name.startswith("head.")),
        "model": sum(ours.values()),
        "naive_head": sum(number for name, number in theirs.items() if name.startswith(("first.", "second."))),
        "naive_model": sum(theirs.values()),
    }


def step_flops(model: Halo, records: Records, patients: IntArray) -> float:
    """Multiplications and additions that the products of a step need: forward, and twice as many backward.

    Sums over tokens (embedding, first layer's token half) are additions alone and not counted, nor is attention's
    product of rows, which is small beside the projections.
    """
    visits = int(records.visit_counts[patients].sum())
    rows, layout, size = 1 + visits, model.layout, model.embedding.shape[1]
    others = layout.size - layout.codes.stop
    blocks = 12 * size * size * len(model.blocks)
    begin = size * (size + 1) // 2 + size * (layout.size - 1)
    output = model.head.output_shape.free
    contexts = others * (others - 1) // 2  # all that a label visit has of its own
    return 6.0 * (rows * (blocks + begin + output) + len(patients) * contexts)
