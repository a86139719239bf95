"""What a step of the generator costs when a frozen predictor's scores steer it.

    python -m benchmarks.downstream [--quick]

In:  patients of MIMIC's shape.   Out: a step's time as a multiple of a plain step's, for each predictor.
Never: a figure from another machine; the versions run in turn, in one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from benchmarks import mimic_shaped
from benchmarks.timing import Run, interleaved
from fairsynth.audit.predictors import PREDICTORS, FitSettings
from fairsynth.audit.relaxed import relaxed
from fairsynth.config import GeneratorConfig
from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import Descent, Objective, adam
from fairsynth.generator.downstream import DownstreamTerm
from fairsynth.generator.model import build
from fairsynth.generator.train import threads

WITH_GRADIENT = ("transformer", "logistic_regression")  # trees have none
BATCH = 32
VISITS = 8


def ratios(*, tokens: int, patients: int, turns: int) -> dict[str, float]:
    """A step's time, by predictor, as a multiple of the time without one."""
    words, config = mimic_shaped.vocabulary(tokens), GeneratorConfig(maximum_visits=VISITS)
    visits = np.minimum(mimic_shaped.usual_visits(patients), VISITS)
    records = mimic_shaped.patients(words, visits=visits)
    weights = mimic_shaped.generator_weights(words, config, records=records)
    sequences = Sequences.of(records, vocabulary=words, maximum_visits=VISITS)
    plain = Objective(layout=words.layout, positions=float(sequences.steps.mean()))
    slopes = torch.ones(len(words.groups), 2, dtype=torch.float64)

    def step(objective: Objective) -> Callable[[], object]:
        model = build(weights, vocabulary=words, config=config)
        optimiser = adam(model, learning_rate=1e-3)
        descent = Descent(model=model, optimiser=optimiser, sequences=sequences, objective=objective)
        rng = np.random.default_rng(1)
        return lambda: descent.step(rng.integers(patients, size=BATCH))

    runs = {"plain": Run(call=step(plain), calls=4)}
    for name in WITH_GRADIENT:
        predictor = PREDICTORS[name]
        fitted = predictor.fit(records, vocabulary=words, settings=FitSettings(epochs=1, threads=1), seed=1)
        term = DownstreamTerm(predictor=relaxed(fitted), slopes=slopes, weight=1.0)
        runs[name] = Run(call=step(replace(plain, downstream=term)), calls=4)
    with threads(1):
        found = interleaved(runs, turns=turns)
    return {name: time / found["plain"] for name, time in found.items()}


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few patients, the small vocabulary alone")
    quick = parser.parse_args().quick
    for tokens in (300,) if quick else (300, 1500):
        found = ratios(tokens=tokens, patients=300 if quick else 1000, turns=3 if quick else 9)
        print(f"{tokens:5} tokens  " + "  ".join(f"{name} {ratio:.2f}" for name, ratio in found.items()))


if __name__ == "__main__":
    main()
