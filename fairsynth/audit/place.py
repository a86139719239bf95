"""Where the audit works: one site's folder, cohort and plan, and the seeds of what it does there.

In:  what the request names.   Out: `Site`.
Never: another site.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairsynth import artefacts, seeds
from fairsynth.audit.fitting import FitSettings
from fairsynth.augmentation.plan import PLANS, members_of
from fairsynth.config import StudyPlan
from fairsynth.federation.plans import plan_sha256
from fairsynth.schemas import IntArray, SiteId
from fairsynth.visits.cohort import Cohort

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One site's part of the audit: where it is, what it has, what was agreed."""

    root: Path
    site: SiteId
    plan: StudyPlan
    cohort: Cohort
    progress: Progress = lambda _: None

    def seed(self, *path: str | int) -> int:
        """A seed for one named purpose of this audit."""
        return seeds.stream(self.plan.seed, "audit", self.site, *path)

    @property
    def budget(self) -> int:
        """Patients that an approach may add."""
        return self.plan.augmentation.synthetic_patients

    @property
    def quotas(self) -> IntArray:
        """(G, 2) the patients that the plan wants of each cell."""
        train = self.cohort.train
        members = members_of(train.group, train.label, groups=len(self.plan.groups.names))
        return PLANS[self.plan.augmentation.plan](members, budget=self.budget)

    @property
    def settings(self) -> FitSettings:
        """What the plan fixes about fitting."""
        return FitSettings(epochs=self.plan.audit.epochs, threads=self.plan.training.threads)

    @property
    def inputs(self) -> dict[str, str]:
        """The hashes of cohort and plan."""
        cohort = artefacts.read_manifest(self.root / "cohort", kind="cohort")["content"]
        return {"cohort": cohort, "plan": plan_sha256(self.plan)}
