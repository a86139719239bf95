"""How fast the generator trains, and in how much memory, beside the published algorithm.

In:  how thorough.   Out: ratios and absolute figures.
Never: a published figure; both sides run here, in turn.

A step is: forming the batch, forward, backward, Adam; ours also clips. A rate is patients a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.generator_sides import (
    LARGE,
    MIDDLE,
    Size,
    endless,
    equally_long,
    naive_training,
    our_model,
    our_training,
    step_flops,
    usual,
)
from benchmarks.naive_halo import batch_of, difference
from benchmarks.timing import Run, apart, gemm_rate, interleaved, peak_rss
from fairsynth.generator.descent import Descent
from fairsynth.visits.records import Records

BATCH = 48  # as published
DATA = 2_000  # patients of the data set
MEMORY_STEPS = 3
TINY = Size(tokens=64, embedding=8, layers=1, heads=2)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How often, and over what, training is timed."""

    size: Size = MIDDLE
    large: Size | None = LARGE
    turns: int = 7
    our_batches: tuple[int, ...] = (48, 96, 192, 384, 768)
    naive_batches: tuple[int, ...] = (16, 48, 96)
    full_memory: bool = True  # also the memory of patients that fill n_ctx


def training(effort: Effort) -> dict[str, Any]:
    """All figures of training, `details` with the absolute ones."""
    size, peak = effort.size, gemm_rate()
    records = usual(size, DATA)
    model = our_model(size, records)
    same = same_loss(size, records)
    rates = sweep(effort, records)
    best, naive_best = max(rates["ours"].values()), max(rates["published"].values())
    naive = rates["published"][BATCH]
    full = full_context(effort)
    best_batch = max(rates["ours"], key=lambda batch: rates["ours"][batch])
    work = step_flops(model, records, np.arange(best_batch)) * best / best_batch  # FLOP/s
    shares = phases(our_training(model, size, records), best_batch, turns=effort.turns)
    return {
        "train_speedup_b48": rates["ours"][BATCH] / naive,
        "train_speedup_best": best / naive,
        "train_speedup_full_context": full["speedup"],
        "gemm_share": work / peak,
        "details": {
            "same_loss": same,
            "gemm_gflops": peak / 1e9,
            "patients_per_second": rates,
            "best_batch": best_batch,
            "best_against_published_best": best / naive_best,
            "share_of_step": shares,
            "full_context": {**full, "gemm_share": full.pop("flops") / peak},
            **({} if effort.large is None else {"large": large(effort.large)}),
        },
    }


def same_loss(size: Size, records: Records) -> dict[str, Any]:
    """Whether loss and gradients of one batch are those of the published model, and how far they are apart."""
    model = our_model(size, records)
    descent, patients = our_training(model, size, records), np.arange(BATCH)
    found = difference(
        model,
        lambda: descent.objective.of(model, descent.sequences.batch(patients)),
        batch_of(records, patients, layout=size.words.layout, rows=size.rows),
    )
    return {"holds": max(found.loss, found.gradients) < 1e-5, "loss": found.loss, "gradients": found.gradients}


def sweep(effort: Effort, records: Records) -> dict[str, dict[int, float]]:
    """Patients a second of both sides by batch size, all batch sizes in turn."""
    size = effort.size
    naive = naive_training(size, records)
    ours = our_training(our_model(size, records), size, records)
    runs = {("published", batch): _steps(naive.step, batch) for batch in effort.naive_batches}
    runs |= {("ours", batch): _steps(ours.step, batch, calls=3) for batch in effort.our_batches}
    times = interleaved({f"{side} {batch}": run for (side, batch), run in runs.items()}, turns=effort.turns)
    rates: dict[str, dict[int, float]] = {"ours": {}, "published": {}}
    for side, batch in runs:
        rates[side][batch] = batch / times[f"{side} {batch}"]
    return rates


