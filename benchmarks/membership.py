"""Who was in training? Attacks on the generators and patients of federated studies, and canaries planted in them.

    python -m benchmarks.membership [--quick] [--seeds 5] [--settings demo|defaults] [--rounds N] [--json PATH]

Each seed is a study of its own: the demo's two simulated hospitals drawn anew, 6,000 adults and 5,000 children, trained
by `federation.rounds` as `fairsynth study` does, with masked sums, in this process. Each site then judges what it would
release (`fairsynth release check`) and attacks the generators. Ten canaries are planted at each site (canaries.py).
`demo` are the settings of studies/demo.yaml but for its teacher, which chooses among patients and trains no generator;
`defaults` are those of the package: 32 rounds, not primed, none at home.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.canaries import Planted, plant
from benchmarks.membership_site import Attacked
from benchmarks.membership_table import tables
from fairsynth.audit.site import audit_site
from fairsynth.config import AugmentationConfig, StudyPlan, TrainingConfig, read_study
from fairsynth.experiments.study import Run
from fairsynth.federation import answering, site
from fairsynth.federation.journal import read
from fairsynth.federation.masking.local import sign_here
from fairsynth.federation.rounds import run_study
from fairsynth.schemas import SiteId
from fairsynth.simulate import simulate

DEMO = Path(__file__).resolve().parents[1] / "studies" / "demo.yaml"
HANDLERS = {
    "join": answering.join,
    "enrol": site.enrol,
    "agree": site.agree,
    "train": site.train,
    "audit": partial(site.audit, evaluate=audit_site),
}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run. `copies` and `epochs` are of the control, a generator that is to know its canaries by heart."""

    patients: Mapping[str, int]
    rounds: int | None = None  # None: as the settings say
    canaries: int = 10
    others: int = 1000
    attacked: int = 1500  # patients of each side in the attack on a generator
    copies: int = 50
    epochs: int = 12


FULL = Scale(patients={"boston": 6000, "zhejiang": 5000})
QUICK = Scale(
    patients={"boston": 1500, "zhejiang": 1500}, rounds=2, canaries=4, others=50, attacked=60, copies=20, epochs=4
)


class Planting:
    """A transport that asks each site in this process, and plants canaries before the sites agree on a vocabulary."""

    def __init__(self, folders: Mapping[SiteId, Path], *, scale: Scale, seed: int) -> None:
        self.folders, self.scale, self.seed = folders, scale, seed
        self.planted: dict[SiteId, Planted] = {}

    def ask(self, requests, *, timeout):
        """As `federation.conversation.Transport`."""
        if not self.planted and any(one.kind == "agree" for one in requests.values()):
            number, others = self.scale.canaries, self.scale.others
            self.planted = plant(self.folders, number=number, others=others, seed=self.seed)
        for name, request in requests.items():
            yield name, answering.answered(self.folders[name], request, HANDLERS[request.kind])


def plan_of(settings: str, *, scale: Scale, seed: int) -> StudyPlan:
    """The plan of one study, without what no generator depends on: a teacher, and an audit longer than it must be."""
    demo = read_study(DEMO).plan()
    training, augmentation = demo.training, demo.augmentation.model_copy(update={"candidates": "prefix"})
    if settings == "defaults":
        training = TrainingConfig()
        augmentation = AugmentationConfig(synthetic_patients=augmentation.synthetic_patients)
    audit = demo.audit.model_copy(update={"predictors": ("logistic_regression",), "seeds": 1})
    training = training.model_copy(update={"rounds": scale.rounds or training.rounds})
    changes = {"seed": seed, "training": training, "augmentation": augmentation, "audit": audit}
    return demo.model_copy(update=changes)


def open_sites(root: Path, *, scale: Scale, seed: int) -> dict[SiteId, Path]:
    """A folder for each site of the demo, with tables drawn anew."""
    folders = {}
    for number, entry in enumerate(read_study(DEMO).sites):
        folder = folders[entry.site] = root / entry.site
        drawn = {"patients": scale.patients[entry.site], "seed": 100 * seed + number}
        simulate(entry.simulate.model_copy(update=drawn), folder / "raw")
        config = (DEMO.parent / str(entry.config)).resolve()
        told = {"site": entry.site, "config": str(config), "data": str(folder / "raw")}
        (folder / "site.json").write_text(json.dumps(told), encoding="utf-8")
    return folders


def study(run: Run, *, settings: str, scale: Scale, seed: int) -> dict[SiteId, Planted]:
    """Train one study in the folder of `run`; the canaries of each site."""
    torch.set_num_threads(1)
    plan = plan_of(settings, scale=scale, seed=seed)
    folders = open_sites(run.root / "sites", scale=scale, seed=seed)
    sign_here(plan, folders, server=run.server)
    transport = Planting(folders, scale=scale, seed=seed)
    run_study(transport, plan=plan, root=run.server)
    return transport.planted


def figures(run: Run, planted: Mapping[SiteId, Planted], *, scale: Scale, control: bool) -> Iterator[dict[str, object]]:
    """What is found at each site of a run; with `control`, also of generators that are to know the first's canaries."""
    plan = run.plan
    for number, (name, own) in enumerate(sorted(planted.items())):
        here = Attacked.of(run, name, planted=own)
        row = {"seed": plan.seed, "site": name, "rounds": plan.training.rounds, "nll": last_losses(run)}
        yield row | here.figures(attacked=scale.attacked)
        if control and not number:
            for copies in (1, scale.copies):
                yield row | {"control": here.control(copies=copies, epochs=scale.epochs)}


def last_losses(run: Run) -> dict[str, tuple[float, float]]:
    """Of each arm's final generator: nats a visit of training and of validation patients, all sites together."""
    lines = read(run.server / "journal.jsonl")
    return {one["arm"]: (one["nll_train"], one["nll_validation"]) for one in lines if one["event"] == "round"}


def main() -> None:
    """Print the tables of docs/release.md; --json keeps every figure, also of an unfinished run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--settings", choices=("demo", "defaults"), default="demo")
    parser.add_argument("--rounds", type=int, help="instead of those of the settings")
    parser.add_argument("--quick", action="store_true", help="one study of two small hospitals and two rounds")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    scale, rows = (QUICK if arguments.quick else FULL), []
    scale = replace(scale, rounds=arguments.rounds or scale.rounds)
    for seed in range(1, (1 if arguments.quick else arguments.seeds) + 1):
        with tempfile.TemporaryDirectory() as folder:
            run = Run(root=Path(folder))
            planted = study(run, settings=arguments.settings, scale=scale, seed=seed)
            rows += figures(run, planted, scale=scale, control=seed == 1)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(tables(rows))
    print(f"{time.process_time():.0f} s of one core")


if __name__ == "__main__":
    main()
