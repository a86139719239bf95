"""A site's own folder after its audit, made by hand: the cohort and counts that `finished` gives the site."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from finished import CODES, COHORTS, PREDICTORS, SEEDS, arrays_of, changes_of, make_plan
from safetensors.numpy import save_file

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.federation.plans import APPROACHES, THRESHOLDS, plan_sha256
from fairsynth.schemas import SPLITS
from fairsynth.visits.cohort import shared_vocabulary
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

FLOW = {"patients_in_events": 5000, "patients_too_young": 4, "patients_with_an_example": 1490}


def write_site(root: Path, *, site: str = "north", plan: StudyPlan | None = None, audited: bool = True) -> Path:
    """The folder at `root` of `site`; `audited`: whether the study got so far."""
    plan = plan or make_plan()
    vocabulary = shared_vocabulary(CODES, plan=plan)
    artefacts.write_json(root / "site.json", {"site": site, "config": str(root), "data": str(root)})
    artefacts.write_text(root / "plan.json", plan.model_dump_json(by_alias=True))
    shared = {"patients": 1500, "visits": 3000, "codes": len(CODES)}
    hashes = {"plan_sha256": plan_sha256(plan), "vocabulary_sha256": vocabulary.sha256}
    artefacts.write_json(root / "shared.json", {**shared, **hashes})
    (root / "visits").mkdir(parents=True)
    (root / "visits" / "flow.json").write_text(json.dumps(FLOW), encoding="utf-8")
    write_cohort(root, COHORTS[site], vocabulary=vocabulary)
    if audited:
        write_audit(root, site=site, plan=plan)
    return root


def write_cohort(root: Path, cells: list[list[list[int]]], *, vocabulary: Vocabulary) -> None:
    """`cohort/` with (3, G, 2) patients."""
    facts = {"vocabulary_sha256": vocabulary.sha256}
    with artefacts.new(root, kind="cohort", inputs={}, facts=facts) as folder:
        for split, counts in zip(SPLITS, cells, strict=True):
            _records(np.array(counts), vocabulary=vocabulary).save(folder / f"{split}.safetensors")
        names = ("codes", "groups", "ages", "phenotypes")
        artefacts.write_json(folder / "vocabulary.json", {name: getattr(vocabulary, name) for name in names})


def write_audit(root: Path, *, site: str, plan: StudyPlan) -> None:
    """`audit/` as `fairsynth.audit.site` leaves it."""
    axes = {"approaches": APPROACHES, "predictors": PREDICTORS, "thresholds": THRESHOLDS, "seeds": SEEDS}
    with artefacts.new(root, kind="audit", inputs={}) as folder:
        save_file(arrays_of(COHORTS[site][2], recall=0.0, seed=plan.seed), folder / "counts.safetensors")
        artefacts.write_json(folder / "axes.json", {**axes, "plan_sha256": plan_sha256(plan)})
        artefacts.write_json(folder / "changes.json", {site: changes_of(site)})


def _records(cells: np.ndarray, *, vocabulary: Vocabulary) -> Records:
    """One visit with one code for each of (G, 2) patients."""
    group, label = (np.repeat(axis.ravel(), cells.ravel()) for axis in np.indices(cells.shape))
    every = np.arange(len(group) + 1, dtype=np.int64)
    return Records(
        codes=np.zeros(len(group), dtype=np.int64),
        visit_offsets=every,
        patient_offsets=every,
        context=vocabulary.layout.groups.start + group,
        context_offsets=every,
        group=group,
        label=label,
    )
