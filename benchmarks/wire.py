"""Does it cost anything to send a round in 16 bits? `python -m benchmarks.wire [--json] [--quick] [--seeds N]`.

The demo's two simulated hospitals train federated, without the fairness term and without a network. What travels
passes through each format: float32; bfloat16 as `training.wire` has it (changes of weights, added to float32 weights);
and what it might have been: weights themselves in bfloat16; changes in float16 (moments in bfloat16, or in float16
too). For each: bytes of a round and site, there and back, and the NLL of held-out real patients (nats a visit, label
visits included) at the end, over several seeds; beside the mean, its mean and its largest difference from float32 of
the same seed. Training magnifies differences: those between seeds, and what one changed bit does, are what to compare
with.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convergence import ROOT, cohorts
from fairsynth.config import StudyPlan, read_study
from fairsynth.federation.aggregate import average
from fairsynth.federation.plans import learning_rate
from fairsynth.federation.wire import narrow, widen
from fairsynth.generator.base_rates import at_home, base_rates, to_share
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import Moments, Study, Totals, measure, train
from fairsynth.schemas import Arrays, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.cohort import Cohort

Lossy = Callable[[np.ndarray], np.ndarray]


def whole(values: np.ndarray) -> np.ndarray:
    return values


def one_bit_off(values: np.ndarray) -> np.ndarray:
    return np.nextafter(values, np.float32(np.inf))


def bfloat16(values: np.ndarray) -> np.ndarray:
    return widen(narrow(values))


def float16(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Format:
    """What becomes of weights, moments and, with `changes`, of changes of weights on their way; bytes of a number."""

    weights: Lossy
    moments: Lossy
    changes: bool
    size: int = 2


FORMATS = {
    "float32": Format(weights=whole, moments=whole, changes=False, size=4),
    "float32, last bit changed": Format(weights=one_bit_off, moments=one_bit_off, changes=False, size=4),
    "bfloat16": Format(weights=bfloat16, moments=bfloat16, changes=True),
    "bfloat16, weights themselves": Format(weights=bfloat16, moments=bfloat16, changes=False),
    "float16, moments in bfloat16": Format(weights=float16, moments=bfloat16, changes=True),
    "float16": Format(weights=float16, moments=float16, changes=True),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Nats a visit of each site's held-out patients; bytes of a round of one site, there and back; and how far the last
    round's mean change of weights is from the one that the sites computed, relative (L2)."""

    nll: dict[str, float]
    bytes: int
    last_error: float


def run(sites: dict[SiteId, Cohort], plan: StudyPlan, form: Format, *, seed: int) -> Result:
    """Train federated from the weights of `seed`; moments travel in all rounds but the first."""
    patients = {site: len(cohort.train) for site, cohort in sites.items()}
    total, visits = sum(patients.values()), sum(cohort.train.visits for cohort in sites.values())
    vocabulary = next(iter(sites.values())).vocabulary
    study = Study(vocabulary=vocabulary, plan=plan, totals=Totals(patients=total, positions=visits / total + 1))
    rates = {site: base_rates(cohort.train, vocabulary=vocabulary) for site, cohort in sites.items()}
    weights, moments = initial_weights(vocabulary, plan.generator, seed=seed), None
    for number in range(plan.training.rounds):
        received = each(weights, form.weights)
        now = replace(study, learning_rate=learning_rate(plan, round_number=number), moments=sent(moments, form))
        replies: dict[SiteId, Arrays] = {}
        computed: dict[SiteId, Arrays] = {}
        found: dict[SiteId, Moments] = {}
        for site, cohort in sites.items():
            one = train(
                at_home(received, rates[site]),
                records=cohort.train,
                study=now,
                coefficients=None,
                epochs=plan.training.local_epochs,
                seed=stream(seed, site, number),
            )
            after = to_share(one.weights, rates[site])
            replies[site] = reply(after, received=received, kept=weights, form=form)
            computed[site] = {name: after[name] - received[name] for name in after}
            found[site] = sent(one.moments, form) or one.moments
        before, weights = weights, average(replies, patients=patients)
        moments = Moments(
            first=average({site: one.first for site, one in found.items()}, patients=patients),
            second=average({site: one.second for site, one in found.items()}, patients=patients),
        )
    numbers = sum(array.size for array in weights.values())
    error = relative_error(
        {name: weights[name] - before[name] for name in weights}, average(computed, patients=patients)
    )
    return Result(nll=held_out(weights, sites, rates, study), bytes=2 * 3 * form.size * numbers, last_error=error)


