"""Which counts of people may be printed side by side, so that no hidden one can be computed from the others.

In:  counts by group, small ones already hidden.   Out: counts as they are printed.
Never: a count between 1 and the minimum cell, in clear or by subtraction from a printed total.

Three rules. A small count is printed as `<k`. Where the patients without the outcome are few, the number with it is
only bounded (`≥k`; of fewer than 2 k patients, `≥1`). Column totals are printed, so the hidden counts of a column must
be at least two and add up to at least k: where they do not, the smallest other count is bounded too. Over all sites, a
group is bounded as soon as one site hides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairsynth.governance.disclosure import Count, shown
from fairsynth.schemas import IntArray


@dataclass(frozen=True, kw_only=True)
class Members:
    """Patients and positives of every group, as printed."""

    patients: tuple[Count, ...]
    positives: tuple[Count, ...]


def members(cells: IntArray, *, minimum: int) -> Members:
    """The printed counts of (G, 2) patients by group and label."""
    return guarded(
        [shown(int(row.sum()), minimum_cell=minimum) for row in cells],
        [shown(int(row[1]), minimum_cell=minimum) for row in cells],
        totals=(int(cells.sum()), int(cells[:, 1].sum())),
        minimum=minimum,
    )


def guarded(
    patients: Sequence[Count], positives: Sequence[Count], *, totals: tuple[Count, Count], minimum: int
) -> Members:
    """Patients and positives by group, with everything bounded that would give a hidden count away."""
    bounded = [_positives(n, p, minimum) for n, p in zip(patients, positives, strict=True)]
    return Members(
        patients=_complement(patients, totals[0], minimum), positives=_complement(bounded, totals[1], minimum)
    )


def pooled(everyone: Members, sites: Sequence[Members], *, totals: tuple[Count, Count], minimum: int) -> Members:
    """The counts over all sites: a group that a site hides is bounded by what the other sites show."""
    patients = [_bounded(n, [site.patients[g] for site in sites], minimum) for g, n in enumerate(everyone.patients)]
    positives = [_bounded(n, [site.positives[g] for site in sites], minimum) for g, n in enumerate(everyone.positives)]
    return Members(
        patients=_complement(patients, totals[0], minimum), positives=_complement(positives, totals[1], minimum)
    )


def _positives(patients: Count, positives: Count, minimum: int) -> Count:
    """The positives, bounded where patients - positives would be a small count.

    Of fewer than 2 k patients any part is only `≥1`: `<k` and `≥k` would leave too few numbers to choose from.
    """
    if isinstance(patients, int) and patients < 2 * minimum and positives not in (0, patients):
        return "≥1"
    if isinstance(patients, int) and isinstance(positives, int) and 0 < patients - positives < minimum <= positives:
        return f"≥{minimum}"
    return positives


def _complement(counts: Sequence[Count], total: Count, minimum: int) -> tuple[Count, ...]:
    """Bound the smallest exact counts above 0 until the total gives nothing away."""
    printed = list(counts)
    while True:
        exact = [value for value in printed if isinstance(value, int)]
        hidden = len(printed) - len(exact)
        safe = isinstance(total, str) or (hidden > 1 and total - sum(exact) >= minimum)
        if hidden == 0 or safe or not any(exact):
            return tuple(printed)
        printed[printed.index(min(value for value in exact if value))] = f"≥{minimum}"


def _bounded(total: Count, parts: Sequence[Count], minimum: int) -> Count:
    if isinstance(total, str) or all(isinstance(part, int) for part in parts):
        return total
    visible = sum(part for part in parts if isinstance(part, int))
    return f"≥{max(visible, minimum):,}"
