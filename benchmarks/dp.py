"""What does privacy cost, and whom? `python -m benchmarks.dp [--quick] [--json PATH]`, one core.

Each seed is a simulated hospital in the source's own mix of groups, with a generator of its own: without DP, and at
epsilon 8, 3 and 1 (delta 1e-5, all releases together: base rates, then DP-SGD). Figures are of real held-out patients:
nats a predicted visit, by group; the AUROC, and the TPR by group, of a logistic regression taught by synthetic patients
alone. Then, without any patient: how far noise on counts moves disparate impact, and what an attack shows at least.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from benchmarks.convergence import ROOT, SYNTHETIC, balanced
from benchmarks.dp_attack import lower_bound
from fairsynth.audit.evaluate import blind_scores, confusion, tuned_threshold
from fairsynth.audit.predictors import FitSettings, LogisticRegression
from fairsynth.config import GeneratorConfig, SimulationConfig, StudyPlan, read_study
from fairsynth.extraction import extract
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.model import initial_weights
from fairsynth.generator.private import PrivateTraining, train_private
from fairsynth.generator.private_counts import noised_base_rates, occurrences
from fairsynth.generator.train import Study, Totals, measure, train
from fairsynth.governance.budget import Gaussian, Limit, epsilon_of
from fairsynth.governance.calibrate import gaussian_ratio, noise_multiplier
from fairsynth.governance.noise import UNIT, discrete_gaussian
from fairsynth.schemas import Arrays
from fairsynth.seeds import stream
from fairsynth.simulate import simulate
from fairsynth.synthesis.synthesise import synthesise
from fairsynth.visits.cohort import Cohort, encode, load_cohort, prepare, shared_vocabulary

EPSILONS, DELTA = (8.0, 3.0, 1.0), 1e-5
GROUPS = ("white", "black", "hispanic", "asian", "other")
CODES = 40  # the most frequent ones
SIZE = GeneratorConfig(embedding=16, layers=1, heads=2)
CLIP, BATCH, STEPS, RATE = 0.02, 2_000, 80, 2e-2  # of DP-SGD; set once, on another simulated hospital
EPOCHS = 8  # without DP, in batches of the plan's size
BOUND, SHARE = 8.0, 0.25  # of base rates: L2 norm of a patient, and what part of epsilon they may cost alone


@dataclass(frozen=True, kw_only=True)
class Level:
    """What a generator was trained under, and its noise, which is the same for every hospital of this size."""

    name: str
    private: PrivateTraining | None = None
    base_rates: Gaussian | None = None
    epsilon: float | None = None
    trained: bool = True


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run."""

    patients: int
    seeds: int
    steps: int


FULL, QUICK = Scale(patients=20_000, seeds=5, steps=STEPS), Scale(patients=1_500, seeds=1, steps=8)


def levels(*, patients: int, steps: int) -> list[Level]:
    """No training at all, no DP, and each epsilon."""
    found = [Level(name="base rates only", trained=False), Level(name="no DP")]
    rate = min(BATCH, patients / 2) / patients
    for epsilon in EPSILONS:
        rates = Gaussian(ratio=gaussian_ratio(Limit(epsilon=SHARE * epsilon, delta=DELTA)))
        noise = noise_multiplier(Limit(epsilon=epsilon, delta=DELTA), steps=steps, rate=rate, beside=[rates])
        private = PrivateTraining(clip=CLIP, noise_multiplier=noise, expected_batch=rate * patients, steps=steps)
        spent = epsilon_of([rates, private.mechanism(patients)], delta=DELTA)
        found.append(
            Level(name=f"epsilon {epsilon:g}", private=private, base_rates=rates, epsilon=round(spent.tight, 3))
        )
    return found


def plan_of() -> StudyPlan:
    """The demo's plan for one hospital with the groups of MIMIC-III, a small generator and many held-out patients."""
    plan = read_study(ROOT / "studies" / "demo.yaml").plan()
    return plan.model_copy(
        update={
            "groups": plan.groups.model_copy(update={"names": GROUPS, "reference": GROUPS[:1]}),
            "generator": SIZE,
            "split": plan.split.model_copy(update={"train": 0.6, "validation": 0.1, "held_out": 0.3}),
        }
    )


def hospital(folder: Path, plan: StudyPlan, *, patients: int, seed: int) -> Cohort:
    """A simulated hospital with the demo's biases, in the natural mix."""
    source = read_study(ROOT / "studies" / "demo.yaml").sites[0].simulate
    assert isinstance(source, SimulationConfig)
    config = ROOT / "site_configs" / "mimic3"
    simulate(source.model_copy(update={"patients": patients, "seed": seed, "mix": "natural"}), folder / "raw")
    extract(folder / "raw", config=config, root=folder)
    counts = prepare(folder, config=config, plan=plan).codes
    vocabulary = shared_vocabulary(sorted(counts, key=lambda code: -counts[code])[:CODES], plan=plan)
    encode(folder, vocabulary=vocabulary, plan=plan)
    return load_cohort(folder)


