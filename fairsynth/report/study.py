"""The server folder of a finished study, read and checked once.

In:  `plan.json`, `journal.jsonl`, `enrolment.json`, `audit/`.   Out: `FinishedStudy`.
Never: a file of a site; a number that no file of the folder holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, RootModel
from pydantic import ValidationError as PydanticError
from safetensors.numpy import load_file

from fairsynth import artefacts
from fairsynth.audit.summarise import summarise
from fairsynth.audit.summary import Axes, Summary
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError
from fairsynth.fairness.verdict import SiteChange
from fairsynth.federation import journal
from fairsynth.federation.plans import POOLED
from fairsynth.schemas import Arrays, FloatArray, Group, IntArray, SiteId

Model = TypeVar("Model", bound=BaseModel)

PLAN = "plan.json"
ENROLMENT = "enrolment.json"
AUDIT = "audit"


class _Line(BaseModel):
    """Frozen; keys that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Round(_Line):
    """One round line of the journal. `soft` and `hard` are (G, 4): N_g, P_g, S_g, TP_g of the model it received."""

    arm: str
    round: int
    sites: tuple[SiteId, ...]
    soft: tuple[tuple[float, float, float, float], ...]
    loss: float | None = None
    nll_train: float | None = None  # nats a visit
    nll_validation: float | None = None
    bounded: bool = False
    seconds: float | None = None
    weights_sha256: str = ""


class Refused(_Line):
    """A reply that the server refused, or that never came."""

    phase: str
    site: SiteId
    code: str


class Changes(RootModel[dict[SiteId, tuple[SiteChange, ...]]]):
    """`audit/changes.json`: what FairSynth's patients changed at each site."""


class EnrolledSite(_Line):
    """What one site said of its cohort at enrolment. `cohort` is (3, G, 2): patients by split, group, label."""

    data_sha256: str
    flow: dict[str, int]
    codes: int
    visits: int
    mapped_share: float
    cohort: tuple[tuple[tuple[int, int], ...], ...]


class Enrolment(_Line):
    """`enrolment.json`."""

    sites: dict[SiteId, EnrolledSite]
    vocabulary_sha256: str
    codes: tuple[str, ...]
    left_out: tuple[Group, ...] = ()  # groups that too few patients or sites have, in masked studies


@dataclass(frozen=True, kw_only=True)
class FinishedStudy:
    """Everything the report shows."""

    plan: StudyPlan
    events: tuple[dict[str, Any], ...]  # the journal, rounds included
    rounds: tuple[Round, ...]
    refusals: tuple[Refused, ...]
    enrolment: Enrolment
    axes: Axes
    arrays: dict[SiteId, Arrays]  # of each site's audit reply
    summary: Summary

    @property
    def masked(self) -> bool:
        """Whether the server saw sums of all sites alone."""
        return POOLED in self.arrays

    @property
    def audited(self) -> tuple[SiteId, ...]:
        """Sites whose audit is in the report, sorted."""
        return self.plan.roster if self.masked else tuple(sorted(self.arrays))

    @property
    def known(self) -> tuple[SiteId, ...]:
        """Sites whose own counts the server has, sorted."""
        return () if self.masked else self.audited

    @property
    def missing(self) -> tuple[SiteId, ...]:
        """Sites of the roster without an audit."""
        return tuple(site for site in self.plan.roster if site not in self.audited)

    def event(self, name: str) -> dict[str, Any]:
        """The last journal event of that name, empty when there is none."""
        return next((event for event in reversed(self.events) if event.get("event") == name), {})

    def arm(self, name: str) -> tuple[Round, ...]:
        """The rounds of one arm, in order; of a round told twice, the last telling."""
        return tuple(line for _, line in sorted({line.round: line for line in self.rounds if line.arm == name}.items()))

    def cohort(self, site: SiteId) -> IntArray:
        """(3, G, 2) patients of a site by split, group and label."""
        return np.asarray(self.enrolment.sites[site].cohort, dtype=np.int64)


def soft_counts(rounds: tuple[Round, ...]) -> FloatArray:
    """(R, G, 4) the pooled statistics of each round."""
    return np.asarray([line.soft for line in rounds], dtype=np.float64)


def read_finished(root: Path) -> FinishedStudy:
    """The finished study at `root`. Raises ArtefactError when a file is missing or does not fit."""
    plan = _read(root / PLAN, StudyPlan)
    enrolment = _read(root / ENROLMENT, Enrolment)
    events = _journal(root / journal.NAME)
    artefacts.read_manifest(root / AUDIT, kind=AUDIT)
    axes = _read(root / AUDIT / "axes.json", Axes)
    arrays: dict[SiteId, Arrays] = {
        SiteId(path.stem): load_file(path) for path in sorted((root / AUDIT).glob("*.safetensors"))
    }
    told = root / AUDIT / "changes.json"  # not there in a study of an earlier version
    changes = _read(told, Changes).root if told.is_file() else {}
    if not arrays:
        raise ArtefactError.of("an audit without sites", where=str(root / AUDIT), do="run the study again")
    try:
        rounds = tuple(Round.model_validate(event) for event in events if event.get("event") == "round")
        refusals = tuple(Refused.model_validate(event) for event in events if event.get("event") == "refused")
    except PydanticError as error:
        raise _unfit(root / journal.NAME, error) from None
    _check_groups(root, plan, enrolment)
    return FinishedStudy(
        plan=plan,
        events=events,
        rounds=rounds,
        refusals=refusals,
        enrolment=enrolment,
        axes=axes,
        arrays=arrays,
        summary=summarise(plan, arrays, axes=axes, changes=changes),
    )


def _read(path: Path, model: type[Model]) -> Model:
    if not path.is_file():
        raise _missing(path)
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except PydanticError as error:
        raise _unfit(path, error) from None


def _missing(path: Path) -> ArtefactError:
    return ArtefactError.of(
        "missing file of a finished study",
        where=str(path),
        expected=f"the server folder of a study: {PLAN}, {journal.NAME}, {ENROLMENT}, {AUDIT}/",
        do="give the folder that `fairsynth study` printed, or let the study finish first",
    )


def _unfit(path: Path, error: PydanticError) -> ArtefactError:
    keys = sorted({".".join(map(str, detail["loc"])) for detail in error.errors()})
    return ArtefactError.of("file does not fit its schema", where=str(path), expected=f"valid {', '.join(keys[:5])}")


def _journal(path: Path) -> tuple[dict[str, Any], ...]:
    """The journal's events."""
    if not path.is_file():
        raise _missing(path)
    try:
        events = journal.read(path)
    except json.JSONDecodeError:
        raise ArtefactError.of("not JSON", where=str(path), do="run the study again") from None
    begun = max((index for index, event in enumerate(events) if event.get("event") == "study"), default=0)
    return tuple(events[begun:])  # of the last run, when a folder was used twice


def _check_groups(root: Path, plan: StudyPlan, enrolment: Enrolment) -> None:
    """Every cohort table must have the plan's groups."""
    groups = len(plan.groups.names)
    wrong = [site for site, entry in enrolment.sites.items() if [len(split) for split in entry.cohort] != [groups] * 3]
    if wrong:
        where = f"{root / ENROLMENT}  {', '.join(wrong)}"
        raise ArtefactError.of(
            "cohort of another shape", where=where, expected=f"3 splits x {groups} groups x 2 labels"
        )
