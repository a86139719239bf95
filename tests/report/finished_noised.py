"""The server folder of a finished study with noise, made by hand: noised sums of all sites, and no audit."""

from __future__ import annotations

from pathlib import Path

from finished import CODES, COHORTS, make_plan

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.federation.journal import text_of
from fairsynth.federation.plans import POOLED, plan_sha256

# (3, G, 2): noised; nobody knows whether a 3 is anyone
COHORT = [[[1203, 178], [288, 43], [27, 3]], [[148, 22], [39, 7], [0, 2]], [[449, 88], [166, 51], [12, 6]]]
PRIVACY = {
    "epsilon": 2.9876,
    "delta": 1e-6,
    "accountant": "pld",
    "noise_multiplier": 1.734,
    "clip": 0.02,
    "batch_share": 0.1,
    "steps": 12,
    "counts_ratio": 5.678,
    "counted_rounds": [0, 2],
    "releases": 10,
}


def make_noised_plan(**changes: object) -> StudyPlan:
    """The plan, with top-level keys replaced."""
    values: dict[str, object] = {
        "quorum": len(COHORTS),
        "training": {"rounds": 3},
        "augmentation": {"synthetic_patients": 500, "candidates": "prefix", "home_rounds": 0},
        "privacy": {"profile": "noise", "agreement": "toys"},
    }
    return make_plan(**{**values, **changes})


def write_noised(
    root: Path, *, plan: StudyPlan | None = None, privacy: bool = True, ended: bool = True, counted: bool = True
) -> Path:
    """The folder at `root`; without `privacy` or `ended` its journal lacks what was charged, or its end."""
    plan = plan or make_noised_plan()
    artefacts.write_text(root / "plan.json", plan.model_dump_json(by_alias=True))
    entry = {
        "data_sha256": "d" * 64,
        "flow": {},
        "codes": len(CODES),
        "visits": 4021,
        "mapped_share": None,
        "cohort": COHORT,
    }
    enrolment = {"sites": {POOLED: entry}, "vocabulary_sha256": "v" * 64, "codes": CODES, "left_out": ["asian"]}
    artefacts.write_json(root / "enrolment.json", enrolment)
    lines = [
        {"event": "study", "plan_sha256": plan_sha256(plan), "versions": {"torch": "2.13"}, "started": "2026-01-01"},
        {"event": "enrolled"},
        *([{"event": "privacy", **PRIVACY}] if privacy else []),
        *(_round(arm, number, counted=counted) for arm in ("plain", "fairsynth") for number in range(3)),
        *([{"event": "audited", "sites": sorted(COHORTS), "at_home": True}, {"event": "finished"}] if ended else []),
    ]
    artefacts.write_bytes(root / "journal.jsonl", *map(text_of, lines))
    return root


def _round(arm: str, number: int, *, counted: bool) -> dict[str, object]:
    has = counted and arm == "fairsynth" and number in PRIVACY["counted_rounds"]
    soft = [[1381.5, 221.0, 1381.5 * (1 + number / 4), 90.0], [330.9, 50.0, 330.9 * 1.5, 20.0], [5.2, -1.0, 4.0, 1.0]]
    return {
        "event": "round",
        "arm": arm,
        "round": number,
        "sites": sorted(COHORTS),
        "soft": soft if has else None,
        "hard": None,
        "loss": 0.4321 if has else None,
        "nll_train": None,
        "nll_validation": None,
        "bounded": False,
        "seconds": 1.5,
        "weights_sha256": "w" * 64,
    }
