"""How the time of training grows with tokens, with visits and with patients; and the chart of it.

In:  the points.   Out: rates of both sides, `generator.svg`.
Never: a fitted line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.generator_sides import (
    MIDDLE,
    Size,
    equally_long,
    naive_training,
    our_model,
    our_training,
    step_flops,
    usual,
)
from benchmarks.generator_training import BATCH
from benchmarks.timing import Run, apart, gemm_rate, interleaved, peak_rss, seconds
from fairsynth.generator.train import shuffled
from fairsynth.visits.records import Records


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The points of each curve. `rows` is n_ctx along the curve over visits, `batch` its patients a step."""

    size: Size = MIDDLE
    tokens: tuple[int, ...] = (500, 1_000, 2_028, 4_000, 7_000, 10_000)
    visits: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 150)
    rows: int = 152
    batch: int = 16
    patients: tuple[int, ...] = (2_000, 4_000, 8_000, 16_000, 32_000)
    pass_batch: int = 192
    turns: int = 3


def growth(effort: Effort) -> dict[str, Any]:
    """The three curves."""
    peak = gemm_rate()
    return {
        "details": {
            "growth": {
                "tokens": {tokens: over_tokens(effort, tokens, peak=peak) for tokens in effort.tokens},
                "visits": {visits: over_visits(effort, visits, peak=peak) for visits in effort.visits},
                "patients": {patients: apart(one_pass, effort, patients) for patients in effort.patients},
            }
        }
    }


def over_tokens(effort: Effort, tokens: int, *, peak: float) -> dict[str, float]:
    """Patients a second of a step of 48 usual patients over `tokens` tokens."""
    size = replace(effort.size, tokens=tokens)
    return _both(size, usual(size, BATCH), turns=effort.turns, peak=peak)


def over_visits(effort: Effort, visits: int, *, peak: float) -> dict[str, float]:
    """Patients a second of a step of patients with `visits` visits, where n_ctx leaves room for the longest."""
    size = replace(effort.size, rows=effort.rows)
    return _both(size, equally_long(size, effort.batch, visits=visits), turns=effort.turns, peak=peak)


def one_pass(effort: Effort, patients: int) -> dict[str, float]:
    """Seconds of our pass over `patients` usual patients, and what the process held at most."""
    size = effort.size
    records = usual(size, patients)
    descent = our_training(our_model(size, records), size, records)
    descent.step(np.arange(min(patients, effort.pass_batch)))  # warm

    def whole_pass() -> None:
        for rows in shuffled(patients, size=effort.pass_batch, order=np.random.default_rng(1)):
            descent.step(rows)

    return {"seconds": seconds(whole_pass), "peak_mb": peak_rss() / 1e6}


def _both(size: Size, records: Records, *, turns: int, peak: float) -> dict[str, float]:
    number, model = len(records), our_model(size, records)
    everyone = np.arange(number)
    ours, naive = our_training(model, size, records), naive_training(size, records)
    times = interleaved(
        {"published": Run(call=lambda: naive.step(everyone)), "ours": Run(call=lambda: ours.step(everyone), calls=3)},
        turns=turns,
    )
    return {
        "ours": number / times["ours"],
        "published": number / times["published"],
        "gemm_share": step_flops(model, records, everyone) / times["ours"] / peak,
    }


# --- the chart -------------------------------------------------------------------------------------------------------


def chart(curves: dict[str, Any], path: Path) -> None:
    """Seconds of a step or pass along each curve, both axes logarithmic."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (name, title) in zip(axes[:2], _TITLES.items(), strict=True):
        points = sorted(curves[name].items(), key=lambda point: int(point[0]))
        for side in ("published", "ours"):
            axis.plot(*_series(points, lambda one, side=side: 1 / one[side]), marker="o", label=side)
        axis.set(xlabel=name, ylabel="seconds a patient", title=title, xscale="log", yscale="log")
        axis.legend()
    points = sorted(curves["patients"].items(), key=lambda point: int(point[0]))
    axes[2].plot(*_series(points, lambda one: one["seconds"]), marker="o", color="C1")
    axes[2].set(xlabel="patients", ylabel="seconds a pass", title="ours, one pass", xscale="log", yscale="log")
    figure.savefig(path)


_TITLES = {"tokens": "a training step over V tokens", "visits": "patients with T visits"}


def _series(
    points: list[tuple[Any, dict[str, float]]], value: Callable[[dict[str, float]], float]
) -> tuple[list[int], list[float]]:
    return [int(place) for place, _ in points], [value(one) for _, one in points]
