"""A share of people or of visits, as it may be shown.

In:  two counts and the minimum cell.   Out: `Part`.
Never: a count between 1 and the minimum cell, or one that leaves as few over from its total.
"""

from __future__ import annotations

from fairsynth.config import Strict
from fairsynth.governance.disclosure import Count, shown


class Part(Strict):
    """`count` of `total`; the share is None where either is hidden or bounded."""

    count: Count
    total: Count
    share: float | None

    @property
    def some(self) -> bool:
        """Whether there is at least one."""
        return self.count != 0

    def __str__(self) -> str:
        share = "" if self.share is None else f" ({self.share:.1%})"
        return f"{number(self.count)} of {number(self.total)}{share}"


def part(count: int, total: int, *, minimum: int) -> Part:
    """`count` of `total` people, so that at least minimum - 1 counts could have been printed alike.

    A small count is `<k`; one that leaves few over is bounded. Of fewer than 2 k, any part is only `≥1`: there the two
    would overlap, and tell each other apart.
    """
    printed = shown(count, minimum_cell=minimum)
    if 0 < count < total < 2 * minimum or (0 < total < minimum and count):
        printed = "≥1"
    elif 0 < total - count < minimum:
        printed = f"≥{total - minimum + 1}"
    exact = isinstance(printed, int) and not 0 < total < minimum
    share = round(count / total, 6) if exact and total else None
    return Part(count=printed, total=shown(total, minimum_cell=minimum), share=share)


def number(count: Count) -> str:
    """A count as text: `1,204`, `0`, `<11`."""
    return f"{count:,}" if isinstance(count, int) else count
