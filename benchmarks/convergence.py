"""Does federated training reach what pooled training reaches? `python -m benchmarks.convergence [--quick] [--small]`.

The demo's two sites (simulated), the same epochs and schedule: pooled; FedAvg; FedAvg with shared moments, with base
rates at home, and with both. For each site: the loss on its real validation patients, in nats a visit; there, the AUROC
of a logistic regression that was trained on synthetic patients alone, as many with the label as without; and R2 of code
prevalence, training visits by synthetic ones in the site's own mix. Beside them, the AUROC of a logistic regression
trained on the site's real patients. All in one run; with `--small`, Boston has 100 patients, 60 of them to train on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.metrics import r2_score, roc_auc_score

from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.fidelity import code_totals, code_visits
from fairsynth.audit.predictors import FitSettings, LogisticRegression
from fairsynth.augmentation.plan import fill_lowest, members_of
from fairsynth.config import StudyPlan, read_study
from fairsynth.extraction import extract
from fairsynth.federation.aggregate import average
from fairsynth.federation.plans import learning_rate
from fairsynth.generator.base_rates import at_home, base_rates, to_share
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import Moments, Study, Totals, Trained, measure, train
from fairsynth.schemas import Arrays, IntArray, SiteId
from fairsynth.seeds import stream
from fairsynth.simulate import simulate
from fairsynth.synthesis.synthesise import synthesise
from fairsynth.visits.cohort import Cohort, encode, load_cohort, prepare, shared_vocabulary
from fairsynth.visits.records import Records

ROOT = Path(__file__).resolve().parents[1]
SITES = {SiteId("boston"): "mimic3", SiteId("zhejiang"): "pic"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is compared: who trains, whether moments are shared, and whether each site keeps its own base rates."""

    name: str
    pooled: bool
    shared: bool
    home: bool


SETTINGS = (
    Setting(name="pooled", pooled=True, shared=True, home=False),
    Setting(name="fedavg", pooled=False, shared=False, home=False),
    Setting(name="fedavg, shared moments", pooled=False, shared=True, home=False),
    Setting(name="fedavg, base rates at home", pooled=False, shared=False, home=True),
    Setting(name="fedavg, both", pooled=False, shared=True, home=True),
)
SYNTHETIC = 2_000  # patients of each site that the AUROC's predictor is trained on, and that R2 compares
SMALL = 100
ROUNDS = 32  # of weights that begin as noise; the study file's are fewer, for it begins primed


def cohorts(folder: Path, plan: StudyPlan, *, share: float, small: bool) -> dict[SiteId, Cohort]:
    """The demo's sites, with `share` of their patients; where `small`, the first has `SMALL`."""
    study = read_study(ROOT / "studies" / "demo.yaml")
    proposals = {}
    for entry in study.sites:
        assert entry.simulate is not None
        number = SMALL if small and entry.site == "boston" else int(entry.simulate.patients * share)
        source = entry.simulate.model_copy(update={"patients": number})
        root, config = folder / entry.site, ROOT / "site_configs" / SITES[entry.site]
        simulate(source, root / "raw")
        extract(root / "raw", config=config, root=root)
        proposals[entry.site] = prepare(root, config=config, plan=plan)
    codes = {code for proposal in proposals.values() for code in proposal.codes}
    vocabulary = shared_vocabulary(codes, plan=plan)
    for site in proposals:
        encode(folder / site, vocabulary=vocabulary, plan=plan)
    return {site: load_cohort(folder / site) for site in proposals}


