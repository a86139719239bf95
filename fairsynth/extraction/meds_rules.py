"""`rules.yaml` of a MEDS data set: how its codes become ours, and where its visits are.

In:  YAML (`schema: fairsynth.meds/1`).   Out: `MedsRules`, frozen and checked; the names of each code.
Never: data.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from fairsynth.config import Pattern, Strict


class Renamed(NamedTuple):
    """What an event is called here, and the unit that its code named (None: the unit column has it, if any)."""

    code: str
    unit: str | None


class CodeRule(Strict):
    """Codes that the expression `match` fits as a whole become `to`, in which {1}, {2}, ... are its groups.

    A code may become several (a discharge that tells a death), or none (`to: []`): then its events are left out.
    """

    match: Pattern
    to: str | tuple[str, ...]
    unit: str | None = None  # e.g. "{2}" where the code ends in the unit

    @model_validator(mode="after")
    def _groups_exist(self) -> Self:
        groups = self.pattern.groups
        for text in (*self.targets, self.unit or ""):
            for number in re.findall(r"\{([^{}]*)\}", text):
                if not number.isdigit() or not 1 <= int(number) <= groups:
                    raise ValueError(f"{{{number}}} is not one of the {groups} groups of `match`")
        return self

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """`match`, compiled."""
        return re.compile(self.match)

    @property
    def targets(self) -> tuple[str, ...]:
        """The templates of the codes that come of it."""
        return (self.to,) if isinstance(self.to, str) else self.to

    def rename(self, code: str) -> tuple[Renamed, ...] | None:
        """What `code` becomes; None when the rule does not fit it."""
        found = self.pattern.fullmatch(code)
        if found is None:
            return None
        unit = None if self.unit is None else _filled(self.unit, found)
        return tuple(Renamed(code=_filled(text, found), unit=unit) for text in self.targets)


def _filled(text: str, found: re.Match[str]) -> str:
    return re.sub(r"\{(\d+)\}", lambda number: found[int(number[1])] or "", text)


class MedsRules(Strict):
    """`rules.yaml` of a MEDS data set."""

    schema_: Literal["fairsynth.meds/1"] = Field(alias="schema")
    visit: str | None = "visit_id"  # the column with the visit's number; where it is absent, visits are told by codes
    unit: str | None = "unit"  # the column with the unit of numeric_value, where there is one
    codes: tuple[CodeRule, ...] = ()  # the first that fits; a code that none fits stays as it is
    parents: dict[str, str | tuple[str, ...]] = {}  # our code -> its name in a standard vocabulary

    def rename(self, code: str) -> tuple[Renamed, ...]:
        """What the events of `code` become: one or more codes of ours, or none."""
        for rule in self.codes:
            if (found := rule.rename(code)) is not None:
                return found
        return (Renamed(code=code, unit=None),)
