"""What a check found: a name, a state, what is so, and what to do about it.

In:  nothing.   Out: `Finding`, and the four ways to make one.
Never: a patient's value or identifier; a private key or a secret, in part or whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fairsynth.errors import FairSynthError, faults

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of what `fairsynth doctor` tells."""

    name: str
    state: State
    said: str
    do: str = ""

    @property
    def good(self) -> bool:
        """Whether checks that build on this one can be made."""
        return self.state in ("ok", "warning")


def ok(name: str, said: str, *, do: str = "") -> Finding:
    """As it should be."""
    return Finding(name=name, state="ok", said=said, do=do)


def warning(name: str, said: str, *, do: str) -> Finding:
    """A study can run, but not for ever, or not as safely as it should."""
    return Finding(name=name, state="warning", said=said, do=do)


def failed(name: str, said: str, *, do: str) -> Finding:
    """No study can run, or none should."""
    return Finding(name=name, state="failed", said=said, do=do)


def skipped(name: str, because: str) -> Finding:
    """Not checked, and why."""
    return Finding(name=name, state="skipped", said=because)


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """What `check` finds; where it fails itself, that is a finding too, without the error's text."""
    try:
        return check()
    except FairSynthError as error:
        return refused(name, error)
    except OSError as error:
        do = "check that this user may read the site's folder, its configuration and its tables"
        return failed(name, f"could not be checked: {os.strerror(error.errno or 0)}", do=do)
    except faults() as error:  # a library's text may hold a value: type only
        do = "report it; on data that may be shown, FAIRSYNTH_DEBUG=1 and the command of that check tell more"
        return failed(name, f"could not be checked: unforeseen {type(error).__name__}", do=do)


def refused(name: str, error: FairSynthError) -> Finding:
    """A failure that one of the library's own doors tells: its first problem, and how many more there are."""
    first, more = error.problems[0], len(error.problems) - 1
    said = f"{error.code} {first.what}: {first.where}" + (f", and {more} more" if more else "")
    expected = f"expected {first.expected}" if first.expected else ""
    do = first.do or f"see {first.where}"
    return failed(name, f"{said}; {expected}" if expected else said, do=do)
