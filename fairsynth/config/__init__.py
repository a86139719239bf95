"""Typed configuration: one model per file kind, read once, unknown keys refused, then passed as values.

In:  YAML files (study, site, rules, groups, consortium).   Out: frozen pydantic models, or a ConfigError that names
file, line, key, value and mend.   Never: a default that weakens privacy; a value read from the environment.
"""

from fairsynth.config.base import Fraction, Name, Pattern, Strict
from fairsynth.config.consortium import ConsortiumConfig, ConsortiumSite, ServerAddress, is_address
from fairsynth.config.fit import FitConfig
from fairsynth.config.plan import (
    MINIMUM_SITES,
    AuditConfig,
    AugmentationConfig,
    Favourable,
    GeneratorConfig,
    GroupsConfig,
    LevelsConfig,
    NoiseConfig,
    ObjectiveConfig,
    ObjectiveTerm,
    PrivacyConfig,
    SplitConfig,
    StudyPlan,
    TaskConfig,
    TrainingConfig,
    VocabularyConfig,
    Wire,
)
from fairsynth.config.reading import (
    MAXIMUM_YAML_BYTES,
    Model,
    checked,
    read_consortium,
    read_site,
    read_study,
    read_yaml,
)
from fairsynth.config.site import CohortConfig, FirstVisit, SiteConfig
from fairsynth.config.study import BiasConfig, SimulationConfig, SiteEntry, StudyConfig

__all__ = [
    "MAXIMUM_YAML_BYTES",
    "MINIMUM_SITES",
    "AuditConfig",
    "AugmentationConfig",
    "BiasConfig",
    "CohortConfig",
    "ConsortiumConfig",
    "ConsortiumSite",
    "Favourable",
    "FirstVisit",
    "FitConfig",
    "Fraction",
    "GeneratorConfig",
    "GroupsConfig",
    "LevelsConfig",
    "Model",
    "Name",
    "NoiseConfig",
    "ObjectiveConfig",
    "ObjectiveTerm",
    "Pattern",
    "PrivacyConfig",
    "ServerAddress",
    "SimulationConfig",
    "SiteConfig",
    "SiteEntry",
    "SplitConfig",
    "Strict",
    "StudyConfig",
    "StudyPlan",
    "TaskConfig",
    "TrainingConfig",
    "VocabularyConfig",
    "Wire",
    "checked",
    "is_address",
    "read_consortium",
    "read_site",
    "read_study",
    "read_yaml",
]