def relative_error(found: Arrays, expected: Arrays) -> float:
    """|found - expected| / |expected|, L2 over all arrays."""
    error = sum(float(np.square(found[name] - expected[name], dtype=np.float64).sum()) for name in expected)
    return float(np.sqrt(error / sum(float(np.square(one, dtype=np.float64).sum()) for one in expected.values())))


def each(arrays: Arrays, lossy: Lossy) -> Arrays:
    """`lossy` of every array."""
    return {name: lossy(array) for name, array in arrays.items()}


def sent(moments: Moments | None, form: Format) -> Moments | None:
    """Moments as they arrive."""
    if moments is None:
        return None
    return Moments(first=each(moments.first, form.moments), second=each(moments.second, form.moments))


def reply(after: Arrays, *, received: Arrays, kept: Arrays, form: Format) -> Arrays:
    """A site's weights as the server has them; `kept` are the server's own."""
    if not form.changes:
        return each(after, form.weights)
    return {name: kept[name] + form.weights(after[name] - received[name]) for name in after}


def held_out(weights: Arrays, sites: dict[SiteId, Cohort], rates: dict[SiteId, Any], study: Study) -> dict[str, float]:
    """Nats a visit at each site, and over all."""
    measured = {
        str(site): measure(at_home(weights, rates[site]), records=cohort.held_out, study=study)
        for site, cohort in sites.items()
    }
    nll = {site: one.nll / one.cells for site, one in measured.items()}
    return {**nll, "all": sum(one.nll for one in measured.values()) / sum(one.cells for one in measured.values())}


def figures(
    sites: dict[SiteId, Cohort], plan: StudyPlan, *, seeds: int, formats: Sequence[str] = tuple(FORMATS)
) -> dict[str, Any]:
    """Each format's bytes and NLL beside float32."""
    names = ["float32", *(name for name in formats if name != "float32")]
    results = {name: [run(sites, plan, FORMATS[name], seed=seed) for seed in range(1, seeds + 1)] for name in names}
    base = [one.nll["all"] for one in results["float32"]]
    found: dict[str, Any] = {"seeds": seeds, "rounds": plan.training.rounds}
    for name, ones in results.items():
        nll = [one.nll["all"] for one in ones]
        differences = [one - other for one, other in zip(nll, base, strict=True)]
        found[name] = {
            "megabytes_a_round": round(ones[0].bytes / 1e6, 3),
            "last_error": float(f"{statistics.mean(one.last_error for one in ones):.2g}"),
            "nll": round(statistics.mean(nll), 4),
            "nll_sd": round(statistics.stdev(nll), 4) if seeds > 1 else None,
            "from_float32": round(statistics.mean(differences), 5),
            "from_float32_sd": round(statistics.stdev(differences), 5) if seeds > 1 else None,
            "most_from_float32": round(max(differences, key=abs), 5),
            "sites": {site: round(statistics.mean(one.nll[site] for one in ones), 4) for site in ones[0].nll},
        }
    return found


def main() -> None:
    """Print the figures of every format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the patients and 4 rounds")
    parser.add_argument("--seeds", type=int, default=3, help="repeat with this many initial weights")
    parser.add_argument("--rounds", type=int, default=16, help="rounds of training")
    parser.add_argument("--share", type=float, default=0.1, help="share of the demo's patients")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=tuple(FORMATS), help="these alone")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    plan = read_study(ROOT / "studies" / "demo.yaml").plan()
    rounds = 4 if arguments.quick else arguments.rounds
    plan = plan.model_copy(update={"training": plan.training.model_copy(update={"rounds": rounds})})
    with tempfile.TemporaryDirectory() as folder:
        share = 0.05 if arguments.quick else arguments.share
        sites = cohorts(Path(folder), plan, share=share, small=False)
    found = figures(sites, plan, seeds=arguments.seeds, formats=arguments.formats)
    print(json.dumps(found) if arguments.json else "\n".join(f"{name:30} {row}" for name, row in found.items()))


if __name__ == "__main__":
    main()
