"""Patients and outcome by group, and whether a group is large enough for its rates to be estimated.

In:  the cohort's patients (group, label), the plan.   Out: `GroupsQuality` and findings.
Never: a count between 1 and the minimum cell, in clear or by subtraction; a rate from which one could be computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fairsynth.config import Strict, StudyPlan
from fairsynth.fairness.intervals import wilson
from fairsynth.governance.disclosure import Count
from fairsynth.governance.members import members
from fairsynth.quality.findings import Finding, note, warning
from fairsynth.schemas import Group, IntArray


class GroupQuality(Strict):
    """One group of the site's cohort."""

    group: Group
    reference: bool
    patients: Count
    positives: Count
    rate: float | None  # positives / patients, with its interval; None where either is hidden or bounded
    low: float | None
    high: float | None
    held_out_positives: int | None  # expected from the shares of the split; None where positives are not exact
    tpr_half_width: float | None  # of the interval of a true-positive rate of 0.5 over as many
    estimable: bool
    verdict: str  # the same in words


class GroupsQuality(Strict):
    """The groups that the site's rules name, in the plan's order."""

    patients: Count
    positives: Count
    confidence: float
    minimum_positives: int
    groups: tuple[GroupQuality, ...]


def describe_groups(cells: IntArray, *, plan: StudyPlan, here: Sequence[Group]) -> GroupsQuality:
    """`cells` (G, 2) are patients by group of the plan and label; `here` are the groups that the site can have."""
    minimum = plan.audit.minimum_cell
    printed = members(cells, minimum=minimum)
    rows = [
        _describe(name, row, patients=printed.patients[index], positives=printed.positives[index], plan=plan)
        for index, (name, row) in enumerate(zip(plan.groups.names, cells, strict=True))
        if name in here
    ]
    totals = members(cells.sum(axis=0, keepdims=True), minimum=minimum)
    return GroupsQuality(
        patients=totals.patients[0],
        positives=totals.positives[0],
        confidence=plan.audit.confidence,
        minimum_positives=plan.audit.minimum_positives,
        groups=tuple(rows),
    )


def group_findings(found: GroupsQuality) -> Iterator[Finding]:
    """Groups that no metric of this site can tell about."""
    absent = [one.group for one in found.groups if one.patients == 0]
    small = [one.group for one in found.groups if one.patients != 0 and not one.estimable]
    if small:
        yield warning(
            f"{len(small)} of {len(found.groups)} groups are too small for their rates to be estimated at this site",
            where=f"groups {', '.join(small)}",
            do="pool with other sites, widen `cohort` in site.yaml, hold out a larger share, or join groups",
        )
    if len(found.groups) - len(small) - len(absent) < 2:
        what = "fewer than two groups are large enough: this site alone can compare nothing"
        yield warning(what, where="groups", do="join a study whose other sites bring more patients of these groups")
    if absent:
        yield note("groups without a patient", where=f"groups {', '.join(absent)}")


def half_width(positives: int, *, confidence: float) -> float:
    """Half the width of Wilson's interval where half of `positives` are found: no rate has a wider one."""
    low, high = wilson(positives / 2, positives, confidence=confidence)
    return (high - low) / 2


def _describe(name: Group, row: IntArray, *, patients: Count, positives: Count, plan: StudyPlan) -> GroupQuality:
    held_out = int(np.floor(row[1] * plan.split.held_out))
    estimable = held_out >= plan.audit.minimum_positives
    exact = isinstance(positives, int)
    rate = (row[1] / row.sum(), *wilson(row[1], row.sum(), confidence=plan.audit.confidence)) if row.sum() else None
    shown = rate if exact and isinstance(patients, int) else None
    low, high = (round(float(value), 6) for value in shown[1:]) if shown else (None, None)
    wide = half_width(held_out, confidence=plan.audit.confidence) if exact and held_out else None
    return GroupQuality(
        group=name,
        reference=name in plan.groups.reference,
        patients=patients,
        positives=positives,
        rate=round(float(shown[0]), 6) if shown else None,
        low=low,
        high=high,
        held_out_positives=held_out if exact else None,
        tpr_half_width=round(wide, 3) if wide is not None else None,
        estimable=estimable,
        verdict=_verdict(positives, held_out if exact else None, wide, estimable=estimable, plan=plan),
    )


def _verdict(positives: Count, held_out: int | None, wide: float | None, *, estimable: bool, plan: StudyPlan) -> str:
    """In plain words, without a number that the counts hide."""
    needed = plan.audit.minimum_positives
    if positives == 0:
        return "nobody with the outcome: no rate can be estimated"
    if held_out is None or wide is None:
        few = f"fewer than {needed} held-out patients with the outcome are to be expected"
        return "large enough" if estimable else f"too small: {few}"
    about = f"about {held_out:,} held-out patients with the outcome"
    if estimable:
        return f"large enough: {about}, a true-positive rate to within ±{wide:.2f}"
    return f"too small: {about}, {needed} are needed; a true-positive rate only to within ±{wide:.2f}"