def generator(cohort: Cohort, study: Study, level: Level, *, seed: int) -> Arrays:
    """Trained weights as the hospital uses them."""
    begin = initial_weights(cohort.vocabulary, SIZE, seed=seed)
    begin["head.output"] = np.zeros_like(begin["head.output"])  # begins at the base rates, for every level
    if level.private is None or level.base_rates is None:
        home = at_home(begin, base_rates(cohort.train, vocabulary=cohort.vocabulary))
        if not level.trained:
            return home
        return train(home, records=cohort.train, study=study, coefficients=None, epochs=EPOCHS, seed=seed).weights
    sums = occurrences(cohort.train, vocabulary=cohort.vocabulary, bound=BOUND)
    noised = discrete_gaussian(sums, sigma=level.base_rates.ratio * BOUND * UNIT)
    return train_private(
        at_home(begin, noised_base_rates(noised, vocabulary=cohort.vocabulary)),
        records=cohort.train,
        study=replace(study, learning_rate=RATE),
        coefficients=None,
        private=level.private,
        key=stream(seed, "dp", level.name).to_bytes(32, "little"),  # repeatable: a simulation has no secrets
    ).weights


def figures(weights: Arrays, cohort: Cohort, study: Study, *, seed: int) -> dict[str, object]:
    """Nats a visit and, taught by synthetic patients alone, AUROC and true positives, of held-out patients."""
    held_out, groups = cohort.held_out, len(GROUPS)
    nlls = []
    for g in range(groups):
        measured = measure(weights, records=held_out.take(held_out.group == g), study=study)
        nlls.append((measured.nll, measured.cells))
    made = synthesise(weights, cohort=cohort, plan=study.plan, cells=balanced(cohort), number=SYNTHETIC, seed=seed)
    settings = FitSettings(epochs=1, threads=1)
    fitted = LogisticRegression().fit(made, vocabulary=cohort.vocabulary, settings=settings, seed=1)
    scores = blind_scores(fitted, held_out, vocabulary=cohort.vocabulary)
    tuning = blind_scores(fitted, cohort.validation, vocabulary=cohort.vocabulary)
    predicted = scores >= tuned_threshold(tuning, cohort.validation.label)
    counts = confusion(predicted, label=held_out.label, group=held_out.group, groups=groups)  # TP, FP, FN, TN
    return {
        "nll": sum(n for n, _ in nlls) / sum(c for _, c in nlls),
        "nll_by_group": [n / c for n, c in nlls],
        "patients_by_group": np.bincount(held_out.group, minlength=groups).tolist(),
        "trained_on_by_group": np.bincount(cohort.train.group, minlength=groups).tolist(),
        "auroc": float(roc_auc_score(held_out.label, scores)),
        "true_positives": counts[:, 0].tolist(),
        "positives": (counts[:, 0] + counts[:, 2]).tolist(),
    }


