"""What does a study with noise cost, and whom? `python -m benchmarks.noise [--quick] [--seeds N] [--json PATH]`.

Each seed is a study of two simulated hospitals of the MIMIC-III process in its natural mix: once exact, and with noise
at epsilon 8, 3 and 1 (delta 1e-6) for one patient over the whole study, both arms and all counts included. Every study
runs whole, through the sites' policies, budgets and ledgers, in one process. Figures are of real (simulated) held-out
patients of both hospitals: nats a visit of the fairness-optimised generator at home, AUROC of a logistic regression
taught by synthetic patients alone; and of one taught by real patients and the plan's synthetic ones, TPR by group.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from benchmarks.convergence import ROOT
from benchmarks.dp import GROUPS, interval, wilson
from benchmarks.dp import figures as alone
from benchmarks.membership import HANDLERS
from fairsynth.audit.site import home_rates
from fairsynth.config import (
    AuditConfig,
    AugmentationConfig,
    GeneratorConfig,
    GroupsConfig,
    NoiseConfig,
    PrivacyConfig,
    SimulationConfig,
    SplitConfig,
    StudyPlan,
    TrainingConfig,
    VocabularyConfig,
    read_study,
)
from fairsynth.extraction import extract
from fairsynth.federation import answering, boundary
from fairsynth.federation.journal import read
from fairsynth.federation.masking.local import sign_here
from fairsynth.federation.messages import Envelope
from fairsynth.federation.noised.household import limit_of
from fairsynth.federation.rounds import run_study
from fairsynth.federation.terms import NOTHING
from fairsynth.generator.base_rates import at_home
from fairsynth.generator.checkpoint import load
from fairsynth.generator.train import Study, Totals
from fairsynth.governance.budget import Budget
from fairsynth.governance.policy import read_policy
from fairsynth.schemas import SiteId
from fairsynth.simulate import simulate
from fairsynth.visits.cohort import load_cohort

EPSILONS = (8.0, 3.0, 1.0)
SITES = (SiteId("east"), SiteId("west"))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run."""

    patients: int  # a hospital
    rounds: int


FULL, QUICK = Scale(patients=12_000, rounds=16), Scale(patients=4_000, rounds=2)


class Here:
    """Asks each site in this process, through its own boundary."""

    def __init__(self, folders: Mapping[SiteId, Path]) -> None:
        self.folders = folders

    def ask(self, requests: Mapping[SiteId, Envelope], *, timeout: float) -> Iterator[tuple[SiteId, Envelope]]:
        """The sites' replies; nothing is ever late."""
        yield from ((name, self._answer(self.folders[name], request)) for name, request in requests.items())

    @staticmethod
    def _answer(folder: Path, request: Envelope) -> Envelope:
        def work(root: Path, asked: Envelope) -> Envelope:
            return answering.answered(root, asked, HANDLERS[asked.kind])

        return boundary.answer(lambda: folder, lambda: request, work, phase=request.kind)


def plan_of(scale: Scale, *, seed: int, privacy: PrivacyConfig) -> StudyPlan:
    """The demo's plan for two hospitals with the groups of MIMIC-III, a small generator and many held-out patients."""
    plan = read_study(ROOT / "studies" / "demo.yaml").plan()
    return plan.model_copy(
        update={
            "seed": seed,
            "roster": SITES,
            "quorum": len(SITES),
            "groups": GroupsConfig(names=GROUPS, reference=GROUPS[:1]),
            "split": SplitConfig(train=0.6, validation=0.1, held_out=0.3),
            "vocabulary": VocabularyConfig(maximum_codes=40),
            "generator": GeneratorConfig(embedding=16, layers=1, heads=2),
            "training": TrainingConfig(rounds=scale.rounds, learning_rate=5e-3, batch_size=64),
            "augmentation": AugmentationConfig(synthetic_patients=2_000),
            "audit": AuditConfig(predictors=("logistic_regression",), seeds=1),
            "privacy": privacy,
        }
    )


def hospitals(root: Path, scale: Scale, *, seed: int) -> None:
    """Two hospitals' tables and events, with the demo's biases."""
    source = read_study(ROOT / "studies" / "demo.yaml").sites[0].simulate
    assert isinstance(source, SimulationConfig)
    for number, name in enumerate(SITES):
        folder = root / name
        drawn = {"patients": scale.patients, "seed": 2 * seed + number, "mix": "natural"}
        simulate(source.model_copy(update=drawn), folder / "raw")
        config = shutil.copytree(ROOT / "site_configs" / "mimic3", folder / "configs" / "mimic3")
        shutil.copy(ROOT / "site_configs" / "policy.yaml", folder / "configs" / "policy.yaml")
        extract(folder / "raw", config=config, root=folder)


