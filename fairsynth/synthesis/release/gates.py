"""The gates G0 to G11, one function each.

In:  figures of attacks and counts.   Out: `GateResult`s: a verdict, a reason that the site's officer can read, numbers.
Never: records; files; a number that leaves the site (verdict.py says which may).

A gate fails where its figure is above the threshold and chance does not explain it at the gate's level. An upper limit
above its threshold fails too where there are enough patients that an innocent generator would pass it; where there are
not, the reason says that the limit is not resolved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy.stats import norm

from fairsynth.config import Strict
from fairsynth.synthesis.release.attacks import Adversary, Guessed, Membership, Singled
from fairsynth.synthesis.release.chance import Share, excess_p, ratio_upper, resolves_ratio, risk
from fairsynth.synthesis.release.rules import ReleaseRules


class Outcome(StrEnum):
    """What a gate says. `NOT_RUN` does not block, and the card names it among what was not tested."""

    passed = "PASS"
    failed = "FAIL"
    inconclusive = "INCONCLUSIVE"
    not_run = "NOT_RUN"


class GateResult(Strict):
    """One gate's verdict, for the officer alone."""

    gate: str
    title: str
    verdict: Outcome
    reason: str
    numbers: dict[str, int | float | None] = {}


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Real patients whose record a synthetic one repeats. `unique`: whose record no other real patient has, and which
    is too long to be met by chance."""

    members: Share
    others: Share
    unique_members: Share
    unique_others: Share


def inputs(members: int, others: int, rules: ReleaseRules) -> GateResult:
    """G0: enough real patients to tell an AUC of 0.52 from 0.50."""
    enough = min(members, others) >= rules.minimum_patients
    reason = f"{members:,} training and {others:,} held-out patients with {rules.minimum_codes} codes or more"
    if not enough:
        reason += f"; {rules.minimum_patients:,} of each are needed to see a small leak"
    outcome = Outcome.passed if enough else Outcome.inconclusive
    return _result("G0", "enough patients", outcome, reason, members=members, others=others)


def exact_copies(copies: Copies, rules: ReleaseRules, *, level: float) -> GateResult:
    """G1: no long record of a patient who is unique at the site; no more copies of training than of held-out patients.

    Short records (below `unmistakable_codes`) meet by chance, so one of them proves nothing; their excess does.
    """
    p = excess_p(copies.members, copies.others)
    outcome = Outcome.failed if copies.unique_members.hits or p < level else Outcome.passed
    reason = (
        f"{copies.members.hits} training patients repeated, of whom {copies.unique_members.hits} have a record of "
        f"{rules.unmistakable_codes} codes or more that nobody else has; {copies.others.hits} held-out patients "
        "repeated (by chance)"
    )
    return _result(
        "G1",
        "exact copies",
        outcome,
        reason,
        **_shares(copies.members, copies.others),
        unique_member_hits=copies.unique_members.hits,
        unique_other_hits=copies.unique_others.hits,
        p=p,
    )


def near_copies(members: Share, others: Share, rules: ReleaseRules, *, level: float) -> GateResult:
    """G2: no more patients with a synthetic near double among training than among held-out patients."""
    p = excess_p(members, others)
    upper = ratio_upper(members, others, confidence=rules.confidence)
    resolved = resolves_ratio(members, others, limit=rules.near_ratio, confidence=rules.confidence, level=level)
    outcome = Outcome.failed if p < level or (resolved and upper > rules.near_ratio) else Outcome.passed
    limit = f"{upper:.2f}" if math.isfinite(upper) else "none"
    reason = (
        f"{members.hits} of {members.total:,} training and {others.hits} of {others.total:,} held-out ones have one; "
        f"upper limit of the ratio {limit}" + ("" if resolved else " (too few to bound it: judged by the excess alone)")
    )
    return _result("G2", "near copies", outcome, reason, **_shares(members, others), p=p, upper=_finite(upper))


def membership_auc(found: Membership, rules: ReleaseRules, *, level: float, everyone: bool = True) -> GateResult:
    """G3: nearness to a synthetic patient does not tell who was in training.

    Of `everyone` the upper limit is judged as soon as G0 passes; with so few it is above by chance 7 times in 1,000.
    """
    auc = found.auc
    upper = auc.upper(rules.confidence)
    resolved = 0.5 + (upper - auc.value) + float(norm.isf(level)) * auc.error <= rules.auc_upper
    resolved |= everyone and min(auc.members, auc.others) >= rules.minimum_patients
    failed = (auc.value > rules.auc and auc.p < level) or (resolved and upper > rules.auc_upper)
    reason = f"AUC {auc.value:.3f}, upper limit {upper:.3f}, n = {auc.members:,} + {auc.others:,}"
    if not resolved:
        reason += f" (too few to bound it below {rules.auc_upper})"
    outcome = Outcome.failed if failed else Outcome.passed
    return _result("G3", "membership, AUC", outcome, reason, auc=auc.value, upper=upper, p=auc.p)


def membership_top(found: Membership, rules: ReleaseRules, *, level: float) -> GateResult:
    """G4: nor of the few who are nearest."""
    top = found.top
    failed = top.ratio > rules.top_ratio and top.p < level
    reason = (
        f"of the nearest, {top.members.hits} of {top.members.total:,} training patients at "
        f"{top.others.hits} of {top.others.total:,} held-out ones: ratio {top.ratio:.2f}"
    )
    outcome = Outcome.failed if failed else Outcome.passed
    return _result("G4", "membership, TPR at 1 % FPR", outcome, reason, ratio=top.ratio, p=top.p)


def adversarial_accuracy(found: Adversary, rules: ReleaseRules, *, level: float) -> GateResult:
    """G5: synthetic patients are as far from training patients as from held-out ones. Blind to copies: no evidence of
    their absence."""
    away = abs(found.difference)
    p = 2 * float(norm.sf(away / found.error)) if found.error else float(away == 0)
    outcome = Outcome.failed if away > rules.nnaa and p < level else Outcome.passed
    reason = f"accuracy {found.others:.3f} held out, {found.members:.3f} training, n = {found.patients:,} of each"
    return _result("G5", "nearest neighbours", outcome, reason, difference=found.difference, error=found.error, p=p)


def attributes(found: Sequence[Guessed], rules: ReleaseRules, *, level: float) -> GateResult:
    """G6: no secret code is guessed better of training patients than of held-out ones."""
    if not found:
        reason = "no code is rare enough to be a secret and common enough to be tested"
        return _result("G6", "attribute inference", Outcome.not_run, reason)
    risks = [risk(one.attack, one.control, confidence=rules.confidence) for one in found]
    share = level / len(found)
    worst = max(range(len(found)), key=lambda place: risks[place][0])
    failed = [
        one for one, (excess, _) in zip(found, risks, strict=True) if excess > rules.attribute_risk and one.p < share
    ]
    unresolved = sum(upper > rules.attribute_risk for _, upper in risks)
    reason = f"{len(failed)} of {len(found)} secret codes leak; highest risk {risks[worst][0]:.3f}"
    if unresolved and not failed:
        reason += f" ({unresolved} have too few patients to bound it below {rules.attribute_risk})"
    return _result(
        "G6",
        "attribute inference",
        Outcome.failed if failed else Outcome.passed,
        reason,
        codes=len(found),
        risk=risks[worst][0],
        upper=max(upper for _, upper in risks),
        p=min(one.p for one in found),
    )


def singled_out(found: Singled, rules: ReleaseRules, *, level: float) -> GateResult:
    """G7: a rare synthetic patient does not point at a training patient more than at a held-out one."""
    excess, upper = risk(found.attack, found.control, confidence=rules.confidence)
    outcome = Outcome.passed
    if excess > rules.singling_out_risk and found.p < level:
        outcome = Outcome.failed
    reason = (
        f"{found.attack.hits} of {found.attack.total:,} guesses single out a training patient, {found.control.hits} a "
        f"held-out one: risk {excess:.3f}, upper limit {upper:.3f} (linkage is not attacked)"
    )
    return _result(
        "G7", "singling out", outcome, reason, **_shares(found.attack, found.control), upper=upper, p=found.p
    )


def rare_codes(codes: int, rules: ReleaseRules) -> GateResult:
    """G8: no code that few training patients carry."""
    outcome = Outcome.failed if codes else Outcome.passed
    reason = f"{codes} codes that fewer than {rules.rare_support} training patients of the site have"
    return _result("G8", "rare codes", outcome, reason, codes=codes)


def canaries(planted: int, emitted: int) -> GateResult:
    """G9: no planted patient comes out."""
    if not planted:
        return _result("G9", "canaries", Outcome.not_run, "none were planted before training")
    outcome = Outcome.failed if emitted else Outcome.passed
    return _result("G9", "canaries", outcome, f"{emitted} of {planted} came out", planted=planted, emitted=emitted)


def by_group(results: Mapping[str, Sequence[GateResult]]) -> GateResult:
    """G10: what holds of all holds of each group; `results` are G1 to G4 of each."""
    failed = [f"{name}: {one.gate}" for name, ones in results.items() for one in ones if one.verdict is Outcome.failed]
    tested = ", ".join(results) or "nobody"
    reason = f"tested apart: {tested}" + (f"; failed: {', '.join(failed)}" if failed else "")
    outcome = Outcome.failed if failed else Outcome.passed
    return _result("G10", "every group", outcome, reason, groups=len(results), failed=len(failed))


def format_checked(problems: Sequence[str] | None) -> GateResult:
    """G11: nothing in the files that a spreadsheet runs, and no text, identifier or date of a real patient."""
    if problems is None:
        return _result("G11", "format", Outcome.not_run, "no files were given")
    reason = "; ".join(problems) or "codes, identifiers, dates and cells as they should be"
    return _result("G11", "format", Outcome.failed if problems else Outcome.passed, reason, problems=len(problems))


def _result(gate: str, title: str, verdict: Outcome, reason: str, **numbers: float | int | None) -> GateResult:
    return GateResult(gate=gate, title=title, verdict=verdict, reason=reason, numbers=numbers)


def _shares(members: Share, others: Share) -> dict[str, float | int | None]:
    return {
        "member_hits": members.hits,
        "members": members.total,
        "other_hits": others.hits,
        "others": others.total,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
