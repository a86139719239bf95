"""Does the server's door refuse all poison and no honest update? `python -m benchmarks.poison [--honest N] [--json]`.

Poison is the corpus of `tests/federation/poison_cases.py`. Honest updates are all of real training: federations of two
or three simulated sites of 3 to 200 patients, whose rounds, epochs, batch size, learning rate (1e-4 to 0.1), weight
decay, wire, target and lambda are drawn anew for each, both arms, every round (`benchmarks.honest_rounds`). Requests
without training, which bring counts alone, are checked but not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.honest_rounds import Honest, federations, replies
from fairsynth.errors import ProtocolError
from fairsynth.federation.bounds import reach
from fairsynth.federation.norms import ALL, units
from fairsynth.federation.wire import answered

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """`units` are the farthest that one array, and all weights together, of an honest update moved (`norms`)."""

    cases: int
    rejected: int
    honest: int
    honest_rejected: int
    units_array: float
    units_all: float
    units_all_least: float


def poison() -> tuple[int, int]:
    """Cases, and those of them that are refused."""
    folder = str(ROOT / "tests" / "federation")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    from poison_cases import CASES  # the corpus lies beside its tests

    return len(CASES), sum(_is_refused(lambda case=case: _try(case)) for case in CASES.values())


def honest(number: int, *, seed: int = 1) -> Iterator[Honest]:
    """`number` honest updates, each of a real training."""
    found = 0
    for plan in federations(number, seed=seed):
        for one in replies(plan):
            if one.asked.epochs:
                yield one
                found += 1
                if found == number:
                    return


def measure(number: int, *, seed: int = 1) -> Figures:
    """All figures."""
    cases, refused = poison()
    rejected, arrays, together = 0, [0.0], []
    for one in honest(number, seed=seed):
        rejected += _is_refused(one.check)
        moved = _units(one)
        together.append(moved.pop(ALL))
        arrays.append(max(moved.values()))
        if len(together) % 500 == 0:
            print(f"{len(together)} honest, {rejected} refused, {max(arrays):.2f} units", file=sys.stderr, flush=True)
    return Figures(
        cases=cases,
        rejected=refused,
        honest=len(together),
        honest_rejected=rejected,
        units_array=round(max(arrays), 2),
        units_all=round(max(together), 2),
        units_all_least=round(min(together), 4),
    )


def main() -> None:
    """Print the figures; exit 1 when a case passes or an honest update does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--honest", type=int, default=10_000, help="honest updates (10,000 take some 5 minutes)")
    parser.add_argument("--seed", type=int, default=1, help="of the plans and the patients")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    figures = vars(measure(arguments.honest, seed=arguments.seed))
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:16} {value}" for name, value in figures.items()))
    sys.exit(int(figures["rejected"] < figures["cases"] or figures["honest_rejected"] > 0))


def _units(one: Honest) -> dict[str, float]:
    plan = one.door.plan
    enrolled = one.site.enrolled
    limit = reach(
        plan,
        round_number=one.asked.round,
        epochs=one.asked.epochs,
        patients=enrolled.patients,
        visits=enrolled.reply.visits,
    )
    return units(one.sent, answered(one.envelope.arrays, sent=one.sent, wire=plan.training.wire), limit=limit)


def _try(case: tuple) -> None:
    study, kind, change = case
    study.check(kind, change(study.honest[kind]))


def _is_refused(act) -> bool:
    try:
        act()
    except ProtocolError:
        return True
    return False


if __name__ == "__main__":
    main()
