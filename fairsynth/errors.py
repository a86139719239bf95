"""One exception tree, with codes.

In:  problems found at a door (file read, config read, message received, artefact loaded).
Out: one message an operator can act on: what, where, what was expected, what to do.
Never: a patient's value or identifier in a message. Only `code` may leave a site.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong, told in four parts. No field may hold a patient's value."""

    what: str
    where: str
    expected: str = ""
    do: str = ""

    def __str__(self) -> str:
        lines = [f"{self.what}: {self.where}"]
        if self.expected:
            lines.append(f"  expected {self.expected}")
        if self.do:
            lines.append(f"  do: {self.do}")
        return "\n".join(lines)


class FairSynthError(Exception):
    """Base of every error that FairSynth raises on purpose; the command line exits with `exit_code`."""

    code: ClassVar[str] = "FS-000"
    exit_code: ClassVar[int] = 2

    def __init__(self, problems: Iterable[Problem] | Problem) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(f"{self.code} {problem}" for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is made, so that it comes out of another process whole."""
        return type(self), (self.problems,)

    @classmethod
    def of(cls, what: str, *, where: str, expected: str = "", do: str = "") -> Self:
        """The error for a single problem."""
        return cls(Problem(what=what, where=where, expected=expected, do=do))


class SeveralErrors(FairSynthError):
    """Errors of more than one kind that were found in one pass; each problem keeps its own code in the message."""

    def __init__(self, errors: Iterable[FairSynthError]) -> None:
        self.errors = tuple(errors)
        super().__init__(problem for error in self.errors for problem in error.problems)
        self.args = ("\n".join(str(error) for error in self.errors),)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errors,)


def combined(errors: Iterable[FairSynthError]) -> FairSynthError:
    """One error for `errors`, of which there is at least one."""
    first, *rest = errors
    return SeveralErrors((first, *rest)) if rest else first


class ConfigError(FairSynthError):
    """A study, site or rules file is wrong (FS-1xx)."""

    code = "FS-100"


class ExtractionError(FairSynthError):
    """A site's raw tables do not fit its rules (FS-2xx)."""

    code = "FS-200"


class CohortError(FairSynthError):
    """The events give no usable cohort: empty, no positives, an unknown group (FS-25x)."""

    code = "FS-250"


class ProtocolError(FairSynthError):
    """A message between server and site is refused (FS-3xx)."""

    code = "FS-300"


class PolicyRefusal(FairSynthError):
    """The site's own policy forbids what was asked (FS-4xx)."""

    code = "FS-400"


class PolicyMissing(PolicyRefusal):
    """The site has no policy file, so nothing may leave it."""

    code = "FS-401"


class NotApproved(PolicyRefusal):
    """The site has not approved this study, with this plan, this policy and this cohort."""

    code = "FS-402"


class EgressRefused(PolicyRefusal):
    """What was to leave the site is not on its policy's allow-list."""

    code = "FS-403"


class LedgerDamaged(PolicyRefusal):
    """The site's ledger is not what was written, so nothing more may leave."""

    code = "FS-404"


class KeyRefused(PolicyRefusal):
    """The site's identity key is missing, readable by others, or not the one that signed."""

    code = "FS-405"


class ProvisioningRefused(PolicyRefusal):
    """A kit, request or grant is altered, of another site or consortium, or not signed by who should have."""

    code = "FS-406"


class StateRestored(PolicyRefusal):
    """The site's folder came out of a backup: what this study was told since then is not known here."""

    code = "FS-407"


class ReleaseBlocked(FairSynthError):
    """Synthetic data may not leave the site (FS-5xx)."""

    code = "FS-500"


class ArtefactError(FairSynthError):
    """A stored artefact is missing, incomplete or of another schema (FS-6xx)."""

    code = "FS-600"


class EngineError(FairSynthError):
    """Flower could not be started or a run did not complete (FS-7xx); the fault is in the machine, not in the input."""

    code = "FS-700"
    exit_code = 3


def faults() -> tuple[type[BaseException], ...]:
    """What `except` takes for a fault of the program: any exception, and a panic of polars, which is no `Exception`.

    Only code that has loaded polars panics; who has not is spared the import.
    """
    polars = sys.modules.get("polars.exceptions")
    return (Exception,) if polars is None else (Exception, polars.PanicException)
