"""A study file: the plan, and where each site on this machine finds its tables.

In:  YAML.   Out: `StudyConfig`, and the `StudyPlan` in it.   Never: what a deployed site keeps to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from fairsynth.config.base import Name, Strict
from fairsynth.config.fit import FitConfig
from fairsynth.config.plan import (
    AuditConfig,
    AugmentationConfig,
    GeneratorConfig,
    GroupsConfig,
    ObjectiveConfig,
    PrivacyConfig,
    SplitConfig,
    StudyPlan,
    TaskConfig,
    TrainingConfig,
    VocabularyConfig,
    required_problem,
)
from fairsynth.schemas import Group, SiteId


class BiasConfig(Strict):
    """The simulator's bias knobs, see docs/simulator.md; the defaults add nothing to the calibrated process."""

    groups: tuple[Group, ...] | None = Field(default=None, min_length=1)  # whose; None: all outside the reference group
    under_representation: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of their patients left out
    under_documentation: Annotated[float, Field(ge=0, lt=1)] = 0.0  # chance that one of their codes is lost
    undocumented: Literal["danger"] | None = (
        None  # what is lost; None: any code; danger: what tells of a likelier death
    )
    outcome_shift: Annotated[float, Field(ge=0, le=1)] = 0.0  # how far their outcome model is rotated
    label_noise: Annotated[float, Field(ge=0, lt=0.5)] = 0.0  # chance that a death of theirs is recorded as survival


class SimulationConfig(Strict):
    """Raw tables drawn from a known process instead of a hospital's."""

    source: Literal["mimic3", "pic"]
    patients: PositiveInt = 1000
    seed: int = Field(default=1, ge=0)
    mix: Literal["natural", "study"] = "natural"
    detail: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the calibrated lab and drug rows that is written
    minimum_visits: PositiveInt = 1  # patients with fewer are drawn, but are in no table
    bias: BiasConfig = BiasConfig()


class SiteEntry(Strict):
    """One site of a study file: where its configuration and its tables are; the name alone of one that is elsewhere."""

    site: SiteId = Field(pattern=r"^[a-z][a-z0-9_-]{0,47}$")
    config: str | None = None  # folder with site.yaml, relative to the study file
    data: str | None = None  # folder with the raw tables, relative to the study file
    simulate: SimulationConfig | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.config is None and self.data is None and self.simulate is None:
            return self  # a hospital of its own: the file makes a plan, which `fairsynth plan` writes
        if self.config is None:
            raise ValueError("give `config`, the folder with site.yaml; or the site's name alone, if it is elsewhere")
        if (self.data is None) == (self.simulate is None):
            raise ValueError("give exactly one of `data` and `simulate`")
        return self


class StudyConfig(Strict):
    """A study file: the plan that the sites share, and where each site of a local run finds its tables."""

    schema_: Literal["fairsynth.study/1"] = Field(alias="schema")
    name: Name
    seed: int = Field(ge=0, lt=2**53)
    sites: tuple[SiteEntry, ...] = Field(min_length=1)
    quorum: PositiveInt | None = None  # default: every site
    required: tuple[SiteId, ...] = ()  # of them: without these the study stops, whatever the quorum
    groups: GroupsConfig
    task: TaskConfig = TaskConfig()
    split: SplitConfig = SplitConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    generator: GeneratorConfig = GeneratorConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    audit: AuditConfig = AuditConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    fit: FitConfig = FitConfig()  # of `fairsynth train`, which trains one site alone; no part of the plan

    @model_validator(mode="before")
    @classmethod
    def _two_sites(cls, given: Any) -> Any:
        """Two sites that say nothing of privacy get noise: of a sum of two, each can subtract its own part."""
        if not isinstance(given, Mapping) or not isinstance(given.get("sites"), list | tuple):
            return given
        privacy = PrivacyConfig.for_sites(given.get("privacy"), len(given["sites"]))
        return given if privacy is None else {**given, "privacy": privacy}

    @model_validator(mode="after")
    def _roster(self) -> Self:
        names = [entry.site for entry in self.sites]
        if len(set(names)) != len(names):
            raise ValueError("a site is named twice")
        if self.quorum is not None and self.quorum > len(names):
            raise ValueError(f"quorum {self.quorum} is larger than the number of sites, {len(names)}")
        if wrong := required_problem(self.required, roster=names, quorum=self.quorum or len(names)):
            raise ValueError(wrong)
        problem = self.privacy.problem(len(names)) or self.privacy.unbounded(self.training, self.augmentation)
        if problem:
            raise ValueError(f"privacy: {problem}")
        return self

    def plan_here(self) -> StudyPlan:
        """The plan, for trainings on one machine: nothing leaves a site there, so there is nothing that noise hides."""
        plan = self.plan()
        return plan.model_copy(update={"privacy": PrivacyConfig()}) if plan.privacy.noised else plan

    def plan(self) -> StudyPlan:
        """The part that all sites share; the roster is sorted."""
        shared = self.model_dump(by_alias=True, exclude={"schema_", "sites", "quorum", "required", "fit"})
        roster = tuple(sorted(entry.site for entry in self.sites))
        quorum, required = self.quorum or len(roster), tuple(sorted(self.required))
        return StudyPlan(**shared, roster=roster, quorum=quorum, required=required)
