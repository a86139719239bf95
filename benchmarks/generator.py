"""The generator beside the published algorithm: `python -m benchmarks.generator [--json] [--quick] [--only PART]`.

Both sides run in one process and in turn (benchmarks/naive_halo.py is the other one); every key is a ratio of medians.

train_speedup_b48           patients a second of a training step, V = 2028, E = 256, 4 layers, n_ctx 48, batch 48
train_speedup_best          the same, ours at its best batch size (the published one at 48; its best: see details)
train_speedup_full_context  the same at batch 48, patients that fill n_ctx
train_memory_ratio          peak memory of our training steps over that of the published ones
sample_speedup_v2028        visits a second, batch 256
sample_speedup_v6869        the same at V = 6869, E = 768, 12 layers
wire_bytes_ratio            bytes of our head where it travels over those of the published head, V = 2028
gemm_share                  operations that our step needs, a second, over the machine's fastest product (best batch)

`--only reference` times the plain version at the sizes of a measurement of the published code, and compares.
With `--out FOLDER` the figures also go to `generator.json`, and the growth curves to `generator.svg`, there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import generator_growth, generator_reference, generator_sampling, generator_training
from benchmarks.generator_sides import LARGE, MIDDLE, Size, numbers

KEYS = (
    "train_speedup_b48",
    "train_speedup_best",
    "train_speedup_full_context",
    "train_memory_ratio",
    "sample_speedup_v2028",
    "sample_speedup_v6869",
    "wire_bytes_ratio",
    "gemm_share",
)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How thorough each part is."""

    training: generator_training.Effort
    sampling: generator_sampling.Effort
    wire: tuple[Size, ...] = (MIDDLE, LARGE)
    growth: generator_growth.Effort | None = None


THOROUGH = Effort(
    training=generator_training.Effort(), sampling=generator_sampling.Effort(), growth=generator_growth.Effort()
)
QUICK = Effort(
    training=generator_training.Effort(
        turns=2, our_batches=(48, 192, 384), naive_batches=(48,), large=None, full_memory=False
    ),
    sampling=generator_sampling.Effort(turns=1, passes=3, batches=2, large=((LARGE, 256),), whole=False),
)


def wire(sizes: tuple[Size, ...]) -> dict[str, Any]:
    """Bytes that travel, ours over the published ones; all are float32."""
    found = {}
    for size in sizes:
        count = numbers(size)
        found[f"v{size.tokens}"] = {
            "head_ratio": count["head"] / count["naive_head"],
            "model_ratio": count["model"] / count["naive_model"],
            "model_mb": 4 * count["model"] / 1e6,
            "published_model_mb": 4 * count["naive_model"] / 1e6,
        }
    first = next(iter(found.values()))
    return {"wire_bytes_ratio": first["head_ratio"], "details": {"wire": found}}


def figures(effort: Effort, *, only: str | None = None) -> dict[str, Any]:
    """All keys (with `only`, those of one part) and `details`."""
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "train": lambda: generator_training.training(effort.training),
        "memory": lambda: generator_training.memory(effort.training),
        "sample": lambda: generator_sampling.sampling(effort.sampling),
        "wire": lambda: wire(effort.wire),
    }
    if (curves := effort.growth) is not None:
        parts["growth"] = lambda: generator_growth.growth(curves)
    if only == "reference":
        parts["reference"] = generator_reference.reference
    found: dict[str, Any] = {}
    details: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "seconds": {},
    }
    for name, part in parts.items():
        if only in (None, name):
            start = time.perf_counter()
            one = part()
            details["seconds"][name] = time.perf_counter() - start
            details |= one.pop("details")
            found |= one
    return {**{key: found[key] for key in KEYS if key in found}, "details": details}


def rounded(value: Any) -> Any:
    """Floats with four significant digits, at any depth."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same keys, in a minute")
    parser.add_argument("--only", choices=("train", "memory", "sample", "wire", "growth", "reference"), help="one part")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write the figures there")
    parser.add_argument("--threads", type=int, help="of torch; 1 where others use the machine too (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    found = rounded(figures(QUICK if arguments.quick else THOROUGH, only=arguments.only))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "generator.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        if "growth" in found["details"]:
            generator_growth.chart(found["details"]["growth"], arguments.out / "generator.svg")
    if arguments.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{key:27} {found[key]}" for key in KEYS if key in found))
        print(json.dumps(found["details"], indent=2))


if __name__ == "__main__":
    main()
