"""Does federated training reach what pooled training reaches? `python -m benchmarks.convergence [--quick] [--json]`.

The demo's two sites (simulated), the same epochs and schedule: pooled; FedAvg with an optimiser that begins anew each
round; FedAvg with shared moments. Prints the validation loss of each site, in nats a visit, all in one run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fairsynth.config import StudyPlan, read_study
from fairsynth.extraction import extract
from fairsynth.federation.aggregate import average
from fairsynth.federation.plans import learning_rate
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import Moments, Study, Totals, Trained, measure, train
from fairsynth.schemas import Arrays, SiteId
from fairsynth.seeds import stream
from fairsynth.simulate import simulate
from fairsynth.visits.cohort import Cohort, encode, load_cohort, prepare, shared_vocabulary
from fairsynth.visits.records import Records

ROOT = Path(__file__).resolve().parents[1]
SITES = {SiteId("boston"): "mimic3", SiteId("zhejiang"): "pic"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is compared: who trains, and whether moments are shared."""

    name: str
    pooled: bool
    shared: bool


SETTINGS = (
    Setting(name="pooled", pooled=True, shared=True),
    Setting(name="fedavg, optimiser anew", pooled=False, shared=False),
    Setting(name="fedavg, shared moments", pooled=False, shared=True),
)


def cohorts(folder: Path, plan: StudyPlan, *, share: float) -> dict[SiteId, Cohort]:
    """The demo's sites, with `share` of their patients."""
    study = read_study(ROOT / "studies" / "demo.yaml")
    proposals = {}
    for entry in study.sites:
        assert entry.simulate is not None
        source = entry.simulate.model_copy(update={"patients": int(entry.simulate.patients * share)})
        root, config = folder / entry.site, ROOT / "site_configs" / SITES[entry.site]
        simulate(source, root / "raw")
        extract(root / "raw", config=config, root=root)
        proposals[entry.site] = prepare(root, config=config, plan=plan)
    codes = {code for proposal in proposals.values() for code in proposal.codes}
    vocabulary = shared_vocabulary(codes, plan=plan)
    for site in proposals:
        encode(folder / site, vocabulary=vocabulary, plan=plan)
    return {site: load_cohort(folder / site) for site in proposals}


def losses(sites: dict[SiteId, Cohort], plan: StudyPlan, setting: Setting) -> dict[str, float]:
    """Validation loss of each site after the plan's rounds, nats a visit."""
    train_sets = {site: cohort.train for site, cohort in sites.items()}
    if setting.pooled:
        train_sets = {SiteId("all"): Records.concatenate(list(train_sets.values()))}
    patients = {site: len(records) for site, records in train_sets.items()}
    visits = sum(records.visits for records in train_sets.values())
    vocabulary = next(iter(sites.values())).vocabulary
    total = sum(patients.values())
    study = Study(vocabulary=vocabulary, plan=plan, totals=Totals(patients=total, positions=visits / total + 1))
    weights = initial_weights(vocabulary, plan.generator, seed=1)
    moments: Moments | None = None
    for number in range(plan.training.rounds):
        now = replace(study, learning_rate=learning_rate(plan, round_number=number), moments=moments)
        trained = {
            site: train(
                weights,
                records=records,
                study=now,
                coefficients=None,
                epochs=plan.training.local_epochs,
                seed=stream(1, site, number),
            )
            for site, records in train_sets.items()
        }
        weights = _mean(trained, patients, lambda one: one.weights)
        if setting.shared:
            moments = Moments(
                first=_mean(trained, patients, lambda one: one.moments.first),
                second=_mean(trained, patients, lambda one: one.moments.second),
            )
    measured = {site: measure(weights, records=cohort.validation, study=study) for site, cohort in sites.items()}
    return {str(site): round(one.nll / one.cells, 2) for site, one in measured.items()}


def _mean(trained: dict[SiteId, Trained], patients: dict[SiteId, int], get: Callable[[Trained], Arrays]) -> Arrays:
    return average({site: get(one) for site, one in trained.items()}, patients=patients)


def main() -> None:
    """Print the losses of every setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the patients and 6 rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    plan = read_study(ROOT / "studies" / "demo.yaml").plan()
    if arguments.quick:
        plan = plan.model_copy(update={"training": plan.training.model_copy(update={"rounds": 6, "batch_size": 64})})
    with tempfile.TemporaryDirectory() as folder:
        sites = cohorts(Path(folder), plan, share=0.1 if arguments.quick else 1.0)
    figures = {setting.name: losses(sites, plan, setting) for setting in SETTINGS}
    print(json.dumps(figures) if arguments.json else "\n".join(f"{name:26} {row}" for name, row in figures.items()))


if __name__ == "__main__":
    main()
