"""The server folder of a finished study, read and checked once.

In:  `plan.json`, `journal.jsonl`, `enrolment.json`, `audit/`.   Out: `FinishedStudy`.
Never: a file of a site (`report.at_home` reads those); a number that no file of the folder holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import RootModel
from pydantic import ValidationError as PydanticError
from safetensors.numpy import load_file

from fairsynth import artefacts
from fairsynth.audit.summarise import summarise
from fairsynth.audit.summary import ALL_SITES, Axes, Scope, Summary
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError
from fairsynth.fairness.verdict import SiteChange
from fairsynth.federation import journal
from fairsynth.federation.plans import POOLED
from fairsynth.report import files
from fairsynth.report.files import AUDIT, ENROLMENT, PLAN, Line
from fairsynth.schemas import Arrays, FloatArray, Group, IntArray, SiteId

NOISE = "noise"  # the privacy profile whose audit stays at the sites


class Round(Line):
    """One round line of the journal. `soft` and `hard` are (G, 4): N_g, P_g, S_g, TP_g of the model it received."""

    arm: str
    round: int
    sites: tuple[SiteId, ...]
    soft: tuple[tuple[float, float, float, float], ...] | None = None  # None: a round without counts, under noise
    loss: float | None = None
    nll_train: float | None = None  # nats a visit
    nll_validation: float | None = None
    bounded: bool = False
    seconds: float | None = None
    weights_sha256: str = ""


class Refused(Line):
    """A reply that the server refused, or that never came."""

    phase: str
    site: SiteId
    code: str


class Changes(RootModel[dict[SiteId, tuple[SiteChange, ...]]]):
    """`audit/changes.json`: what FairSynth's patients changed at each site."""


class EnrolledSite(Line):
    """What one site said of its cohort at enrolment. `cohort` is (3, G, 2): patients by split, group, label."""

    data_sha256: str
    flow: dict[str, int]
    codes: int | None  # proposed; None: a site does not keep it
    visits: int
    mapped_share: float | None  # None: likewise, and under noise
    cohort: tuple[tuple[tuple[int, int], ...], ...]


