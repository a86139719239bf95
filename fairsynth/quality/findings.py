"""One line of the verdict: how grave, what, where, what to do.

In:  what a check of this package found.   Out: `Finding`.
Never: a patient's value or identifier; a count of people between 1 and the minimum cell.
"""

from __future__ import annotations

from typing import Literal

from fairsynth.config import Strict
from fairsynth.errors import FairSynthError

Level = Literal["error", "warning", "note"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")


class Finding(Strict):
    """Errors must be mended before a study; warnings are to be read and decided on; notes inform."""

    level: Level
    what: str
    where: str
    do: str = ""


def error(what: str, *, where: str, do: str = "") -> Finding:
    """A finding that must be mended."""
    return Finding(level="error", what=what, where=where, do=do)


def warning(what: str, *, where: str, do: str = "") -> Finding:
    """A finding that a person decides on."""
    return Finding(level="warning", what=what, where=where, do=do)


def note(what: str, *, where: str, do: str = "") -> Finding:
    """A finding that informs."""
    return Finding(level="note", what=what, where=where, do=do)


def errors_of(raised: FairSynthError) -> list[Finding]:
    """The problems of an error that a later step raised, as findings."""
    return [
        error(f"{raised.code} {problem.what}", where=problem.where, do=_mend(problem.expected, problem.do))
        for problem in raised.problems
    ]


def _mend(expected: str, do: str) -> str:
    return "; ".join(part for part in (f"expected {expected}" if expected else "", do) if part)
