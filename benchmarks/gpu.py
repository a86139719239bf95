"""The generator on a GPU: `python -m benchmarks.gpu [--json] [--quick]`.

At HALO's published size (V = 6869, E = 768, 12 layers, n_ctx 48: 207 M parameters there) and at V = 2028, E = 256:

agreement   loss and gradients on the GPU beside those on the CPU, and in bfloat16 beside float32 (relative L2)
training    patients a second by batch size, the share of the chip's measured bfloat16 rate, peak memory, and the same
            for the published algorithm on the same chip (float32, as it is published)
waits       that a training step never waits for the GPU (torch's sync debug mode)
memory      that a step which does not fit halves its parts and goes on
sampling    whole patients: visits a second by batch size, beside the published loop (its passes counted and timed)

`--quick` takes small sizes. Without a GPU the command says so and ends with 0.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import mimic_shaped
from benchmarks.generator_sampling import PREFIX, bounded, head_passes, read
from benchmarks.generator_sides import LARGE, MIDDLE, Size, naive_model, step_flops, usual
from benchmarks.naive_halo import NaiveTraining
from fairsynth.generator.batch import Sequences
from fairsynth.generator.conditions import Conditions
from fairsynth.generator.descent import Descent, Objective, adam
from fairsynth.generator.model import Halo, build
from fairsynth.generator.sample import draw
from fairsynth.schemas import Arrays
from fairsynth.visits.records import Records

BF16 = torch.bfloat16


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Sizes, and batch sizes of each."""

    sizes: dict[str, Size]
    training: tuple[int, ...] = (48, 512, 4096, 32_768)
    published: tuple[int, ...] = (48, 512)
    sampling: tuple[int, ...] = (256, 2048, 8192)
    patients: int = 32_768
    steps: int = 8
    passes: int = 50  # of the published sampling loop


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One size, with patients and weights that draw such patients; where it is measured."""

    size: Size
    records: Records
    weights: Arrays
    device: torch.device

    @classmethod
    def of(cls, size: Size, *, patients: int, device: torch.device) -> Case:
        """Random patients and weights of that size."""
        records = usual(size, patients)
        weights = mimic_shaped.generator_weights(size.words, size.config, records=records)
        return cls(size=size, records=records, weights=weights, device=device)

    def model(self, *, device: torch.device | None = None) -> Halo:
        """Our generator."""
        size = self.size
        return build(self.weights, vocabulary=size.words, config=size.config, device=device or self.device)

    def descent(self, *, precision: torch.dtype | None, device: torch.device | None = None) -> Descent:
        """Our training."""
        size, records, model = self.size, self.records, self.model(device=device)
        return Descent(
            model=model,
            optimiser=adam(model, learning_rate=1e-4),
            sequences=Sequences.of(records, vocabulary=size.words, maximum_visits=size.config.maximum_visits),
            objective=Objective(layout=size.words.layout, positions=float(np.mean(records.visit_counts + 1))),
            precision=precision,
        )


FULL = Effort(sizes={"v2028": MIDDLE, "v6869": LARGE})
QUICK = Effort(
    sizes={"v400": Size(tokens=400, embedding=64, layers=2, heads=4)},
    training=(16, 64),
    published=(16,),
    sampling=(32,),
    patients=256,
    steps=2,
    passes=3,
)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(json.dumps({"gpu": None}) if options.json else "no GPU here: nothing is measured")
        return
    figures = measure(QUICK if options.quick else FULL, device=torch.device("cuda", 0), say=not options.json)
    print(json.dumps(figures, indent=None if options.json else 1))


def measure(effort: Effort, *, device: torch.device, say: bool = False) -> dict[str, Any]:
    """All figures; with `say`, a line for each as it comes."""

    def tell(found: dict[str, Any]) -> dict[str, Any]:
        if say:
            print(json.dumps(found), flush=True)
        return found

    rate = product_rate(BF16, device=device)
    found: dict[str, Any] = {"gpu": name_of(device), "torch": torch.__version__, "bf16_tflops": round(rate / 1e12, 1)}
    tell(found)
    for name, size in effort.sizes.items():
        case = Case.of(size, patients=effort.patients, device=device)
        found[name] = {
            "agreement": tell(agreement(case)),
            "training": [tell(each) for each in training(case, effort=effort, rate=rate)],
            "waits": tell(waits(case)),
            "memory": tell(out_of_memory(case)),
            "sampling": [tell(each) for each in sampling(case, effort=effort)],
        }
    return found


# --- training --------------------------------------------------------------------------------------------------------


def agreement(case: Case) -> dict[str, Any]:
    """Relative L2 distances of all gradients, and the losses, on one batch of 48."""
    rows = np.arange(min(48, len(case.records)))
    exact = _gradients(case.descent(device=torch.device("cpu"), precision=None), rows)
    single = _gradients(case.descent(precision=None), rows)
    half = _gradients(case.descent(precision=BF16), rows)
    return {
        "loss": {"cpu": exact[0], "gpu float32": single[0], "gpu bfloat16": half[0]},
        "gradient_error": {"gpu float32": _distance(single[1], exact[1]), "gpu bfloat16": _distance(half[1], exact[1])},
    }


def training(case: Case, *, effort: Effort, rate: float) -> list[dict[str, Any]]:
    """Ours in both precisions by batch size, then the published algorithm."""
    size, records, device, found = case.size, case.records, case.device, []
    for precision in (BF16, None):
        ours = case.descent(precision=precision)
        for batch in effort.training:
            seconds, peak = _per_step(ours.step, records, batch, effort.steps, device=device)
            flops = step_flops(ours.model, records, np.arange(len(records))) / len(records) * batch
            found.append(
                {
                    "precision": "float32" if precision is None else "bfloat16",
                    "batch": batch,
                    "patients_per_second": round(batch / seconds, 1),
                    "ms": round(seconds * 1e3, 2),
                    "share_of_bf16_peak": round(flops / seconds / rate, 4),
                    "peak_gib": round(peak / 2**30, 2),
                }
            )
        del ours
    naive = NaiveTraining(naive_model(size).to(device), records=records, layout=size.words.layout)
    for batch in effort.published:
        try:
            seconds, peak = _per_step(naive.step, records, batch, effort.steps, device=device)
        except torch.OutOfMemoryError:
            found.append({"published": "float32", "batch": batch, "patients_per_second": None})
            continue
        found.append(
            {
                "published": "float32",
                "batch": batch,
                "patients_per_second": round(batch / seconds, 1),
                "ms": round(seconds * 1e3, 2),
                "peak_gib": round(peak / 2**30, 2),
            }
        )
    return found


def waits(case: Case) -> dict[str, Any]:
    """Whether a step ever waits for the GPU; where, if so."""
    ours = case.descent(precision=BF16)
    rows = np.arange(min(64, len(case.records)))
    ours.step(rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours.step(rows)
    except RuntimeError as error:
        return {"step_waits": True, "where": str(error).splitlines()[0]}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"step_waits": False}


def out_of_memory(case: Case) -> dict[str, Any]:
    """A step of all patients with half of the memory that it needs: the parts that it ends with."""
    rows, device = np.arange(len(case.records)), case.device
    ours = case.descent(precision=BF16)
    torch.cuda.reset_peak_memory_stats(device)
    base = torch.cuda.memory_allocated(device)
    whole = float(ours.step(rows))
    need = torch.cuda.max_memory_allocated(device)
    ours = case.descent(precision=BF16)  # from the same weights
    for parameter in ours.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    base = torch.cuda.memory_allocated(device)
    torch.cuda.empty_cache()
    limit = base + (need - base) // 2
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(device).total_memory, device)
    try:
        halved = float(ours.step(rows))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    return {"patients": len(rows), "part": ours.part, "loss_of_whole": whole, "loss_of_parts": halved}


def _per_step(
    step: Callable[[np.ndarray], torch.Tensor], records: Records, batch: int, steps: int, *, device: torch.device
) -> tuple[float, int]:
    """Seconds a step, batch forming included, after a warm-up; peak memory."""
    rng = np.random.default_rng(1)
    order = [rng.integers(len(records), size=batch) for _ in range(steps + 3)]
    torch.cuda.reset_peak_memory_stats(device)
    for rows in order[:3]:
        step(rows)
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for rows in order[3:]:
        step(rows)
    torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / steps, torch.cuda.max_memory_allocated(device)


def _gradients(ours: Descent, rows: np.ndarray) -> tuple[float, torch.Tensor]:
    """Loss, and all gradients as one float64 vector, triangles packed (panels differ by device)."""
    total = float(ours._gradient(rows))
    triangles = ours.model.triangles()
    parts = [
        triangles[name].pack(weight.grad) if name in triangles else weight.grad.flatten()
        for name, weight in ours.model.named_parameters()
        if weight.grad is not None
    ]
    return total, torch.cat(parts).double().cpu()


def _distance(values: torch.Tensor, exact: torch.Tensor) -> float:
    return float((values - exact).norm() / exact.norm())


# --- sampling --------------------------------------------------------------------------------------------------------


def sampling(case: Case, *, effort: Effort) -> list[dict[str, Any]]:
    """Ours by batch size; the published loop at the first of them."""
    model = case.model()
    found: list[dict[str, Any]] = []
    drawn = case.records
    for batch in effort.sampling:
        draw(model, conditions=Conditions.free(batch), seed=2, batch_size=batch)
        start = time.perf_counter()
        drawn = draw(model, conditions=Conditions.free(4 * batch), seed=1, batch_size=batch).records
        seconds = time.perf_counter() - start
        found.append({"batch": batch, "visits_per_second": round(drawn.visits / seconds, 1)})
    batch = effort.sampling[0]
    rate = _published_rate(case, drawn, batch, passes=effort.passes)
    found.append({"published": "float32", "batch": batch, "visits_per_second": round(rate, 3)})
    return found


def _published_rate(case: Case, drawn: Records, batch: int, *, passes: int) -> float:
    """Visits a second of the published loop: its passes on these visits, times what a pass takes."""
    device = case.device
    naive = naive_model(case.size).to(device)
    rows = torch.zeros(batch, PREFIX, case.size.tokens, device=device)
    prefix = _seconds(lambda: read(naive, rows), device=device)
    with_passes = _seconds(lambda: bounded(naive, rows, passes), device=device)
    return batch / (prefix + head_passes(drawn, batch) * (with_passes - prefix) / passes)


def _seconds(call: Callable[[], None], *, device: torch.device) -> float:
    """Of a second call, the first being a warm-up."""
    call()
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


# --- the machine -----------------------------------------------------------------------------------------------------


def product_rate(kind: torch.dtype, *, device: torch.device, side: int = 8192, repeats: int = 10) -> float:
    """Operations a second of a large square product of random numbers."""
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    for _ in range(3):
        left @ right
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        left @ right
    torch.cuda.synchronize(device)
    return 2 * side**3 * repeats / (time.perf_counter() - start)


def name_of(device: torch.device) -> str:
    """The card's name."""
    return str(torch.cuda.get_device_name(device))


if __name__ == "__main__":
    main()
