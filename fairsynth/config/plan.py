"""The plan of a study: what all its sites agree on.

In:  the shared part of a study file.   Out: frozen models.   Never: a path, or anything of one site alone.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from fairsynth.config.base import Fraction, Name, Strict
from fairsynth.schemas import Group, SiteId


class TaskConfig(Strict):
    """What the downstream model predicts, and from what."""

    name: str = "in_hospital_mortality"
    observation_hours: PositiveInt = 48  # of the index visit, where the task predicts inside a visit


class SplitConfig(Strict):
    """Shares of patients; a patient is in one split only."""

    train: Fraction = 0.8
    validation: Fraction = 0.1
    held_out: Fraction = 0.1

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if abs(self.train + self.validation + self.held_out - 1) > 1e-9:
            raise ValueError("train + validation + held_out must be 1")
        return self


class GroupsConfig(Strict):
    """The taxonomy of the sensitive attribute, in a fixed order, and the groups that the others are compared to."""

    names: tuple[Group, ...] = Field(min_length=2)
    reference: tuple[Group, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError("a group is named twice")
        if unknown := [group for group in self.reference if group not in self.names]:
            raise ValueError(f"reference group {unknown[0]!r} is not among `names`")
        if len(set(self.reference)) == len(self.names):
            raise ValueError("at least one group must not be a reference group")
        return self


class LevelsConfig(Strict):
    """How far codes are rolled up; sites with different code systems meet at the first of each (docs/cohort.md)."""

    diagnoses: Literal["ccs", "category", "source"] = "ccs"
    procedures: Literal["class", "category", "source"] = "class"
    drugs: Literal["generic", "source"] = "generic"


class VocabularyConfig(Strict):
    """Which codes become tokens."""

    levels: LevelsConfig = LevelsConfig()
    minimum_patients: PositiveInt = 11  # a code that fewer training patients of a site carry never leaves it
    maximum_codes: PositiveInt = 4000
    phenotypes: bool = True  # the 25 CCS groups of the MIMIC benchmark, in the label visit


class ObjectiveConfig(Strict):
    """The fairness objective in the generator's loss (docs/architecture.md)."""

    name: str = "disparate_impact"  # an entry point of `fairsynth.objectives`
    target: Literal["codes", "label"] = "codes"
    comparison: Literal["pooled", "mean", "max"] = "pooled"
    weight: NonNegativeFloat = Field(default=1.2, alias="lambda")
    maximum_coefficient: PositiveFloat = 1.0  # bound on |n * c_g|; reached values are reported


class GeneratorConfig(Strict):
    """HALO's size."""

    embedding: PositiveInt = 128
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    maximum_visits: PositiveInt = 48

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.embedding % self.heads:
            raise ValueError("embedding must be a multiple of heads")
        return self


Wire = Literal["float32", "bfloat16"]  # how weights and moments travel in a round


class TrainingConfig(Strict):
    """Federated training of the generator."""

    rounds: PositiveInt = 32
    local_epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-3  # in the first round
    final_learning_rate_share: Fraction = 0.05  # of it in the last round; a half cosine lies between
    threads: PositiveInt = 1  # torch threads at a site; fixed, because CPU sums depend on it
    round_deadline_seconds: PositiveInt = 900
    wire: Wire = "float32"  # bfloat16 halves the bytes of a round: docs/federation.md


class AugmentationConfig(Strict):
    """How many synthetic patients each site adds to its real ones."""

    synthetic_patients: PositiveInt = 2500
    plan: Literal["equal_rates", "equal_cells"] = "equal_rates"  # which patients they are: docs/augmentation.md


class AuditConfig(Strict):
    """How the four approaches are compared."""

    predictors: tuple[str, ...] = ("transformer", "logistic_regression")
    seeds: PositiveInt = 5
    epochs: PositiveInt = 1  # of the transformer (paper, appendix E)
    minimum_positives: PositiveInt = 11  # a group with fewer held-out positives is reported as INSUFFICIENT
    minimum_cell: PositiveInt = 11  # printed counts below it are suppressed
    bootstrap_replicates: PositiveInt = 1000
    confidence: Fraction = 0.95


class StudyPlan(Strict):
    """What every site of a study agrees on: no path, nothing of one site alone. Its hash names the study."""

    schema_: Literal["fairsynth.plan/1"] = Field(default="fairsynth.plan/1", alias="schema")
    name: Name
    seed: int = Field(ge=0, lt=2**53)
    roster: tuple[SiteId, ...] = Field(min_length=1)
    quorum: PositiveInt
    task: TaskConfig
    split: SplitConfig
    groups: GroupsConfig
    vocabulary: VocabularyConfig
    objective: ObjectiveConfig
    generator: GeneratorConfig
    training: TrainingConfig
    augmentation: AugmentationConfig
    audit: AuditConfig
