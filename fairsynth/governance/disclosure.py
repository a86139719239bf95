"""Small cells: counts that could point at a person are not printed, and are told apart from zero.

In:  a count and the study's minimum cell.   Out: text for reports.   Never: the value of a small cell.
"""

from __future__ import annotations


def shown(count: int, *, minimum_cell: int) -> str:
    """`count` as a report prints it: 0 as "0", 1 to `minimum_cell` - 1 as "<minimum_cell", else with separators."""
    if 0 < count < minimum_cell:
        return f"<{minimum_cell}"
    return f"{count:,}"
