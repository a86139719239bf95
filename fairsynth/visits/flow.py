"""The cohort flow: how many patients, visits or events each step leaves or drops, in order.

In:  counts.   Out: `Flow`, part of every result and of every CohortError.
Never: a silent drop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fairsynth.errors import CohortError, Problem


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Named counts in the order in which they were taken."""

    counts: dict[str, int] = field(default_factory=dict)

    def note(self, step: str, count: int) -> None:
        """Record one step."""
        self.counts[step] = int(count)

    def error(self, what: str, *, where: str, expected: str = "", do: str = "") -> CohortError:
        """The error that shows the whole flow: names of steps and counts, the last one that of the failure."""
        steps = " -> ".join(f"{step.replace('_', ' ')} {count:,}" for step, count in self.counts.items())
        shown = f"{expected}  (cohort flow: {steps})" if expected else f"a usable cohort  (cohort flow: {steps})"
        return CohortError(Problem(what=what, where=where, expected=shown, do=do))
