"""A site's own folder -> its study as this hospital alone may see it.

In:  `site.json`, `plan.json`, `shared.json`, `events/` and `visits/` (what their manifests say), `cohort/`, `audit/`.
Out: `FinishedStudy` with one site, at home, and this site's exact counts.
Never: a file of the server or of another site; a number that the folder does not hold.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fairsynth import artefacts
from fairsynth.audit.summarise import summarise
from fairsynth.audit.summary import Axes, Scope
from fairsynth.augmentation.plan import members_of
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.site import shared_by
from fairsynth.federation.site_folder import read_plan, read_site_folder
from fairsynth.governance.disclosure import shown
from fairsynth.report import files
from fairsynth.report.files import AUDIT
from fairsynth.report.study import EnrolledSite, Enrolment, FinishedStudy, told_changes
from fairsynth.schemas import Arrays, Group, IntArray
from fairsynth.visits.cohort import Cohort, load_cohort

SITE = "site.json"  # what tells the folder of a site from that of a run
_COUNTS = "counts.safetensors"


class _Study(BaseModel):
    """The field of `audit/axes.json` that says whose audit it is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    plan_sha256: str


def is_site_folder(root: Path) -> bool:
    """Whether `root` is the folder of a site."""
    return (root / SITE).is_file()


def read_own(root: Path) -> FinishedStudy:
    """The study of the site at `root`, of its own patients alone.

    Raises ArtefactError when the site has no audit, when a file is missing or altered, or belongs to another study.
    """
    site, plan = read_site_folder(root).site, read_plan(root)
    arrays = _audit(root, plan)
    axes = files.read(root / AUDIT / "axes.json", Axes)
    shared, cohort = shared_by(root), load_cohort(root)
    if (shared.plan_sha256, shared.vocabulary_sha256) != (plan_sha256(plan), cohort.vocabulary.sha256):
        raise _other(root / "shared.json")
    cells = _cells(cohort, groups=len(plan.groups.names))
    summary = summarise(plan, {site: arrays}, axes=axes, changes=told_changes(root))
    _check_same_patients(root, summary.scope(site), cells[2], minimum=plan.audit.minimum_cell)
    here = {name for index, name in enumerate(plan.groups.names) if cells[:, index].any()}
    return FinishedStudy(
        plan=plan,
        events=(),
        rounds=(),
        refusals=(),
        enrolment=Enrolment(
            sites={site: _enrolled(root, cohort, cells)},
            vocabulary_sha256=shared.vocabulary_sha256,
            codes=cohort.vocabulary.codes,
        ),
        axes=axes,
        arrays={site: arrays},
        summary=summary.model_copy(update={"scopes": (_of_groups(summary.scope(site), here),)}),
        home=site,
    )


def _of_groups(scope: Scope, here: Set[Group]) -> Scope:
    """The scope without groups that this site has no patient of: nothing is unknown of them, they are elsewhere."""
    return scope.model_copy(
        update={
            "groups": tuple(row for row in scope.groups if row.group in here),
            "insufficient": tuple(group for group in scope.insufficient if group in here),
        }
    )


def _audit(root: Path, plan: StudyPlan) -> Arrays:
    """The audit's counts. Raises ArtefactError where there are none, or they are of another study."""
    if not (root / AUDIT / artefacts.MANIFEST).is_file():
        raise ArtefactError.of(
            "a site without an audit",
            where=str(root / AUDIT),
            do="wait until the study has ended: the audit is its last step at a site",
        )
    artefacts.read_manifest(root / AUDIT, kind=AUDIT, verify=True)
    if files.read(root / AUDIT / "axes.json", _Study).plan_sha256 != plan_sha256(plan):
        raise _other(root / AUDIT)
    path = root / AUDIT / _COUNTS
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        raise ArtefactError.of("damaged audit", where=str(path), do="audit this site again") from None


def _enrolled(root: Path, cohort: Cohort, cells: IntArray) -> EnrolledSite:
    """What a site would say of its cohort, as far as its folder still has it."""
    events, visits = root / "events", root / "visits"
    known = (events / artefacts.MANIFEST).is_file()
    return EnrolledSite(
        data_sha256=str(artefacts.read_manifest(events, kind="events")["content"]) if known else "",
        flow=artefacts.read_flow(visits) if (visits / "flow.json").is_file() else {},
        codes=None,
        visits=cohort.train.visits,
        mapped_share=None,
        cohort=cells.tolist(),
    )


def _cells(cohort: Cohort, *, groups: int) -> IntArray:
    """(3, G, 2) patients by split, group and label."""
    parts = (cohort.train, cohort.validation, cohort.held_out)
    return np.stack([members_of(part.group, part.label, groups=groups) for part in parts])


def _check_same_patients(root: Path, scope: Scope, held_out: IntArray, *, minimum: int) -> None:
    """The audit must have judged the cohort's held-out patients, not those of an earlier extraction."""
    audited = [(row.patients, row.positives) for row in scope.groups]
    now = [(shown(int(a + b), minimum_cell=minimum), shown(int(b), minimum_cell=minimum)) for a, b in held_out]
    if audited != now:
        raise ArtefactError.of(
            "audit of other patients than the cohort's", where=str(root / AUDIT), do="audit this site again"
        )


def _other(path: Path) -> ArtefactError:
    return ArtefactError.of(
        "file of another study", where=str(path), expected="the plan of plan.json", do="let the site's study end first"
    )