class Enrolment(Line):
    """`enrolment.json`."""

    sites: dict[SiteId, EnrolledSite]
    vocabulary_sha256: str
    codes: tuple[str, ...]
    left_out: tuple[Group, ...] = ()  # groups that too few patients or sites have, in masked studies


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What is known of a study, whoever has the results."""

    plan: StudyPlan
    events: tuple[dict[str, Any], ...]  # the journal, rounds included
    rounds: tuple[Round, ...]
    refusals: tuple[Refused, ...]
    enrolment: Enrolment

    def event(self, name: str) -> dict[str, Any]:
        """The last journal event of that name, empty when there is none."""
        return next((event for event in reversed(self.events) if event.get("event") == name), {})

    def arm(self, name: str) -> tuple[Round, ...]:
        """The rounds of one arm, in order; of a round told twice, the last telling."""
        return tuple(line for _, line in sorted({line.round: line for line in self.rounds if line.arm == name}.items()))

    def cohort(self, site: SiteId) -> IntArray:
        """(3, G, 2) patients of a site by split, group and label."""
        return np.asarray(self.enrolment.sites[site].cohort, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class FinishedStudy(StudyRecord):
    """Everything the report shows: of all sites as the server sees them, or of one site at home."""

    axes: Axes
    arrays: dict[SiteId, Arrays]  # of each site's audit reply
    summary: Summary
    home: SiteId | None = None  # the site whose own page this is; None: the server's report

    @property
    def masked(self) -> bool:
        """Whether the server saw sums of all sites alone."""
        if self.home is not None:
            return self.plan.privacy.masked and len(self.plan.roster) > 1
        return self._pooled

    @property
    def enrolled(self) -> tuple[SiteId, ...]:
        """Whose cohorts the report has, or misses: the roster, all sites as one, or the one site at home."""
        if self.home is not None:
            return (self.home,)
        return (POOLED,) if self._pooled else self.plan.roster

    @property
    def audited(self) -> tuple[SiteId, ...]:
        """Sites whose audit is in the report, sorted."""
        return self.plan.roster if self._pooled else tuple(sorted(self.arrays))

    @property
    def known(self) -> tuple[SiteId, ...]:
        """Sites whose own counts are in the report, sorted."""
        return () if self._pooled else self.audited

    @property
    def missing(self) -> tuple[SiteId, ...]:
        """Sites of the roster without an audit; at home nobody expects one of the others."""
        return tuple(site for site in self.plan.roster if site not in self.audited) if self.home is None else ()

    @property
    def whole(self) -> Scope:
        """What the report's head speaks of: all sites, or the one at home."""
        return self.summary.scope(self.home or ALL_SITES)

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Every scope of the report, `whole` first."""
        return self.summary.scopes if self.home is None else (self.whole,)

    @property
    def _pooled(self) -> bool:
        return POOLED in self.arrays


def counted(rounds: tuple[Round, ...]) -> tuple[Round, ...]:
    """The rounds that have counts: all of them, but in a study with noise."""
    return tuple(line for line in rounds if line.soft is not None)


def soft_counts(rounds: tuple[Round, ...]) -> FloatArray:
    """(R, G, 4) the pooled statistics of each of `rounds`, which all have counts."""
    return np.asarray([line.soft for line in rounds], dtype=np.float64)


def read_record(root: Path) -> StudyRecord:
    """Plan, journal and enrolment of the server folder at `root`. Raises ArtefactError."""
    plan = files.read(root / PLAN, StudyPlan)
    enrolment = files.read(root / ENROLMENT, Enrolment)
    events = files.events(root / journal.NAME)
    try:
        rounds = tuple(Round.model_validate(event) for event in events if event.get("event") == "round")
        refusals = tuple(Refused.model_validate(event) for event in events if event.get("event") == "refused")
    except PydanticError as error:
        raise files.unfit(root / journal.NAME, error) from None
    _check_groups(root, plan, enrolment)
    return StudyRecord(plan=plan, events=events, rounds=rounds, refusals=refusals, enrolment=enrolment)


def read_finished(root: Path) -> FinishedStudy:
    """The finished study at `root`, with its audit.

    Raises ArtefactError when a file is missing or does not fit, and for a study whose audit stayed at the sites.
    """
    record = read_record(root)
    if record.plan.privacy.profile == NOISE:
        raise ArtefactError.of(
            "a study whose results stayed at the sites",
            where=str(root),
            do="`fairsynth report SITE_FOLDER` at each site; `fairsynth report RUN` has what the server knows",
        )
    artefacts.read_manifest(root / AUDIT, kind=AUDIT)
    axes = files.read(root / AUDIT / "axes.json", Axes)
    arrays: dict[SiteId, Arrays] = {
        SiteId(path.stem): load_file(path) for path in sorted((root / AUDIT).glob("*.safetensors"))
    }
    if not arrays:
        raise ArtefactError.of("an audit without sites", where=str(root / AUDIT), do="run the study again")
    return FinishedStudy(
        **vars(record),
        axes=axes,
        arrays=arrays,
        summary=summarise(record.plan, arrays, axes=axes, changes=told_changes(root)),
    )


def told_changes(root: Path) -> dict[SiteId, tuple[SiteChange, ...]]:
    """What sites said has changed there; nothing in a folder of an earlier version."""
    path = root / AUDIT / "changes.json"
    return files.read(path, Changes).root if path.is_file() else {}


def _check_groups(root: Path, plan: StudyPlan, enrolment: Enrolment) -> None:
    """Every cohort table must have the plan's groups."""
    groups = len(plan.groups.names)
    wrong = [site for site, entry in enrolment.sites.items() if [len(split) for split in entry.cohort] != [groups] * 3]
    if wrong:
        where = f"{root / ENROLMENT}  {', '.join(wrong)}"
        raise ArtefactError.of(
            "cohort of another shape", where=where, expected=f"3 splits x {groups} groups x 2 labels"
        )
