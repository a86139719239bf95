"""Fair clocks: several versions in turn, the machine's own speed, a process of its own.

In:  calls.   Out: seconds, rates, bytes.
Never: a comparison of two runs that a busy machine could have parted.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

_WARM_UP = 1  # calls of each version that are not counted


@dataclass(frozen=True, kw_only=True)
class Run:
    """One version: a call, and how often it is called in a turn (quick ones more often)."""

    call: Callable[[], object]
    calls: int = 1


def interleaved(runs: Mapping[str, Run], *, turns: int) -> dict[str, float]:
    """Median seconds a call of each, after a warm-up: A B A B ..., so that both meet the same machine."""
    for run in runs.values():
        for _ in range(_WARM_UP):
            run.call()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            for _ in range(run.calls):
                found[name].append(seconds(run.call))
    return {name: statistics.median(times) for name, times in found.items()}


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def gemm_rate(*, size: int = 2048, repeats: int = 5) -> float:
    """The most FLOP/s of a large float32 product, with torch's threads as they are."""
    left, right = torch.ones(size, size), torch.ones(size, size)
    out = torch.empty(size, size)
    return 2 * size**3 / min(seconds(lambda: torch.mm(left, right, out=out)) for _ in range(repeats + 1))


def apart(work: Callable[..., Result], *arguments: Any) -> Result:
    """The result of `work` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def peak_rss() -> int:
    """The most memory that this process held, in bytes (Linux). Not `ru_maxrss`: a new process inherits that."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
