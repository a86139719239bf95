"""A finished study's server folder, made by hand: two sites, three groups, known counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.federation.journal import text_of
from fairsynth.federation.plans import APPROACHES, THRESHOLDS, plan_sha256
from fairsynth.seeds import numpy_stream

GROUPS = ("white", "black", "asian")
PREDICTORS = ("transformer", "logistic_regression")
SEEDS = 2
CODES = tuple(f"DX//CCS//{number}" for number in range(40))

# (3, G, 2) patients by split, group, label
COHORTS = {
    "north": [[[800, 120], [200, 30], [24, 5]], [[100, 15], [25, 4], [3, 1]], [[303, 47], [101, 33], [14, 3]]],
    "south": [[[400, 60], [90, 12], [0, 0]], [[50, 7], [12, 2], [0, 0]], [[152, 38], [61, 21], [0, 0]]],
}


def make_plan(**changes: object) -> StudyPlan:
    """The plan, with top-level keys replaced."""
    values: dict[str, object] = {
        "name": "toy-study",
        "seed": 7,
        "roster": sorted(COHORTS),
        "quorum": 1,
        "task": {},
        "split": {},
        "groups": {"names": GROUPS, "reference": GROUPS[:1]},
        "vocabulary": {},
        "objective": {},
        "generator": {},
        "training": {"rounds": 2},
        "augmentation": {"synthetic_patients": 500},
        "privacy": {"profile": "plain", "agreement": "toys"},
        "audit": {"seeds": SEEDS, "bootstrap_replicates": 20, "minimum_positives": 10, "minimum_cell": 11},
    }
    return StudyPlan.model_validate({**values, **changes})


def write(
    root: Path, *, plan: StudyPlan | None = None, recall: float = 0.0, sites: tuple[str, ...] = (), told: bool = True
) -> Path:
    """The folder at `root`. `recall` is what FairSynth adds to every group's TPR of 0.5; `sites` defaults to all;
    `told`: whether sites say what changed there, as since the version that has verdicts."""
    plan = plan or make_plan()
    audited = sites or tuple(COHORTS)
    artefacts.write_text(root / "plan.json", plan.model_dump_json(by_alias=True))
    artefacts.write_bytes(root / "journal.jsonl", *map(text_of, _journal(plan)))
    enrolled = {
        site: {
            "data_sha256": site[0] * 64,
            "flow": {"raw patients": 5000, "with <b>age</b>": 4000, "rare": 4},
            "codes": len(CODES),
            "visits": 3000,
            "mapped_share": 0.9,
            "cohort": cohort,
        }
        for site, cohort in COHORTS.items()
    }
    artefacts.write_json(root / "enrolment.json", {"sites": enrolled, "vocabulary_sha256": "v" * 64, "codes": CODES})
    axes = {"approaches": APPROACHES, "predictors": PREDICTORS, "thresholds": THRESHOLDS, "seeds": SEEDS}
    with artefacts.new(root, kind="audit", inputs={}) as folder:
        artefacts.write_json(folder / "axes.json", {**axes, "plan_sha256": plan_sha256(plan)})
        if told:
            artefacts.write_json(folder / "changes.json", {site: changes_of(site) for site in audited})
        for site in audited:
            save_file(arrays_of(COHORTS[site][2], recall=recall, seed=plan.seed), folder / f"{site}.safetensors")
    return root


def _journal(plan: StudyPlan) -> list[dict[str, object]]:
    study = {"event": "study", "plan_sha256": plan_sha256(plan), "versions": {"torch": "2.13"}, "started": "2026-01-01"}
    rounds = [
        {
            "event": "round",
            "arm": arm,
            "round": number,
            "sites": sorted(COHORTS),
            "soft": [[1380, 900, 1380 * (2 + number / 4), 500], [332, 200, 332 * (1.5 + number / 3), 90], [5, 4, 5, 1]],
            "hard": [[1380, 900, 900, 500], [332, 200, 180, 90], [5, 4, 5, 1]],
            "loss": None if number == 0 and arm == "plain" else 0.3 - number / 10,
            "coefficients": [[0, 0]] * 3,
            "nll_train": 50.0 - 9 * number,
            "nll_validation": 51.0 - 8 * number,
            "bounded": arm == "fairsynth" and number == 1,
            "seconds": 1.5,
            "weights_sha256": "w" * 64,
        }
        for arm in ("plain", "fairsynth")
        for number in range(3)
    ]
    return [study, {"event": "enrolled"}, *rounds, {"event": "audited"}, {"event": "finished"}]


def changes_of(site: str) -> list[dict[str, object]]:
    """What a site says. North gains; at south no group could be judged, and parity is unknown at a score of 0.5."""
    unknown = {"mean": None, "low": None, "high": None, "seeds": 0}
    return [
        {
            "predictor": predictor,
            "threshold": threshold,
            "gain": {"mean": 0.1234, "low": 0.0456, "high": 0.2, "seeds": SEEDS} if site == "north" else unknown,
            "f1": {"mean": -0.004, "low": -0.0123, "high": 0.01, "seeds": SEEDS},
            "abs_log_di": unknown
            if threshold == "half"
            else {"mean": -0.21, "low": -0.4, "high": -0.031, "seeds": SEEDS},
        }
        for predictor in PREDICTORS
        for threshold in THRESHOLDS
    ]


def arrays_of(held_out: list[list[int]], *, recall: float, seed: int) -> dict[str, np.ndarray]:
    """Audit arrays in which each approach finds half of a group's positives, and FairSynth `recall` more."""
    cells = np.array(held_out)
    shape = (len(APPROACHES), len(PREDICTORS), SEEDS, len(THRESHOLDS), len(GROUPS), 4)
    confusion = np.zeros(shape, dtype=np.int64)
    scores = np.zeros((*shape[:3], len(GROUPS), 2, 200), dtype=np.int64)
    for index, (negatives, positives) in enumerate(cells):
        for a, approach in enumerate(APPROACHES):
            found = round(positives * (0.5 + (recall if approach == "fairsynth" else 0.0)))
            alarms = negatives // 5
            confusion[a, ..., index, :] = [found, alarms, positives - found, negatives - alarms]
        scores[..., index, 0, 60] = negatives
        scores[..., index, 1, 90] = positives
    rng = numpy_stream(seed, "fixture")
    prevalence = rng.uniform(0.001, 0.4, size=len(CODES))
    totals = np.array([3000, 400, 500], dtype=np.int64)
    visits = np.stack([rng.binomial(total, prevalence) for total in totals]).astype(np.int64)
    synthetic = np.zeros((len(APPROACHES), len(GROUPS), 2), dtype=np.int64)
    synthetic[1:] = 100
    return {
        "confusion": confusion,
        "scores": scores,
        "synthetic": synthetic,
        "code_visits": visits,
        "code_totals": totals,
        "alone": scores[:2, 0, 0],
    }