def levels() -> Iterator[tuple[str, PrivacyConfig]]:
    """Exact, and each epsilon."""
    yield "exact", PrivacyConfig(agreement="simulated patients", minimum_contributing=1)
    for epsilon in EPSILONS:
        yield f"epsilon {epsilon:g}", PrivacyConfig(profile="noise", epsilon=epsilon, noise=NoiseConfig(steps=10))


def study(root: Path, plan: StudyPlan, *, events: Path) -> dict[SiteId, Path]:
    """Run the study in `root`, on copies of the hospitals in `events`; the sites' folders."""
    folders = {}
    for name in SITES:
        folder = folders[name] = root / name
        shutil.copytree(events / name, folder)
        entry = {"site": name, "config": str(folder / "configs" / "mimic3"), "data": str(folder / "raw")}
        (folder / "site.json").write_text(json.dumps(entry))
        boundary.approve(folder, plan, officer="benchmark")
    server = root / "server"
    sign_here(plan, folders, server=server)
    run_study(Here(folders), plan=plan, root=server)
    return folders


def figures(root: Path, plan: StudyPlan, folders: Mapping[SiteId, Path]) -> dict[str, object]:
    """What the study came to, of held-out patients of both hospitals."""
    generator = load(root / "server" / "generator-fairsynth", kind="generator-fairsynth").weights
    told: list[dict] = []
    counted: dict[str, np.ndarray] = {}
    for folder in folders.values():
        cohort = load_cohort(folder)
        rates = home_rates(folder, cohort, plan=plan, terms=NOTHING)
        totals = Totals(patients=len(cohort.train), positions=2.27)
        own = Study(vocabulary=cohort.vocabulary, plan=plan, totals=totals)
        told.append(alone(at_home(generator, rates), cohort, own, seed=plan.seed))
        for key, values in load_file(folder / "audit" / "counts.safetensors").items():
            counted[key] = counted.get(key, 0) + values
    confusion = counted["confusion"][:, 0, 0, 1]  # (A, G, 4) at the tuned threshold: TP, FP, FN, TN
    journal = read(root / "server" / "journal.jsonl")
    steered = [event for event in journal if event["event"] == "round" and event["arm"] == "fairsynth"]
    return {
        "codes": len(cohort.vocabulary.codes),
        "nats": float(np.mean([one["nll"] for one in told])),
        "nats_by_group": np.mean([one["nll_by_group"] for one in told], axis=0).tolist(),
        "auroc_real": auroc(counted["alone"][0]),
        "auroc_synthetic": float(np.mean([one["auroc"] for one in told])),
        "true_positives": confusion[:, :, 0].tolist(),
        "positives": (confusion[0, :, 0] + confusion[0, :, 2]).tolist(),
        "selected": (confusion[:, :, 0] + confusion[:, :, 1]).tolist(),
        "members": confusion[0].sum(axis=-1).tolist(),
        "left_out": next(event["left_out"] for event in journal if event["event"] == "groups"),
        "steered_rounds": sum(bool(np.any(event["coefficients"])) for event in steered),
        "rounds": len(steered) - 1,
        "epsilon": max(map(spent, folders.values())) if plan.privacy.noised else None,
    }


def spent(folder: Path) -> float:
    """Epsilon that the site's budget was charged."""
    return Budget(folder, limit=limit_of(read_policy(folder / "configs" / "mimic3"))).epsilon().tight


def auroc(histogram: np.ndarray) -> float:
    """Of (G, 2, bins) scores by label."""
    by_label = histogram.sum(axis=0)
    bins = np.arange(by_label.shape[-1])
    label, score = np.repeat([0, 1], len(bins)), np.tile(bins, 2)
    return float(roc_auc_score(label, score, sample_weight=by_label.ravel()))


def run(scale: Scale, *, seeds: Iterable[int]) -> list[dict[str, object]]:
    """A row for each seed and level."""
    rows = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            events = Path(folder) / "events"
            hospitals(events, scale, seed=500 + seed)
            for name, privacy in levels():
                started, plan, root = time.process_time(), plan_of(scale, seed=seed, privacy=privacy), Path(folder)
                root = root / name.replace(" ", "-")
                folders = study(root, plan, events=events)
                row = {"seed": seed, "level": name, **figures(root, plan, folders)}
                rows.append({**row, "seconds": round(time.process_time() - started, 1)})
                print(json.dumps(rows[-1]), flush=True)
                shutil.rmtree(root)
    return rows


APPROACH = {"real": 0, "fairsynth": 3}


