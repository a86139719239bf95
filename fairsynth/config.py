"""Typed configuration: one model per file kind, read once, unknown keys refused, then passed as values.

In:  YAML files (study, site, rules, groups).   Out: frozen pydantic models, or a ConfigError that names file, line,
key, value and mend.   Never: a default that weakens privacy; a value read from the environment.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic import ValidationError as PydanticError
from pydantic_core import ErrorDetails

from fairsynth.errors import ConfigError, Problem
from fairsynth.schemas import Group, SiteId

MAXIMUM_YAML_BYTES = 65_536
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it: ten times faster

Model = TypeVar("Model", bound=BaseModel)
Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,47}$")]


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_is_pattern)]  # a regular expression


class Strict(BaseModel):
    """Frozen, and closed to unknown keys."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


# --- the study: what all sites agree on ------------------------------------------------------------------------------


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


class TrainingConfig(Strict):
    """Federated training of the generator."""

    rounds: PositiveInt = 32
    local_epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-3  # in the first round
    final_learning_rate_share: Fraction = 0.05  # of it in the last round; a half cosine lies between
    threads: PositiveInt = 1  # torch threads at a site; fixed, because CPU sums depend on it
    round_deadline_seconds: PositiveInt = 900


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


# --- one site --------------------------------------------------------------------------------------------------------


class BiasConfig(Strict):
    """The simulator's bias knobs, see docs/simulator.md; the defaults add nothing to the calibrated process."""

    under_representation: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of non-reference patients left out
    under_documentation: Annotated[float, Field(ge=0, lt=1)] = 0.0  # chance that a non-reference patient's code is lost
    outcome_shift: Annotated[float, Field(ge=0, le=1)] = 0.0  # how far the non-reference outcome model is rotated
    label_noise: Annotated[float, Field(ge=0, lt=0.5)] = (
        0.0  # chance that a non-reference death is recorded as survival
    )


class SimulationConfig(Strict):
    """Raw tables drawn from a known process instead of a hospital's."""

    source: Literal["mimic3", "pic"]
    patients: PositiveInt = 1000
    seed: int = Field(default=1, ge=0)
    mix: Literal["natural", "study"] = "natural"
    detail: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the calibrated lab and drug rows that is written
    bias: BiasConfig = BiasConfig()


class SiteEntry(Strict):
    """One site of a study file: where its configuration and its tables are."""

    site: SiteId = Field(pattern=r"^[a-z][a-z0-9_-]{0,47}$")
    config: str  # folder with site.yaml, relative to the study file
    data: str | None = None  # folder with the raw tables, relative to the study file
    simulate: SimulationConfig | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
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
    groups: GroupsConfig
    task: TaskConfig = TaskConfig()
    split: SplitConfig = SplitConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    generator: GeneratorConfig = GeneratorConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    audit: AuditConfig = AuditConfig()

    @model_validator(mode="after")
    def _roster(self) -> Self:
        names = [entry.site for entry in self.sites]
        if len(set(names)) != len(names):
            raise ValueError("a site is named twice")
        if self.quorum is not None and self.quorum > len(names):
            raise ValueError(f"quorum {self.quorum} is larger than the number of sites, {len(names)}")
        return self

    def plan(self) -> StudyPlan:
        """The part that all sites share; the roster is sorted."""
        shared = self.model_dump(by_alias=True, exclude={"schema_", "sites", "quorum"})
        roster = tuple(sorted(entry.site for entry in self.sites))
        return StudyPlan(**shared, roster=roster, quorum=self.quorum or len(roster))


class CohortConfig(Strict):
    """Which of a site's patients and visits enter."""

    minimum_age_years: NonNegativeFloat = 0.0
    maximum_age_years: PositiveFloat = 120.0
    minimum_visits: PositiveInt = 1
    require_unit: tuple[str, ...] = ()  # keep visits with a stay in one of these care units; empty: any visit
    exclude_codes: tuple[str, ...] = ()  # event-code prefixes left out, e.g. codes that give the outcome away


class FirstVisit(Strict):
    """Which patients of a source are this site's, where several sites are made of one source: those whose first visit
    has one of `cells` ("" for an empty one) in `column` of the visits table."""

    column: str
    cells: tuple[str, ...] = Field(min_length=1)


class SiteConfig(Strict):
    """`site.yaml`: one source of data."""

    schema_: Literal["fairsynth.site/1"] = Field(alias="schema")
    source: Name
    description: str = ""
    layout: Literal["tables", "meds"] = "tables"  # the source's own tables, or a MEDS data set
    rules: str = "rules.yaml"
    groups: str = "groups.yaml"
    cohort: CohortConfig = CohortConfig()
    first_visit: FirstVisit | None = None  # None: every patient of the source
    maximum_dropped_share: Annotated[float, Field(ge=0, le=1)] = 0.0  # of rows whose patient or visit is unknown
    maximum_unreadable_share: Annotated[float, Field(ge=0, le=1)] = 0.0  # of rows with a cell that does not parse


