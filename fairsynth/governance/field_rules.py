"""What one JSON field of a message may hold: the rules of a policy's `fields`.

In:  a rule of the policy, the value that is to leave.   Out: what is wrong with it, in words of the rule.
Never: the value itself in a problem, nor a key that the policy does not name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from fairsynth.config import Pattern, Strict

MAXIMUM_COUNT = 2**53  # what JSON numbers hold exactly
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_./*]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What fields are compared with."""

    site: str
    study: str  # SHA-256 of the plan; empty where the request named none
    cohort: str  # hash of the site's events
    minimum_cell: int


class _Rule(Strict):
    """`public: true`: the same at every site, or agreed on, so that it tells nothing of this site's patients. All else
    leaves only where the policy says `unmasked_records: allowed`."""

    public: bool = False


class SiteRule(_Rule):
    """The site's own name."""

    kind: Literal["site"]


class StudyRule(_Rule):
    """The hash of the approved plan."""

    kind: Literal["study"]


class CohortRule(_Rule):
    """The hash of the site's events."""

    kind: Literal["cohort"]


class HashRule(_Rule):
    """A SHA-256 of something, 64 hexadecimal digits."""

    kind: Literal["sha256"]


class FlagRule(_Rule):
    """True or false."""

    kind: Literal["flag"]


class CountRule(_Rule):
    """A whole number."""

    kind: Literal["count"]
    least: NonNegativeInt = 0
    most: NonNegativeInt = MAXIMUM_COUNT


class NumberRule(_Rule):
    """A finite number."""

    kind: Literal["number"]
    least: float = -1e300
    most: float = 1e300
    nullable: bool = False


class WordRule(_Rule):
    """A word that matches a pattern from its first character to its last."""

    kind: Literal["word"]
    pattern: Pattern


class WordsRule(_Rule):
    """A list of such words."""

    kind: Literal["words"]
    pattern: Pattern
    at_most: PositiveInt


class CountsRule(_Rule):
    """Names with a whole number each. `minimum_cell`: none below the policy's minimum cell."""

    kind: Literal["counts"]
    pattern: Pattern
    at_most: PositiveInt
    most: NonNegativeInt = MAXIMUM_COUNT
    minimum_cell: bool = False


class RecordRule(_Rule):
    """An object with exactly these fields."""

    kind: Literal["record"]
    fields: dict[str, FieldRule]


class RecordsRule(_Rule):
    """A list of such objects."""

    kind: Literal["records"]
    at_most: PositiveInt
    fields: dict[str, FieldRule]


FieldRule = Annotated[
    SiteRule
    | StudyRule
    | CohortRule
    | HashRule
    | FlagRule
    | CountRule
    | NumberRule
    | WordRule
    | WordsRule
    | CountsRule
    | RecordRule
    | RecordsRule,
    Field(discriminator="kind"),
]
RecordRule.model_rebuild()
RecordsRule.model_rebuild()


def wrong_fields(
    rules: Mapping[str, FieldRule], fields: Mapping[str, Any], *, where: str, expected: Expected
) -> Iterator[tuple[str, str]]:
    """(where, rule) of every field that is missing, extra, or not as its rule says."""
    for name in sorted(set(rules) - set(fields)):
        yield f"{where}.{name}", "a field that is there"
    for name in sorted(set(fields) - set(rules)):
        yield f"{where}.{named(name)}", "no field beyond those of the policy"
    for name in sorted(set(fields) & set(rules)):
        yield from wrong_value(rules[name], fields[name], where=f"{where}.{name}", expected=expected)


def wrong_value(rule: FieldRule, value: Any, *, where: str, expected: Expected) -> Iterator[tuple[str, str]]:
    """(where, rule) if `value` is not as `rule` says."""
    match rule:
        case RecordRule():
            if not isinstance(value, Mapping):
                yield where, "an object"
            else:
                yield from wrong_fields(rule.fields, value, where=where, expected=expected)
        case RecordsRule():
            if not isinstance(value, list) or len(value) > rule.at_most:
                yield where, f"a list of at most {rule.at_most}"
            else:
                for item in value:
                    item_rule = RecordRule(kind="record", fields=rule.fields)
                    yield from wrong_value(item_rule, item, where=f"{where}[]", expected=expected)
        case _:
            text = _wish(rule, expected)
            if not _fits(rule, value, expected):
                yield where, text


def named(name: object) -> str:
    """A name as a problem may show it: one that could be anything else than a name of ours is not shown."""
    return name if isinstance(name, str) and _PLAIN_NAME.fullmatch(name) else "(a name that is no plain word)"


def _fits(rule: FieldRule, value: Any, expected: Expected) -> bool:
    """Whether a value without parts is as its rule says."""
    match rule:
        case SiteRule():
            return bool(value == expected.site)
        case StudyRule():
            return bool(value == expected.study) and bool(expected.study)
        case CohortRule():
            return bool(value == expected.cohort) and bool(expected.cohort)
        case HashRule():
            return isinstance(value, str) and _SHA256.fullmatch(value) is not None
        case FlagRule():
            return isinstance(value, bool)
        case CountRule():
            return _is_count(value) and rule.least <= value <= rule.most
        case NumberRule():
            return (rule.nullable and value is None) or (_is_finite(value) and rule.least <= value <= rule.most)
        case WordRule():
            return _is_word(value, rule.pattern)
        case WordsRule():
            return (
                isinstance(value, list)
                and len(value) <= rule.at_most
                and all(_is_word(one, rule.pattern) for one in value)
            )
        case CountsRule():
            least = expected.minimum_cell if rule.minimum_cell else 0
            return (
                isinstance(value, Mapping)
                and len(value) <= rule.at_most
                and all(_is_word(name, rule.pattern) for name in value)
                and all(_is_count(count) and least <= count <= rule.most for count in value.values())
            )
    return False


def _wish(rule: FieldRule, expected: Expected) -> str:
    """The rule in words."""
    match rule:
        case SiteRule():
            return "the site's own name"
        case StudyRule():
            return "the approved plan's hash"
        case CohortRule():
            return "the hash of the site's events"
        case CountRule() | NumberRule():
            return f"a {rule.kind} from {rule.least:g} to {rule.most:g}"
        case WordsRule():
            return f"at most {rule.at_most} words like {rule.pattern}"
        case WordRule():
            return f"a word like {rule.pattern}"
        case CountsRule():
            least = expected.minimum_cell if rule.minimum_cell else 0
            return f"at most {rule.at_most} names like {rule.pattern}, each with a count from {least} to {rule.most}"
        case _:
            return f"a {rule.kind}"


def _is_word(value: Any, pattern: str) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
