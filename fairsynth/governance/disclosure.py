"""Small cells: counts that could point at a person are not printed, and are told apart from zero.

In:  a count and the study's minimum cell.   Out: what may be printed of it.   Never: the value of a small cell.
"""

from __future__ import annotations

Count = int | str  # a number of patients, or "<11" where it is above 0 and below the minimum cell


def shown(count: int, *, minimum_cell: int) -> Count:
    """`count`, or "<k" where it is above 0 and below the minimum cell k; zero stays 0."""
    return f"<{minimum_cell}" if 0 < count < minimum_cell else count
