"""How much memory `fairsynth generate` takes for how many patients: python -m benchmarks.stream [--json] [--quick]

A simulated hospital (PIC) is trained for one epoch; then each number of patients is drawn and written as events and
tables by a process of its own. `growth` is the peak of the last over that of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STUDY = f"""schema: fairsynth.study/1
name: stream
seed: 1
sites:
  - site: zhejiang
    config: {ROOT / "site_configs" / "pic"}
    simulate: {{source: pic, patients: 1500, seed: 3, mix: study, detail: 0.05}}
groups:
  names: [han, yi, buyei, miao, tujia, hui, other]
  reference: [han]
fit:
  epochs: 1
  threads: 1
"""
QUICK, FULL = (500, 5_000), (2_000, 20_000, 200_000)


def measured(*work: object) -> dict[str, float]:
    """Peak resident memory (MiB) and seconds of `worker` in a process of its own, started by a small one: the peak that
    the system tells of a process includes what its parent had when it was started."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.stream", "--worker", *map(str, work)]
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"a process failed: {' '.join(command)}")
    return {"peak_mib": usage.ru_maxrss / 1024, "seconds": time.perf_counter() - began}


def worker(folder: Path, patients: int) -> None:
    """Train the model in `folder`, or generate patients with it."""
    from fairsynth.experiments.generate import generate, source_of_model
    from fairsynth.experiments.train import Model, train
    from fairsynth.halo import conditions

    if patients:
        source, out = source_of_model(Model(root=folder / "model")), folder / str(patients)
        generate(source, conditions=conditions(source.vocabulary, patients), out=out, seed=1)
    else:
        train(folder / "study.yaml", out=folder / "model")


def figures(folder: Path, numbers: Sequence[int]) -> dict[str, Any]:
    """Memory, time and bytes for each number of patients, and by how much the peak grows from the first to the last."""
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    measured(folder, 0)
    rows = {}
    for number in numbers:
        rows[number] = measured(folder, number)
        files = [path for path in (folder / str(number)).rglob("*") if path.is_file()]
        rows[number]["written_mib"] = sum(path.stat().st_size for path in files) / 2**20
        print(
            f"{number:>9,} patients",
            *(f"{value:10.1f} {name}" for name, value in rows[number].items()),
            file=sys.stderr,
        )
    return {"patients": rows, "growth": rows[numbers[-1]]["peak_mib"] / rows[numbers[0]]["peak_mib"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} patients rather than {FULL}")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "PATIENTS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(Path(arguments.worker[0]), int(arguments.worker[1]))
    with tempfile.TemporaryDirectory() as folder:
        found = figures(Path(folder), QUICK if arguments.quick else FULL)
    print(json.dumps(found) if arguments.json else f"growth of the peak: {found['growth']:.2f}")
    return None


if __name__ == "__main__":
    main()
