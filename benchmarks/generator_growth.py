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
    """Seconds along each curve, both axes logarithmic."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axis, (name, (title, unit, lines)) in zip(figure.subplots(1, 3), _CHARTS.items(), strict=True):
        points = {int(place): one for place, one in curves[name].items()}
        places = sorted(points)
        for side, value in lines.items():
            axis.plot(places, [value(points[place]) for place in places], marker="o", label=side)
        axis.set(xlabel=name, ylabel=unit, title=title, xscale="log", yscale="log")
        axis.set_xticks(places, labels=[f"{place:,}" for place in places], minor=False, rotation=45)
        axis.set_xticks([], minor=True)
        axis.legend()
    figure.savefig(path)


Value = Callable[[dict[str, float]], float]
_SIDES: dict[str, Value] = {"ours": lambda one: 1 / one["ours"], "published": lambda one: 1 / one["published"]}
_CHARTS: dict[str, tuple[str, str, dict[str, Value]]] = {
    "tokens": ("a step over V tokens", "seconds a patient", _SIDES),
    "visits": ("a step of patients with T visits", "seconds a patient", _SIDES),
    "patients": ("one pass over all patients", "seconds", {"ours": lambda one: one["seconds"]}),
}