def run(scale: Scale, *, on_row) -> list[dict[str, object]]:
    """A row for each hospital and level."""
    plan, rows, settings = plan_of(), [], None
    for seed in range(1, scale.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            cohort = hospital(Path(folder), plan, patients=scale.patients, seed=100 + seed)
        number = len(cohort.train)
        settings = settings or levels(patients=number, steps=scale.steps)
        totals = Totals(patients=number, positions=2.27)  # of the process; not of these patients
        study = Study(vocabulary=cohort.vocabulary, plan=plan, totals=totals)
        for level in settings:
            weights = generator(cohort, study, level, seed=seed)
            row = {"seed": seed, "level": level.name, "epsilon": level.epsilon}
            row["noise_multiplier"] = level.private and round(level.private.noise_multiplier, 3)
            rows.append({**row, **figures(weights, cohort, study, seed=seed)})
            on_row(rows[-1])
    return rows


COHORTS = {  # patients of the largest and of the smallest group, sites
    "MIMIC-like": (41_325, 900, 5),
    "PIC-like": (13_300, 25, 5),
    "pilot": (800, 12, 2),
}
PREDICTED, DRAWS = 0.3, 4_000  # true rate of positive predictions in both groups
GATE = 10  # a group whose noised size is below this many sigma is dropped


def counts() -> list[dict[str, object]]:
    """The error of DI (smallest group over largest, truth 1) under noise on S and N of both, and who is dropped."""
    rows = []
    for name, (large, small, sites) in COHORTS.items():
        for what, sigma in (("2", 2.0), ("5", 5.0), ("local 5", 5.0 * math.sqrt(sites))):
            sizes = np.array([large, small])
            exact = np.stack([np.rint(100 * PREDICTED * sizes), 100 * sizes]).astype(np.int64)  # in hundredths
            noised = discrete_gaussian(np.broadcast_to(exact, (DRAWS, 2, 2)).copy(), sigma=100 * sigma) / 100
            with np.errstate(divide="ignore", invalid="ignore"):
                rates = noised[:, 0] / noised[:, 1]
                error = np.abs(rates[:, 1] / rates[:, 0] - 1)
            dropped = (noised[:, 1, 1] < GATE * sigma).mean()
            low, high = np.quantile(error, (0.5, 0.95))
            rows.append(
                {
                    "cohort": name,
                    "smallest": small,
                    "sigma": what,
                    "p50": round(float(low), 3),
                    "p95": round(float(high), 3),
                    "dropped": round(float(dropped), 3),
                }
            )
    return rows


def attacks(*, trials: int = 2_000) -> list[dict[str, object]]:
    """What an attacker shows at least, who knows all counts but for one patient in two cells; last, noise too small."""
    rows = []
    for claimed, share in ((1.0, 1.0), (3.0, 1.0), (3.0, 0.2)):
        sigma = 100 * gaussian_ratio(Limit(epsilon=claimed, delta=DELTA)) * math.sqrt(2)
        inside, outside = (
            discrete_gaussian(np.full((trials, 2), value), sigma=share * sigma).sum(axis=1) for value in (1100, 1000)
        )
        found = round(lower_bound(inside, outside, delta=DELTA), 2)
        rows.append({"claimed": claimed, "noise": share, "at_least": found, "trials": trials})
    return rows


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval over hospitals (Student's t); NaN for one of them."""
    spread = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else math.nan
    return float(np.mean(values)), float(spread)


def wilson(hits: int, number: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    found = stats.binomtest(hits, number).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def table(rows: list[dict]) -> str:
    """Markdown: each level's figures, mean and 95 % interval over hospitals."""
    names = list(dict.fromkeys(row["level"] for row in rows))
    lines = [
        "| trained | noise multiplier | nats a visit | AUROC | "
        + " | ".join(f"nats: {group}" for group in GROUPS)
        + " |",
        "|---" * (4 + len(GROUPS)) + "|",
    ]
    for name in names:
        own = [row for row in rows if row["level"] == name]
        cells = [_mean([row["nll"] for row in own], 2), _mean([row["auroc"] for row in own], 3)]
        cells += [_mean([row["nll_by_group"][g] for row in own], 2) for g in range(len(GROUPS))]
        noise = own[0]["noise_multiplier"]
        lines.append(f"| {name} | {noise or '-'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_by_group(rows: list[dict]) -> str:
    """Markdown: the TPR of each group, its patients of all hospitals together, with Wilson's 95 % interval."""
    names = [name for name in dict.fromkeys(row["level"] for row in rows) if name != "base rates only"]
    lines = [
        "| group | trained on, a hospital | positives, all hospitals | "
        + " | ".join(f"TPR: {n}" for n in names)
        + " |",
        "|---" * (3 + len(names)) + "|",
    ]
    for g, group in enumerate(GROUPS):
        first = [row for row in rows if row["level"] == names[0]]
        positives = sum(row["positives"][g] for row in first)
        cells = []
        for name in names:
            hits = sum(row["true_positives"][g] for row in rows if row["level"] == name)
            low, high = wilson(hits, positives) if positives else (0.0, 1.0)
            cells.append(f"{hits / max(positives, 1):.2f} [{low:.2f}, {high:.2f}]")
        mean = round(float(np.mean([row["trained_on_by_group"][g] for row in first])))
        lines.append(f"| {group} | {mean:,} | {positives} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_of_counts(rows: list[dict]) -> str:
    """Markdown: the error of DI under noise."""
    lines = ["| cohort | smallest group | sigma | error, p50 | error, p95 | dropped |", "|---|---:|---|---:|---:|---:|"]
    for row in rows:
        cells = (row["cohort"], row["smallest"], row["sigma"], row["p50"], row["p95"], f"{100 * row['dropped']:.0f} %")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def table_of_attacks(rows: list[dict]) -> str:
    """Markdown: what the ledger claims, and what an attack shows."""
    lines = ["| epsilon claimed | noise, share of what it needs | epsilon shown, at least |", "|---:|---:|---:|"]
    lines += [f"| {row['claimed']:g} | {row['noise']:g} | {row['at_least']:.2f} |" for row in rows]
    return "\n".join(lines)


def tables(found: dict) -> list[str]:
    """The tables of docs/differential_privacy.md, in order."""
    rows = found["rows"]
    return [table(rows), table_by_group(rows), table_of_counts(found["counts"]), table_of_attacks(found["attacks"])]


def _mean(values: list[float], digits: int) -> str:
    middle, half = interval(values)
    return f"{middle:.{digits}f} ± {half:.{digits}f}"


def main() -> None:
    """Print the tables of docs/differential_privacy.md."""
    parser = argparse.ArgumentParser(description="what does privacy cost, and whom?")
    parser.add_argument("--quick", action="store_true", help="one small hospital and few steps")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    rows = run(scale, on_row=lambda row: print(json.dumps(row), flush=True))
    found = {"delta": DELTA, "patients": scale.patients, "rows": rows, "counts": counts(), "attacks": attacks()}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(*tables(found), sep="\n\n")
    print(f"{time.process_time():.0f} s of one core")


if __name__ == "__main__":
    main()
