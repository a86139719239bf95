"""The sensitive attribute: ordered rules from the source's own strings to the study's groups.

In:  `groups.yaml` of a site.   Out: `GroupRules`; the group of each raw string.
Never: a guess. A string that no rule matches is an error, and strings that few patients carry are not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from fairsynth.config import Pattern, Strict, read_yaml
from fairsynth.errors import CohortError, Problem
from fairsynth.schemas import Group


class GroupRule(Strict):
    """Strings (upper-cased) in which the regular expression `match` is found belong to `group`."""

    match: Pattern
    group: Group


class GroupRules(Strict):
    """`groups.yaml`: the first rule that matches wins. `attribute` is the kind of event that carries the string."""

    schema_: Literal["fairsynth.groups/1"] = Field(alias="schema")
    attribute: str = Field(default="ETHNICITY", pattern=r"^[A-Z_]+$")
    rules: tuple[GroupRule, ...] = Field(min_length=1)

    def group_of(self, raw: str) -> Group | None:
        """The group of one raw string; None when no rule matches."""
        text = raw.upper()
        return next((rule.group for rule in self.rules if re.search(rule.match, text)), None)


def read_groups(path: Path) -> GroupRules:
    """The rules at `path`. Raises ConfigError."""
    return read_yaml(path, GroupRules)


def check_known(groups: Iterable[str | None], *, names: Iterable[Group], source: Path) -> None:
    """Raise CohortError for each group of a patient that the study (`names`) does not know.

    A rule for a group that nobody at the site belongs to is no error: a source's rules outlive a study's taxonomy.
    """
    known = tuple(names)
    unknown = sorted({group for group in groups if group is not None} - set(known))
    if unknown:
        expected, do = f"one of: {', '.join(known)}", "correct the rule, or add the group to the study's `groups`"
        raise CohortError(
            Problem(what="unknown group", where=f"{source}  {group}", expected=expected, do=do) for group in unknown
        )


def assign(strings: pl.DataFrame, *, rules: GroupRules, source: Path, minimum_cell: int) -> pl.DataFrame:
    """The group of every patient.

    `strings` has columns subject_id, raw: one row a patient. Returns subject_id, raw, group.
    Raises CohortError when a string matches no rule; only strings of at least `minimum_cell` patients are shown.
    """
    counts = strings.group_by("raw").len().sort("len", "raw", descending=[True, False])
    groups = {raw: rules.group_of(raw) for raw in counts["raw"]}
    unmatched = counts.filter(pl.col("raw").is_in([raw for raw, group in groups.items() if group is None]))
    if len(unmatched):
        raise CohortError(_unmatched(unmatched, attribute=rules.attribute, source=source, minimum_cell=minimum_cell))
    mapped = counts.select("raw", pl.Series("group", [groups[raw] for raw in counts["raw"]], dtype=pl.String))
    return strings.join(mapped, on="raw", how="left")


def crossed(visits: pl.DataFrame, *, cross: Literal["none", "sex"]) -> pl.DataFrame:
    """`visits` (columns group, sex) with each patient's group as the study names it: `<group>:<sex>` if crossed.

    Sex is known of all of them: patients without one have left the cohort before (`visits_with_sex_and_birth`).
    """
    return visits if cross == "none" else visits.with_columns(pl.format("{}:{}", "group", "sex").alias("group"))


def _unmatched(unmatched: pl.DataFrame, *, attribute: str, source: Path, minimum_cell: int) -> Problem:
    common = unmatched.filter(pl.col("len") >= minimum_cell)["raw"].to_list()
    shown = f"; carried by {minimum_cell} patients or more: {', '.join(map(repr, common))}" if common else ""
    return Problem(
        what=f"{attribute} strings without a group",
        where=f"{source}  rules  ({len(unmatched)} distinct{shown})",
        expected="one rule that matches each string of the source",
        do=f"list the {attribute} column of the tables at the site, then add a rule for each missing string",
    )