def full_context(effort: Effort) -> dict[str, float]:
    """Both sides at the published batch size on patients that fill every row, where padding costs nothing."""
    size = effort.size
    records = equally_long(size, BATCH, visits=size.rows - 2)
    model = our_model(size, records)
    naive, ours = naive_training(size, records), our_training(model, size, records)
    patients = np.arange(BATCH)
    runs = {"published": Run(call=lambda: naive.step(patients)), "ours": Run(call=lambda: ours.step(patients))}
    times = interleaved(runs, turns=max(2, effort.turns // 2))
    return {
        "speedup": times["published"] / times["ours"],
        "patients_per_second": BATCH / times["ours"],
        "published_patients_per_second": BATCH / times["published"],
        "flops": step_flops(model, records, patients) / times["ours"],
    }


def large(size: Size, *, batch: int = 8, turns: int = 2) -> dict[str, float]:
    """The published size: patients a second at a batch that fits everywhere, and at 48 ours alone."""
    records = usual(size, DATA)
    naive = naive_training(size, records)
    ours = our_training(our_model(size, records), size, records)
    runs = {
        "published": _steps(naive.step, batch),
        "ours": _steps(ours.step, batch),
        "ours at 48": _steps(ours.step, BATCH),
    }
    times = interleaved(runs, turns=turns)
    return {
        "batch": batch,
        "speedup": times["published"] / times["ours"],
        "patients_per_second": batch / times["ours"],
        "patients_per_second_at_48": BATCH / times["ours at 48"],
        "published_patients_per_second": batch / times["published"],
    }


def phases(descent: Descent, batch: int, *, turns: int) -> dict[str, float]:
    """The share of a step that each part of it takes."""
    rows = next(endless(DATA, batch=batch))
    model, formed = descent.model, descent.sequences.batch(rows)

    def differentiate() -> None:
        descent.optimiser.zero_grad(set_to_none=False)
        descent.objective.of(model, formed).backward()

    parts: dict[str, Callable[[], object]] = {
        "step": lambda: descent.step(rows),
        "batch": lambda: descent.sequences.batch(rows),
        "forward and backward": differentiate,
    }
    times = interleaved({name: Run(call=part) for name, part in parts.items()}, turns=turns)
    shares = {name: time / times["step"] for name, time in times.items() if name != "step"}
    return {**shares, "clip and adam": 1 - sum(shares.values())}


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(effort: Effort) -> dict[str, Any]:
    """Peak memory of a few steps at the published batch size over that of ours, each in a fresh process.

    Both count what the process holds beyond what it held with the data set and all libraries loaded (after a step of a
    tiny model): weights, as they are made and as they are used, gradients, Adam's moments, and everything of a step.
    """
    found: dict[str, Any] = {}
    cases = {"usual": None, **({"full_context": effort.size.rows - 2} if effort.full_memory else {})}
    for name, visits in cases.items():
        ours, naive = (apart(step_memory, side, effort.size, visits) for side in ("ours", "published"))
        found[name] = {"ratio": ours / naive, "ours_mb": ours / 1e6, "published_mb": naive / 1e6}
    return {"train_memory_ratio": found["usual"]["ratio"], "details": {"memory": found}}


def step_memory(side: str, size: Size, visits: int | None) -> int:
    """Bytes; see `memory`. `visits` of every patient; None: as usual."""
    records = usual(size, BATCH * MEMORY_STEPS) if visits is None else equally_long(size, BATCH, visits=visits)
    train(side, TINY, usual(TINY, BATCH))  # what the libraries load when they first need it
    before = peak_rss()
    train(side, size, records)
    return peak_rss() - before


def train(side: str, size: Size, records: Records) -> None:
    """One pass over `records`, and one more step."""
    if side == "published":
        step: Callable[[np.ndarray], object] = naive_training(size, records).step
    else:
        step = our_training(our_model(size, records), size, records).step
    for start in range(0, len(records), BATCH):
        step(np.arange(start, start + BATCH))
    step(np.arange(BATCH))


def _steps(step: Callable[[np.ndarray], object], batch: int, *, calls: int = 1, patients: int = DATA) -> Run:
    """A step on other patients each time."""
    batches = endless(patients, batch=batch)
    return Run(call=lambda: step(next(batches)), calls=calls)