def figures(sites: dict[SiteId, Cohort], plan: StudyPlan, setting: Setting, *, seed: int) -> dict[str, list[float]]:
    """Validation loss (nats a visit), AUROC taught by synthetic patients alone, and R2, of each site, at the end."""
    train_sets = {site: cohort.train for site, cohort in sites.items()}
    if setting.pooled:
        train_sets = {SiteId("all"): Records.concatenate(list(train_sets.values()))}
    patients = {site: len(records) for site, records in train_sets.items()}
    visits = sum(records.visits for records in train_sets.values())
    vocabulary = next(iter(sites.values())).vocabulary
    everyone = Records.concatenate(list(train_sets.values()))
    total = len(everyone)
    study = Study(vocabulary=vocabulary, plan=plan, totals=Totals(patients=total, positions=visits / total + 1))
    rates = {
        site: base_rates(records if setting.home else everyone, vocabulary=vocabulary)
        for site, records in train_sets.items()
    }
    weights = initial_weights(vocabulary, plan.generator, seed=seed)
    moments: Moments | None = None
    for number in range(plan.training.rounds):
        now = replace(study, learning_rate=learning_rate(plan, round_number=number), moments=moments)
        trained = {
            site: train(
                at_home(weights, rates[site]),
                records=records,
                study=now,
                coefficients=None,
                epochs=plan.training.local_epochs,
                seed=stream(seed, site, number),
            )
            for site, records in train_sets.items()
        }
        shared = {site: to_share(one.weights, rates[site]) for site, one in trained.items()}
        weights = average(shared, patients=patients)
        if setting.shared:
            moments = Moments(
                first=_mean(trained, patients, lambda one: one.moments.first),
                second=_mean(trained, patients, lambda one: one.moments.second),
            )
    result = {}
    for site, cohort in sites.items():
        home = at_home(weights, rates[SiteId("all") if setting.pooled else site])
        measured = measure(home, records=cohort.validation, study=study)
        made = synthesise(home, cohort=cohort, plan=plan, cells=balanced(cohort), number=SYNTHETIC, seed=seed)
        alike = synthesise(home, cohort=cohort, plan=plan, cells=None, number=SYNTHETIC, seed=seed)
        row = [measured.nll / measured.cells, taught_by(made, cohort), resemblance(alike, cohort)]
        result[str(site)] = [round(value, 3) for value in row]
    return result


def balanced(cohort: Cohort) -> IntArray:
    """(G, 2) quotas that sum to `SYNTHETIC`: groups as at the site, half of each with the label."""
    members = members_of(cohort.train.group, cohort.train.label, groups=len(cohort.vocabulary.groups)).sum(axis=1)
    return fill_lowest(np.zeros((len(members), 2), dtype=np.int64), budget=SYNTHETIC, ceilings=_halves(members))


def _halves(members: IntArray) -> IntArray:
    share = np.ceil(SYNTHETIC * members / members.sum() / 2).astype(np.int64)
    return np.stack([share, share], axis=1)


def taught_by(patients: Records, cohort: Cohort) -> float:
    """AUROC on the site's real validation patients of a logistic regression trained on `patients`; NaN without both."""
    if len(set(cohort.validation.label.tolist())) < 2:
        return float("nan")
    settings = FitSettings(epochs=1, threads=1)
    fitted = LogisticRegression().fit(patients, vocabulary=cohort.vocabulary, settings=settings, seed=1)
    scores = blind_scores(fitted, cohort.validation, vocabulary=cohort.vocabulary)
    return float(roc_auc_score(cohort.validation.label, scores))


def resemblance(alike: Records, cohort: Cohort) -> float:
    """R2 of the share of training visits with each code by that of synthetic visits, against equality."""
    parts = (cohort.train, alike)
    real, made = code_visits(parts, codes=len(cohort.vocabulary.codes)) / code_totals(parts)[:, None]
    return float(r2_score(real, made))


def _mean(trained: dict[SiteId, Trained], patients: dict[SiteId, int], get: Callable[[Trained], Arrays]) -> Arrays:
    return average({site: get(one) for site, one in trained.items()}, patients=patients)


def main() -> None:
    """Print the figures of every setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the patients and 6 rounds")
    parser.add_argument("--small", action="store_true", help=f"Boston with {SMALL} patients")
    parser.add_argument("--seeds", type=int, default=1, help="repeat with this many initial weights")
    parser.add_argument("--json", action="store_true", help="one JSON object a seed")
    arguments = parser.parse_args()
    plan = read_study(ROOT / "studies" / "demo.yaml").plan()
    rounds = 6 if arguments.quick else ROUNDS
    plan = plan.model_copy(update={"training": plan.training.model_copy(update={"rounds": rounds})})
    with tempfile.TemporaryDirectory() as folder:
        sites = cohorts(Path(folder), plan, share=0.1 if arguments.quick else 1.0, small=arguments.small)
    real = {str(site): [round(taught_by(cohort.train, cohort), 3)] for site, cohort in sites.items()}
    for seed in range(1, arguments.seeds + 1):
        found = {setting.name: figures(sites, plan, setting, seed=seed) for setting in SETTINGS}
        found["real training patients (AUROC alone)"] = real
        rows = "\n".join(f"{name:38} {row}" for name, row in found.items())
        print(json.dumps(found) if arguments.json else f"seed {seed}\n{rows}", flush=True)


if __name__ == "__main__":
    main()
