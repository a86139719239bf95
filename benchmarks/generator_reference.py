"""Does our plain version cost what the published code costs? The same shapes as a measurement of that code had.

In:  sizes.   Out: rates of our plain version, and their ratio to those of the published code.
Never: our fast version. The published rates are of one machine (2 cores, torch 2.13): on another, only how they compare
       with each other means something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.generator_sampling import PREFIX, bounded, head_passes, read
from benchmarks.generator_sides import LARGE, MIDDLE, Size, naive_model, usual
from benchmarks.naive_halo import NaiveTraining
from benchmarks.timing import Run, interleaved


@dataclass(frozen=True, kw_only=True)
class Published:
    """Rates of the published code at a size: patients a second in training, visits a second in sampling."""

    size: Size
    batch: int
    patients: float
    sampled: int  # patients of a batch in sampling
    visits: float


TABLE = (
    Published(size=Size(tokens=628), batch=48, patients=86, sampled=256, visits=43),
    Published(size=MIDDLE, batch=48, patients=47, sampled=256, visits=2.9),
    Published(size=LARGE, batch=8, patients=1.9, sampled=32, visits=0.17),
)


def reference(table: tuple[Published, ...] = TABLE, *, turns: int = 5, passes: int = 10) -> dict[str, Any]:
    """Our plain version at each size."""
    return {
        "details": {
            "reference": {f"v{one.size.tokens}": compare(one, turns=turns, passes=passes) for one in table},
        }
    }


def compare(published: Published, *, turns: int, passes: int) -> dict[str, float]:
    """Rates, and over those published."""
    size, records = published.size, usual(published.size, 400)
    naive = naive_model(size)
    training = NaiveTraining(naive, records=records, layout=size.words.layout)
    prefix, patients = torch.zeros(published.sampled, PREFIX, size.tokens), np.arange(published.batch)
    runs = {
        "step": Run(call=lambda: training.step(patients)),
        "passes": Run(call=lambda: bounded(naive, prefix, passes)),
        "prefix": Run(call=lambda: read(naive, prefix)),
    }
    times = interleaved(runs, turns=turns)
    one_pass = (times["passes"] - times["prefix"]) / passes
    needed = head_passes(records, published.sampled)
    rates = {
        "patients_per_second": published.batch / times["step"],
        "visits_per_second": published.sampled / (times["prefix"] + needed * one_pass),
    }
    return {
        **rates,
        "patients_over_published": rates["patients_per_second"] / published.patients,
        "visits_over_published": rates["visits_per_second"] / published.visits,
        "passes": needed,
        "parameters": sum(parameter.numel() for parameter in naive.parameters()),
    }
