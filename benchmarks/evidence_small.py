"""Do the headline results point the same way on little data? `python -m benchmarks.evidence_small [--seeds N]`.

Setting "small": a simulated MIMIC-III and PIC, 1,000 real and 1,000 synthetic patients. Directions, of means over seeds
on real held-out patients; the sizes of the effects, their intervals and all other approaches: docs/evidence.md. Exits
with 1 when one points the other way, and names it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from fairsynth.experiments.evidence.cells import load_cell
from fairsynth.experiments.evidence.counting import Sizes
from fairsynth.experiments.evidence.grid import run_grid
from fairsynth.experiments.evidence.roles import FAMILIES, METHOD, ORACLE, REAL_ONLY
from fairsynth.experiments.evidence.summary import RowSummary, summarise

ROOT = Path(__file__).resolve().parents[1]
SIZES = Sizes(real=1000, synthetic=1000)
F1_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One headline: what is claimed, the two numbers, and whether the first is at least the second."""

    claim: str
    found: float
    bound: float

    @property
    def holds(self) -> bool:
        """NaN holds nothing."""
        return self.found >= self.bound


def directions(row: RowSummary) -> list[Direction]:
    """The headlines of each predictor at a threshold of 0.5."""
    found = []
    for predictor in row.predictors:

        def mean(metric: str, approach: str, name: str = predictor) -> float:
            value = row.value(metric, approach=approach, predictor=name, threshold="half")
            return float("nan") if value is None or value.mean is None else value.mean

        baselines = [mean("worst_tpr", name) for name in FAMILIES["data_level"]]
        real, oracle = mean("worst_tpr", REAL_ONLY), mean("worst_tpr", ORACLE)
        method = mean("worst_tpr", METHOD)
        found += [
            Direction(
                claim=f"{predictor}: worst TPR above every data-level baseline", found=method, bound=max(baselines)
            ),
            Direction(
                claim=f"{predictor}: at least half of the way to fresh real patients",
                found=method,
                bound=real + (oracle - real) / 2,
            ),
            Direction(
                claim=f"{predictor}: |log DI| not above that of real patients alone",
                found=-mean("abs_log_di", METHOD),
                bound=-mean("abs_log_di", REAL_ONLY),
            ),
            Direction(
                claim=f"{predictor}: F1 kept",
                found=mean("f1", METHOD),
                bound=mean("f1", REAL_ONLY) - F1_TOLERANCE,
            ),
        ]
    return found


def main() -> None:
    """Run, print each direction, and fail if one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="keep trials here, and use them again")
    arguments = parser.parse_args()
    with nullcontext(arguments.out) if arguments.out else tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        cells = run_grid(
            "ceiling",
            setting="small",
            study=ROOT / "studies" / "evidence_small.yaml",
            seeds=arguments.seeds,
            out=out,
            work=out / "pool",
            jobs=arguments.jobs,
            rows=[SIZES],
        )
        found = directions(summarise([load_cell(cell) for cell in cells]))
    for each in found:
        print(f"{'holds' if each.holds else 'FAILS'}  {each.claim}: {each.found:.3f}, bound {each.bound:.3f}")
    sys.exit(not all(each.holds for each in found))


if __name__ == "__main__":
    main()
