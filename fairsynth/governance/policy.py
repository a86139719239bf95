"""`policy.yaml`: what may leave a site, as the site itself wrote it down.

In:  the site's configuration folder.   Out: `SitePolicy`, or a refusal that says how to write one.
Never: a default where a site has no policy; a rule that a server or a plan may change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from fairsynth import artefacts
from fairsynth.config import Fraction, Strict, StudyPlan, read_site, read_yaml
from fairsynth.errors import ConfigError, PolicyMissing, Problem
from fairsynth.governance.array_rules import ArrayRule
from fairsynth.governance.field_rules import FieldRule

NAME = "policy.yaml"
TEMPLATE = Path(__file__).with_name(NAME)

Switch = Literal["allowed", "refused"]


class MessageRule(Strict):
    """What one kind of message may hold, and how often it may leave."""

    at_most: PositiveInt  # new messages of one study since it was approved
    most_bytes: PositiveInt  # of one message, fields and arrays
    fields: dict[str, FieldRule]
    arrays: tuple[ArrayRule, ...] = ()

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        for rule in self.arrays:
            if rule.masked != "required" and rule.values is None:
                raise ValueError(f"array {rule.name!r} may be unmasked: it needs bounds, `values`")
        return self


class SitePolicy(Strict):
    """`policy.yaml`."""

    schema_: Literal["fairsynth.policy/1"] = Field(alias="schema")
    minimum_sites: PositiveInt = 3
    two_site_studies: Switch = "refused"
    minimum_contributing: PositiveInt = 3
    minimum_group: PositiveInt = 11
    unmasked_records: Switch = "refused"
    teacher: Switch = "refused"
    minimum_cell: PositiveInt = 11
    epsilon_budget: PositiveFloat | None = None
    delta: Fraction = 1e-6
    most_bytes_per_study: PositiveInt
    messages: dict[str, MessageRule]

    @property
    def sha256(self) -> str:
        """The hash that approvals name: of what the policy says, not of its comments."""
        return artefacts.sha256_json(self.model_dump(mode="json", by_alias=True))

    def study_problems(self, plan: StudyPlan) -> Iterator[Problem]:
        """What of a plan the site does not agree to."""
        sites, least = len(plan.roster), self.minimum_sites
        privacy = plan.privacy
        if self.two_site_studies == "allowed" or privacy.noised:  # noise protects from the other site too
            least = min(least, 2)
        if sites < least:
            yield _problem(f"a study of {sites} sites", "plan  roster", f"at least {least} sites")
        elif plan.quorum < least:
            yield _problem(f"a study that goes on with {plan.quorum} sites", "plan  quorum", f"at least {least}")
        if privacy.noised:
            yield from self._budget_problems(plan)
        elif privacy.masked and privacy.minimum_contributing < self.minimum_contributing:
            expected = f"at least {self.minimum_contributing}"
            yield _problem("sums over groups of too few sites", "plan  privacy.minimum_contributing", expected)
        if privacy.masked and privacy.minimum_group < self.minimum_group:
            expected = f"at least {self.minimum_group}"
            yield _problem("sums over groups of too few patients", "plan  privacy.minimum_group", expected)
        if not plan.privacy.masked and self.unmasked_records == "refused":
            expected = "exact or noise"
            yield _problem("a study that shows the server each site's own numbers", "plan  privacy.profile", expected)
        if plan.augmentation.candidates == "taught" and self.teacher == "refused":
            yield _problem("a study with a teacher", "plan  augmentation.candidates", "none: the policy refuses it")
        if plan.vocabulary.minimum_patients < self.minimum_cell:
            yield _problem(
                "codes of too few patients",
                "plan  vocabulary.minimum_patients",
                f"at least the policy's minimum cell, {self.minimum_cell}",
            )

    def _budget_problems(self, plan: StudyPlan) -> Iterator[Problem]:
        """What of a plan with noise the site's privacy budget does not allow."""
        privacy, budget = plan.privacy, self.epsilon_budget
        if budget is None:
            yield _problem("a study with noise, and no privacy budget", "policy  epsilon_budget", "a number, e.g. 3.0")
        elif privacy.epsilon > budget:
            yield _problem("a study that spends too much privacy", "plan  privacy.epsilon", f"at most {budget:g}")
        if privacy.delta > self.delta:
            yield _problem("a study whose bound may fail too often", "plan  privacy.delta", f"at most {self.delta:g}")


def read_policy(config: Path) -> SitePolicy:
    """The policy that `config/site.yaml` names. Raises PolicyMissing when there is none, ConfigError."""
    path = policy_path(config)
    if not path.is_file():
        raise PolicyMissing.of(
            "no policy: nothing may leave this site",
            where=str(path),
            expected="the site's own allow-list (docs/egress.md)",
            do=f"fairsynth policy init {config}, read the file, then fairsynth approve",
        )
    return read_yaml(path, SitePolicy)


def policy_path(config: Path) -> Path:
    """Where `config/site.yaml` says that the policy is. Raises ConfigError."""
    return config / read_site(config).policy


def write_policy(path: Path) -> None:
    """Write the strict default policy to `path`. Raises ConfigError when one is there."""
    if path.exists():
        raise ConfigError.of("a policy is there already", where=str(path), do="change that one, or remove it first")
    artefacts.write_text(path, TEMPLATE.read_text(encoding="utf-8"))


def sizes_of(plan: StudyPlan) -> dict[str, int]:
    """The lengths that a plan fixes, by their letters in `shape`."""
    return {
        "groups": len(plan.groups.names),
        "predictors": len(plan.audit.predictors),
        "seeds": plan.audit.seeds,
    }


def _problem(what: str, where: str, expected: str) -> Problem:
    return Problem(what=what, where=where, expected=expected, do="another plan, or another policy: both are decisions")
