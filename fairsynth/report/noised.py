"""The server folder of a study with noise: what left the sites, and what that may have told of one patient.

In:  `plan.json`, `journal.jsonl`, `enrolment.json`.   Out: `NoisedStudy`.
Never: a result of a predictor. The audit stayed at the sites; nothing of it is here to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import NonNegativeFloat, NonNegativeInt
from pydantic import ValidationError as PydanticError

from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError
from fairsynth.federation import journal
from fairsynth.federation.plans import POOLED
from fairsynth.report import files
from fairsynth.report.files import ENROLMENT, PLAN, Line
from fairsynth.report.study import NOISE, EnrolledSite, StudyRecord, read_record
from fairsynth.schemas import IntArray


class Charged(Line):
    """The journal's event `privacy`: what one patient of a site is charged over the whole study, by its plan."""

    epsilon: NonNegativeFloat
    delta: NonNegativeFloat
    accountant: str
    noise_multiplier: NonNegativeFloat  # of training: noise of a step over `clip`
    clip: NonNegativeFloat  # L2 norm of one patient's gradient
    batch_share: NonNegativeFloat  # chance of a patient to be in a step
    steps: NonNegativeInt
    counts_ratio: NonNegativeFloat  # of counts: noise over what one patient can change
    counted_rounds: tuple[int, ...]
    releases: NonNegativeInt


@dataclass(frozen=True, kw_only=True)
class NoisedStudy(StudyRecord):
    """All that the server's page shows."""

    charged: Charged

    @property
    def everyone(self) -> EnrolledSite:
        """What all sites together said of their cohorts, with noise."""
        return self.enrolment.sites[POOLED]

    @property
    def cells(self) -> IntArray:
        """(3, G, 2) noised patients of all sites by split, group and label."""
        return self.cohort(POOLED)


def is_noised(root: Path) -> bool:
    """Whether the server folder at `root` is of a study with noise. Raises ArtefactError without a plan."""
    return files.read(root / PLAN, StudyPlan).privacy.profile == NOISE


def read_noised(root: Path) -> NoisedStudy:
    """The finished study with noise at `root`. Raises ArtefactError when a file is missing or does not fit."""
    record, path = read_record(root), root / journal.NAME
    if POOLED not in record.enrolment.sites:
        raise ArtefactError.of("no cohort of all sites", where=str(root / ENROLMENT), expected=f"an entry {POOLED!r}")
    if not (charge := record.event("privacy")):
        raise ArtefactError.of("no event `privacy`: what a patient is charged is unknown", where=str(path))
    if not record.event("audited"):
        raise ArtefactError.of("an unfinished study", where=str(path), do="let the study finish first")
    try:
        charged = Charged.model_validate(charge)
    except PydanticError as error:
        raise files.unfit(path, error) from None
    return NoisedStudy(**vars(record), charged=charged)