# --- reading ---------------------------------------------------------------------------------------------------------


def read_study(path: Path) -> StudyConfig:
    """The study file at `path`. Raises ConfigError."""
    return read_yaml(path, StudyConfig)


def read_site(folder: Path) -> SiteConfig:
    """The site configuration in `folder/site.yaml`. Raises ConfigError."""
    return read_yaml(folder / "site.yaml", SiteConfig)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """The YAML file at `path` as `model`; every problem of the file in one ConfigError."""
    root = _compose(path)
    lines = dict(_key_lines(root, (), path=path))
    try:
        value = None if root is None else yaml.constructor.SafeConstructor().construct_document(root)
    except (yaml.YAMLError, ValueError):  # ValueError: a date such as 2020-13-45
        raise ConfigError.of("not valid YAML", where=str(path), expected="dates that exist, no tags") from None
    if not isinstance(value, dict):
        raise ConfigError.of("not a mapping", where=str(path), expected=f"the keys of {model.__name__}")
    try:
        return model.model_validate(value)
    except PydanticError as error:
        raise ConfigError(_problem(path, lines, model, detail) for detail in error.errors()) from None


def checked(model: type[Model], values: dict[str, Any], *, where: str) -> Model:
    """`values` as `model`, for options of the command line; every problem in one ConfigError that names `where`."""
    try:
        return model.model_validate(values)
    except PydanticError as error:
        raise ConfigError(_problem(Path(where), {}, model, detail) for detail in error.errors()) from None


def _compose(path: Path) -> yaml.Node | None:
    """The file's node tree, after the checks that `safe_load` does not make."""
    if not path.is_file():
        raise ConfigError.of("missing file", where=str(path), do="check the path")
    if path.stat().st_size > MAXIMUM_YAML_BYTES:
        raise ConfigError.of("file too large", where=str(path), expected=f"at most {MAXIMUM_YAML_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError.of(
                    "YAML alias", where=f"{path}", expected="no aliases", do=f"write *{event.anchor} out"
                )
        return yaml.compose(text, Loader=_LOADER)
    except UnicodeDecodeError:
        raise ConfigError.of("not UTF-8", where=str(path), do="save the file as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError.of("not valid YAML", where=where, expected=str(getattr(error, "problem", ""))) from None


def _key_lines(
    node: yaml.Node | None, prefix: tuple[str | int, ...], *, path: Path
) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """(key path, line number) of every key and list item; raises ConfigError on a duplicate key."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError.of("key is not a word", where=f"{path}:{line}", expected="`key: value`")
            if key.value in seen:
                key_path = ".".join(map(str, (*prefix, key.value)))
                raise ConfigError.of("duplicate key", where=f"{path}:{line}  {key_path}", do="keep one of them")
            seen.add(key.value)
            yield (*prefix, key.value), line
            yield from _key_lines(value, (*prefix, key.value), path=path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*prefix, index), value.start_mark.line + 1
            yield from _key_lines(value, (*prefix, index), path=path)


def _problem(
    path: Path, lines: dict[tuple[str | int, ...], int], model: type[BaseModel], detail: ErrorDetails
) -> Problem:
    """One pydantic error as a Problem with the line of the nearest key."""
    location = tuple(part for part in detail["loc"])
    near = location
    while near and near not in lines:
        near = near[:-1]
    where = f"{path}:{lines[near]}" if near else str(path)
    key = ".".join(str(part) for part in location) or "(top level)"
    if detail["type"] == "extra_forbidden":
        known = _field_names(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        do = f"did you mean {close[0]!r}?" if close else "remove it"
        return Problem(what="unknown key", where=f"{where}  {key}", expected=f"one of: {', '.join(known)}", do=do)
    if detail["type"] == "missing":
        return Problem(what="missing key", where=f"{where}  {key}", do=f"add `{location[-1]}:`")
    return Problem(what="bad value", where=f"{where}  {key} -> {_shown(detail['input'])}", expected=detail["msg"])


def _field_names(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys that the model at `location` knows."""
    current: Any = model
    for part in location:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
        field = current.model_fields.get(str(part))
        if field is None:  # an index into a list: the element type is already `current`
            continue
        current = _inner_model(field.annotation)
    if not (isinstance(current, type) and issubclass(current, BaseModel)):
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _inner_model(annotation: Any) -> Any:
    """The model inside `X | None`, `tuple[X, ...]`, ..."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (inner := _inner_model(argument)) is not None:
            return inner
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
