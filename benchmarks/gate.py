"""How well does the release gate tell leaks from innocent sets? Share of seeds in which each set is blocked.

    python -m benchmarks.gate --seeds 100 --json

Every seed has a hospital of its own: 3,000 training and 3,000 held-out patients, 6,000 synthetic ones. `small` has
1,350 of each, about the fewest of whom 1,130 have four codes or more. `overfitted` is HALO itself, trained on 200
patients until it knows them by heart, and `stopped early` the same with its best epoch by other patients; with so few
patients both are judged without G0 (enough patients) and G8 (rare codes), and their seeds are fewer.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from benchmarks.gate_patients import VOCABULARY, Process, bootstrap, planted, planted_near
from fairsynth.config import FitConfig, GeneratorConfig
from fairsynth.synthesis.release.rules import ReleaseRules
from fairsynth.synthesis.release.verdict import Evidence, Outcome, Verdict, examine
from fairsynth.visits.records import Records

REAL, SYNTHETIC, SMALL = 3000, 6000, 1350
OVERFIT_PATIENTS, OVERFIT_SEEDS = 200, 10

Leak = Callable[[Records, Records, int], Records]

SETS: dict[str, Leak] = {
    "clean": lambda new, train, seed: new,
    "copies 0.1 %": lambda new, train, seed: planted(new, train, share=0.001, seed=seed),
    "copies 0.5 %": lambda new, train, seed: planted(new, train, share=0.005, seed=seed),
    "copies 1 %": lambda new, train, seed: planted(new, train, share=0.01, seed=seed),
    "near copies 1 %": lambda new, train, seed: planted_near(new, train, share=0.01, seed=seed),
    "bootstrap": lambda new, train, seed: bootstrap(train, number=len(new), seed=seed),
}
MUST_FAIL = ("copies 0.5 %", "near copies 1 %", "bootstrap", "overfitted")
MUST_PASS = ("clean", "clean, small")
HALOS = ("overfitted", "stopped early")


def judged(name: str, seed: int, *, real: int = REAL, synthetic: int = SYNTHETIC) -> Verdict:
    """The verdict on one set of one seed."""
    process = Process(seed=seed)
    train, held_out, new = (process.draw(n, seed=part) for part, n in enumerate((real, real, synthetic)))
    leaked = SETS[name](new, train, seed)
    evidence = Evidence(train=train, held_out=held_out, synthetic=leaked, vocabulary=VOCABULARY, seed=seed)
    return examine(evidence, ReleaseRules())


def halo(seed: int, *, by_heart: bool, patients: int = OVERFIT_PATIENTS, epochs: int = 150) -> Verdict:
    """The verdict on patients of a HALO that keeps its best epoch, by its training patients or by others."""
    from fairsynth.halo import HALO  # torch, which no other set needs

    process = Process(seed=seed)
    train, held_out, others = (process.draw(patients, seed=part) for part in (0, 1, 3))
    patience = None if by_heart else 4
    fitting = FitConfig(epochs=epochs, batch_size=32, warm_up_steps=10, weight_decay=0.0, patience=patience, threads=1)
    size = GeneratorConfig(embedding=64, layers=1, heads=2, maximum_visits=6)
    model = HALO(size, fitting.model_copy(update={"device": "cpu"}), seed=seed)
    model.fit(train, vocabulary=VOCABULARY, validation=train if by_heart else others)
    evidence = Evidence(
        train=train, held_out=held_out, synthetic=model.sample(1000, seed=seed), vocabulary=VOCABULARY, seed=seed
    )
    return examine(evidence, ReleaseRules())


def fails(verdict: Verdict) -> tuple[str, ...]:
    """The gates that fail; a lack of patients (G0) is not a failure."""
    return tuple(one.gate for one in verdict.results if one.verdict is Outcome.failed)


def rates(name: str, seeds: int, *, pool: Executor) -> dict[str, object]:
    """The share of seeds in which the set is blocked, its 95 % interval (Wilson), and by which gates."""
    found = list(pool.map(partial(_failed, name), range(seeds)))
    blocked = sum(bool(gates) for gates in found)
    low, high = _wilson(blocked, seeds)
    gates = dict(sorted(Counter(gate for gates in found for gate in gates).items()))
    return {"set": name, "seeds": seeds, "blocked": blocked, "low": low, "high": high, "gates": gates}


def workers(jobs: int) -> ProcessPoolExecutor:
    """Processes of one thread each."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))


def _failed(name: str, seed: int) -> tuple[str, ...]:
    if name in HALOS:
        return tuple(gate for gate in fails(halo(seed, by_heart=name == "overfitted")) if gate != "G8")
    if name == "clean, small":
        return fails(judged("clean", seed, real=SMALL, synthetic=2 * SMALL))
    return fails(judged(name, seed))


def _wilson(hits: int, total: int) -> tuple[float, float]:
    z = 1.96
    rate = hits / total
    centre, width = rate + z * z / (2 * total), z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return round((centre - width) / (1 + z * z / total), 3), round((centre + width) / (1 + z * z / total), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sets", nargs="*", help="only these, by name")
    parser.add_argument("--quick", action="store_true", help="5 seeds, one of the over-fitted generator")
    arguments = parser.parse_args()
    seeds = 5 if arguments.quick else arguments.seeds
    sets = dict.fromkeys((*SETS, "clean, small"), seeds)
    sets |= dict.fromkeys(HALOS, min(seeds, 1 if arguments.quick else OVERFIT_SEEDS))
    chosen = {name: number for name, number in sets.items() if not arguments.sets or name in arguments.sets}
    rows = []
    with workers(arguments.jobs) as pool:
        for name, number in chosen.items():
            began = time.perf_counter()
            row = rates(name, number, pool=pool) | {"seconds": round(time.perf_counter() - began, 1)}
            rows.append(row)
            if not arguments.json:
                interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
                print(f"{name:16} blocked {row['blocked']:>3} of {number:>3}  {interval}  {row['gates']}", flush=True)
    if arguments.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
