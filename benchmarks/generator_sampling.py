"""How fast the generator samples, beside the published loop.

In:  how thorough.   Out: ratios and absolute figures.
Never: a published figure; both sides run here, in turn, with the same weights.

A rate is visits a second. Ours is that of whole patients, label visits and their end included. The published loop is
too slow to run whole: for one visit of every patient of a batch (all of them counted, although some have ended) it
reads the prefix and passes the head once for each distinct token of that visit. The passes are counted on visits that
the same weights drew, and a pass is timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.generator_sides import LARGE, MIDDLE, Size, our_model, usual
from benchmarks.naive_halo import NaiveHalo, next_visit
from benchmarks.timing import Run, interleaved, seconds
from fairsynth.generator.conditions import Conditions
from fairsynth.generator.model import Halo
from fairsynth.generator.sample import draw
from fairsynth.visits.records import Records

DATA = 4_000  # patients that the base rates come from: few would make rare codes too frequent
PREFIX = 2  # rows that the published loop reads again: the start and the label visit


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What is sampled, how often, and how many head passes of the published loop are timed."""

    middle: tuple[Size, int] = (MIDDLE, 256)  # and patients of a batch
    large: tuple[tuple[Size, int], ...] = ((LARGE, 256), (LARGE, 32))
    turns: int = 3
    passes: int = 5
    batches: int = 4  # of patients, that ours samples
    whole: bool = True  # whether one visit of the published loop is also run to its end, at the middle size


def sampling(effort: Effort) -> dict[str, Any]:
    """All figures of sampling."""
    middle = compare(*effort.middle, effort=effort)
    large = {f"batch {batch}": compare(size, batch, effort=effort) for size, batch in effort.large}
    first = next(iter(large.values()))
    details: dict[str, Any] = {"v2028": middle, "v6869": large}
    if effort.whole:
        details["v2028, published loop run whole"] = whole_visit(*effort.middle)
    return {
        "sample_speedup_v2028": middle["speedup"],
        "sample_speedup_v6869": first["speedup"],
        "details": {"sampling": details},
    }


def compare(size: Size, batch: int, *, effort: Effort) -> dict[str, float]:
    """Visits a second of both, and how the published ones are made up."""
    model = our_model(size, usual(size, DATA))
    naive = NaiveHalo.like(model)
    prefix = torch.zeros(batch, PREFIX, size.tokens)
    drawn: list[Records] = []
    runs = {
        "ours": Run(call=lambda: drawn.append(ours(model, batch * effort.batches, batch=batch))),
        "passes": Run(call=lambda: bounded(naive, prefix, effort.passes)),
        "prefix": Run(call=lambda: read(naive, prefix)),
    }
    times = interleaved(runs, turns=effort.turns)
    one_pass = (times["passes"] - times["prefix"]) / effort.passes
    records = drawn[0]
    passes = head_passes(records, batch)
    naive_rate = batch / (times["prefix"] + passes * one_pass)
    rate = records.visits / times["ours"]
    return {
        "speedup": rate / naive_rate,
        "visits_per_second": rate,
        "published_visits_per_second": naive_rate,
        "published_passes": passes,
        "published_pass_seconds": one_pass,
        "published_prefix_seconds": times["prefix"],
        "visits_per_patient": records.visits / len(records),
        "codes_per_visit": len(records.codes) / records.visits,
    }


def ours(model: Halo, number: int, *, batch: int) -> Records:
    """Whole new patients."""
    return draw(model, conditions=Conditions.free(number), seed=1, batch_size=batch).records


def bounded(naive: NaiveHalo, prefix: torch.Tensor, passes: int) -> None:
    """The prefix, and exactly `passes` passes: with some token of every patient always on, none is skipped."""
    next_visit(naive, prefix, draw=lambda chances: torch.bernoulli(chances).clamp_(min=1), most_passes=passes)


@torch.no_grad()
def read(naive: NaiveHalo, prefix: torch.Tensor) -> None:
    """The prefix alone."""
    naive.histories(prefix)


def head_passes(records: Records, batch: int) -> int:
    """Passes that the first visits of `batch` patients take: one for each distinct code, and one for `end`."""
    first = records.patient_offsets[:batch]
    codes = [records.codes[records.visit_offsets[visit] : records.visit_offsets[visit + 1]] for visit in first]
    return len(np.unique(np.concatenate(codes))) + 1


def whole_visit(size: Size, batch: int) -> dict[str, float]:
    """One visit of the published loop, run to its end: passes and visits a second."""
    naive = NaiveHalo.like(our_model(size, usual(size, DATA)))
    prefix, passes = torch.zeros(batch, PREFIX, size.tokens), []
    taken = seconds(lambda: passes.append(next_visit(naive, prefix, draw=torch.bernoulli).passes))
    return {"published_passes": passes[0], "published_visits_per_second": batch / taken}
