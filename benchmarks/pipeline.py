"""How long each step of the pipeline takes at one site: `python -m benchmarks.pipeline [--quick] [--json]`.

Simulated tables -> events -> cohort -> one epoch of training -> synthetic patients, on one core, in one run.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from fairsynth.config import read_study
from fairsynth.extraction import extract
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.model import initial_weights
from fairsynth.generator.sample import Conditions, sample
from fairsynth.generator.train import Study, Totals, train
from fairsynth.simulate import simulate
from fairsynth.visits.cohort import encode, load_cohort, prepare, shared_vocabulary

ROOT = Path(__file__).resolve().parents[1]
Value = TypeVar("Value")


def timed(seconds: dict[str, float], name: str, work: Callable[[], Value]) -> Value:
    """The value of `work`, whose seconds go to `seconds[name]`."""
    start = time.perf_counter()
    value = work()
    seconds[name] = round(time.perf_counter() - start, 3)
    return value


def measure(patients: int) -> dict[str, float]:
    """Seconds of each step, and rates."""
    study = read_study(ROOT / "studies" / "demo.yaml")
    plan = study.plan()
    entry = study.sites[0]
    assert entry.simulate is not None
    source = entry.simulate.model_copy(update={"patients": patients})
    config = ROOT / "site_configs" / "mimic3"
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        timed(seconds, "simulate", lambda: simulate(source, root / "raw"))
        timed(seconds, "extract", lambda: extract(root / "raw", config=config, root=root))
        proposal = timed(seconds, "cohort", lambda: prepare(root, config=config, plan=plan))
        vocabulary = shared_vocabulary(proposal.codes, plan=plan)
        timed(seconds, "encode", lambda: encode(root, vocabulary=vocabulary, plan=plan))
        cohort = load_cohort(root)
    records = cohort.train
    totals = Totals(patients=len(records), positions=(records.visits + len(records)) / len(records))
    context = Study(vocabulary=vocabulary, plan=plan, totals=totals)
    rates = base_rates(records, vocabulary=vocabulary)
    weights = at_home(initial_weights(vocabulary, plan.generator, seed=1), rates)
    trained = timed(
        seconds,
        "train_epoch",
        lambda: train(weights, records=records, study=context, coefficients=None, epochs=1, seed=1),
    )
    free = np.full(500, -1, dtype=np.int64)
    made = timed(
        seconds,
        "sample_500",
        lambda: sample(
            trained.weights,
            vocabulary=vocabulary,
            config=plan.generator,
            conditions=Conditions(group=free, label=free),
            seed=1,
        ),
    )
    return {
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "tokens": float(vocabulary.layout.size),
        "train_patients_per_second": round(len(records) / seconds["train_epoch"], 1),
        "sample_visits_per_second": round(made.visits / seconds["sample_500"], 1),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
    }


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 patients instead of 10,000")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    figures = measure(1_000 if arguments.quick else 10_000)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:28} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