def table(rows: list[dict]) -> str:
    """Markdown: utility by level, mean and 95 % interval over seeds."""
    lines = [
        "| study | epsilon | codes | nats a visit | AUROC, synthetic alone | rounds steered | lowest TPR | DI |",
        "|---" * 8 + "|",
    ]
    real = [row for row in rows if row["level"] == "exact"]
    lines.append(
        f"| real patients alone | - | {_codes(real)} | - | {_mean([r['auroc_real'] for r in real])} | - | "
        f"{_lowest(real, 'real')} | {_impact(real, 'real')} |"
    )
    for name in dict.fromkeys(row["level"] for row in rows):
        own = [row for row in rows if row["level"] == name]
        charged = "-" if name == "exact" else f"{max(row['epsilon'] for row in own):.2f}"
        steered = f"{sum(r['steered_rounds'] for r in own)} of {sum(r['rounds'] for r in own)}"
        lines.append(
            f"| {name} | {charged} | {_codes(own)} | {_mean([r['nats'] for r in own], 2)} | "
            f"{_mean([r['auroc_synthetic'] for r in own])} | {steered} | {_lowest(own, 'fairsynth')} | "
            f"{_impact(own, 'fairsynth')} |"
        )
    return "\n".join(lines)


def table_by_group(rows: list[dict]) -> str:
    """Markdown: TPR by group, patients of all studies together, Wilson's 95 % interval."""
    names = list(dict.fromkeys(row["level"] for row in rows))
    columns = [("real patients alone", "exact", "real"), *((f"with synthetic: {n}", n, "fairsynth") for n in names)]
    lines = [
        "| group | held-out positives | left out of the study | " + " | ".join(name for name, _, _ in columns) + " |",
        "|---" * (3 + len(columns)) + "|",
    ]
    for g, group in enumerate(GROUPS):
        cells = []
        for _, level, approach in columns:
            own = [row for row in rows if row["level"] == level]
            positives = sum(row["positives"][g] for row in own)
            hits = sum(row["true_positives"][APPROACH[approach]][g] for row in own)
            low, high = wilson(hits, positives) if positives else (0.0, 1.0)
            cells.append(f"{hits / max(positives, 1):.2f} [{low:.2f}, {high:.2f}]")
        left = ", ".join(
            f"{n}: {sum(group in r['left_out'] for r in rows if r['level'] == n)}"
            for n in names
            if any(group in r["left_out"] for r in rows if r["level"] == n)
        )
        first = [row for row in rows if row["level"] == names[0]]
        positives = sum(row["positives"][g] for row in first)
        lines.append(f"| {group} | {positives:,} | {left or 'never'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_of_nats(rows: list[dict]) -> str:
    """Markdown: nats a visit by group, mean and 95 % interval over seeds."""
    lines = ["| study | " + " | ".join(GROUPS) + " |", "|---" * (1 + len(GROUPS)) + "|"]
    for name in dict.fromkeys(row["level"] for row in rows):
        own = [row["nats_by_group"] for row in rows if row["level"] == name]
        lines.append(f"| {name} | " + " | ".join(_mean([one[g] for one in own], 2) for g in range(len(GROUPS))) + " |")
    return "\n".join(lines)


def _rates(row: dict, approach: str) -> tuple[np.ndarray, np.ndarray]:
    """TPR and selection rate by group."""
    index = APPROACH[approach]
    tpr = np.array(row["true_positives"][index]) / np.maximum(row["positives"], 1)
    return tpr, np.array(row["selected"][index]) / np.maximum(row["members"], 1)


def _lowest(rows: list[dict], approach: str) -> str:
    return _mean([float(_rates(row, approach)[0].min()) for row in rows])


def _impact(rows: list[dict], approach: str) -> str:
    """Disparate impact: all other groups pooled, over the reference."""
    found = []
    for row in rows:
        selected, members = np.array(row["selected"][APPROACH[approach]]), np.array(row["members"])
        found.append(float(selected[1:].sum() / members[1:].sum() / (selected[0] / members[0])))
    return _mean(found)


def _codes(rows: list[dict]) -> str:
    return f"{min(r['codes'] for r in rows)} to {max(r['codes'] for r in rows)}"


def _mean(values: list[float], digits: int = 3) -> str:
    middle, half = interval(values)
    return f"{middle:.{digits}f} ± {half:.{digits}f}" if math.isfinite(half) else f"{middle:.{digits}f}"


def main() -> None:
    """Print the tables of docs/differential_privacy.md."""
    parser = argparse.ArgumentParser(description="what does a study with noise cost, and whom?")
    parser.add_argument("--quick", action="store_true", help="small hospitals, one seed, two rounds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    rows = run(scale, seeds=range(1, 2 if arguments.quick else arguments.seeds + 1))
    if arguments.json:
        arguments.json.write_text(json.dumps({"patients": scale.patients, "rounds": scale.rounds, "rows": rows}) + "\n")
    print(table(rows), table_of_nats(rows), table_by_group(rows), sep="\n\n")
    print(f"{time.process_time():.0f} s of one core")


if __name__ == "__main__":
    main()
