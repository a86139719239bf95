"""What left the sites in a study, what stayed there, and what protects it: fixed text, by the plan.

In:  the plan, and whether the study was masked.   Out: `Disclosed`.
Never: a number of a study.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairsynth.config import MINIMUM_SITES, StudyPlan
from fairsynth.federation.plans import is_taught
from fairsynth.report import wording
from fairsynth.report.study import NOISE


@dataclass(frozen=True, kw_only=True)
class Disclosed:
    """The lists of the section on what leaves a site."""

    leaves: tuple[str, ...]
    stays: tuple[str, ...]
    unprotected: str


def disclosed(plan: StudyPlan, *, masked: bool) -> Disclosed:
    """Of a study of this plan; `masked`: whether sums over all sites alone left them."""
    if plan.privacy.profile == NOISE:
        return Disclosed(
            leaves=wording.LEAVES_NOISED,
            stays=wording.STAYS + wording.STAYS_NOISED,
            unprotected=wording.UNPROTECTED_NOISED,
        )
    primed = wording.LEAVES_PRIMED if plan.training.primed else ()
    taught = wording.LEAVES_TAUGHT if is_taught(plan) else ()
    if not masked:
        return Disclosed(
            leaves=(*wording.LEAVES, *primed, *taught), stays=wording.STAYS, unprotected=wording.UNPROTECTED_PLAIN
        )
    two = "" if len(plan.roster) >= MINIMUM_SITES else wording.UNPROTECTED_TWO
    return Disclosed(
        leaves=(*wording.LEAVES_MASKED, *primed, *taught),
        stays=wording.STAYS + wording.STAYS_MASKED,
        unprotected=wording.UNPROTECTED_MASKED + two,
    )
