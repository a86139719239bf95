"""One Array a message, or one for each array? `python -m benchmarks.messages [--json]`.

A training message of the demo's generator (weights and two moments), sent to two sites and back over a real SuperLink
on loopback, in both forms in turn: Flower's objects a message, seconds a round, and their ratio, in one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from fairsynth.config import read_study
from fairsynth.federation.engine import Site, run_deployment

ROOT = Path(__file__).resolve().parents[1]


def measure() -> dict[str, Any]:
    """Objects and median seconds of both forms."""
    plan = read_study(ROOT / "studies" / "demo.yaml").plan()
    found: dict[str, Any] = {}

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "timed":
            form = event["form"]
            found[f"{form}_objects"] = event["objects"]
            found[f"{form}_seconds"] = statistics.median(event["seconds"])

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "plan.json").write_text(plan.model_dump_json(by_alias=True), encoding="utf-8")
        sites = [Site(site=name, folder=root / name) for name in plan.roster]
        app = ROOT / "benchmarks" / "echo"
        run_deployment(app, plan=root / "plan.json", workdir=root / "server", sites=sites, on_event=hear)
    return {**found, "ratio": round(found["many_seconds"] / found["one_seconds"], 2)}


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    figures = measure()
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:16} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
