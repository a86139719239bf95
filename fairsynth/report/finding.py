"""What the study found, in sentences that claim no more than its intervals show.

In:  `FinishedStudy`.   Out: text.
Never: a direction for a difference within noise; a comparison of groups where only one could be judged.
"""

from __future__ import annotations

from fairsynth.audit.summary import Result, Scope
from fairsynth.fairness.coefficients import names
from fairsynth.fairness.estimates import Estimate
from fairsynth.report import results, wording
from fairsynth.report.results import approach_name, positives_name, primary, within_noise
from fairsynth.report.study import FinishedStudy, StudyRecord
from fairsynth.report.view import count_text, listed, number, span

_PARITY = ("disparate_impact", "demographic_parity")
_METHOD = "fairsynth"


def asked(study: StudyRecord) -> str:
    """The question that the study's plan asks."""
    plan = study.plan
    others = [group for group in plan.groups.names if group not in plan.groups.reference]
    outcome = wording.TASKS.get(plan.task.name, plan.task.name.replace("_", " "))
    negative = plan.objective.favourable == "negative"
    favoured = " Not to be selected is the favour that disparate impact compares." if negative else ""
    return (
        f"Asked: if {_sites(len(plan.roster))} train one generator together with the fairness objective"
        f" “{names(plan.objective).replace('_', ' ')}” (λ = {plan.objective.weight:g}), and each adds"
        f" {plan.augmentation.synthetic_patients:,} synthetic patients to its real ones, do models that predict"
        f" {outcome} become fairer to {listed(others)} compared with {listed(plan.groups.reference)}?{favoured}"
    )


def finding(study: FinishedStudy) -> str:
    """The main result, then the other metrics, each with its interval."""
    scope = study.whole
    if _METHOD not in study.axes.approaches[1:]:
        return f"{wording.INSUFFICIENT}: the audit holds no FairSynth approach beside {study.axes.approaches[0]}."
    first, others = ("disparate_impact", ("worst_tpr", "f1"))
    if study.plan.objective.name not in _PARITY:
        first, others = ("worst_tpr", ("disparate_impact", "f1"))
    confidence = f"{study.summary.confidence * 100:g} %"
    setting = f"({primary(study).text}; {results.seeds_text(study)}, {confidence} intervals.)"
    sentences = [_main(study, scope, first), *(_beside(study, scope, name) for name in others), setting]
    return " ".join(sentences)


def warnings(study: FinishedStudy) -> tuple[str, ...]:
    """What a reader must know before the numbers."""
    found = []
    scope = study.whole
    if study.missing:
        found.append(f"Missing sites: {listed(study.missing)}. Nothing below speaks of their patients.")
    found.extend(
        f"A reply of site {refused.site} was refused ({refused.phase}, {refused.code})." for refused in study.refusals
    )
    if study.enrolment.left_out:
        rule = study.plan.privacy
        found.append(
            f"Left out: {listed(study.enrolment.left_out)}. Fewer than {rule.minimum_group} training patients, or fewer"
            f" than {rule.minimum_contributing} sites with one: a sum would have told of single sites or patients."
            " What the models do to these groups is not known."
        )
    if scope.insufficient:
        found.append(
            f"{wording.INSUFFICIENT}: {listed(scope.insufficient)} had fewer than"
            f" {study.plan.audit.minimum_positives} held-out {positives_name(study)} {_over_all(study)}. Whether the"
            " models serve them worse or better is not known."
        )
    if any(line.bounded for line in study.rounds):
        rounds = sum(line.bounded for line in study.rounds)
        found.append(
            f"In {rounds} of {len(study.rounds)} rounds a group's fairness coefficient reached its bound, because the"
            " group is small: the training then pushed less than the objective asks."
        )
    return tuple(found)


def _main(study: FinishedStudy, scope: Scope, name: str) -> str:
    """The first sentence: the metric of the study's objective, with n and whether it differs."""
    reason = _insufficient(study, scope, name)
    where = (
        f"On {count_text(scope.patients)} real held-out patients of {_of(study)}"
        f" ({count_text(scope.positives)} {positives_name(study)})"
    )
    if reason:
        return f"{where} the result is {wording.INSUFFICIENT} for {_called(name)}: {reason}."
    base, method = _pair(study, scope)
    ours = approach_name(_METHOD).replace("Real", "real")
    return (
        f"{where}, {_called(name)}{_over(scope, name)} was {_value(method.metrics[name], study)} with"
        f" {ours} and {_value(base.metrics[name], study)}"
        f" with {approach_name(base.approach).lower()}; {_verdict(method.change[name])}."
    )


def _beside(study: FinishedStudy, scope: Scope, name: str) -> str:
    reason = _insufficient(study, scope, name)
    if reason:
        return f"{_called(name, start=True)}: {wording.INSUFFICIENT} ({reason})."
    base, method = _pair(study, scope)
    before, after = base.metrics[name].mean, method.metrics[name].mean
    text = f"{number(before or 0.0)} to {number(after or 0.0)}"
    return f"{_called(name, start=True)}{_over(scope, name)} went from {text}: {_verdict(method.change[name])}."


def _insufficient(study: FinishedStudy, scope: Scope, name: str) -> str:
    """Why nothing may be said of a metric; empty where something may."""
    base, method = _pair(study, scope)
    compared = [row for row in scope.groups if row.status == "ok"]
    if name == "worst_tpr" and len(compared) < 2:
        only = f"only {compared[0].group} has" if compared else "no group has"
        return f"{only} at least {study.plan.audit.minimum_positives} held-out {positives_name(study)}"
    if name == "disparate_impact" and not _both_sides(study, scope):
        return f"on one side of the comparison no group has {study.plan.audit.minimum_cell} held-out patients"
    if base.metrics[name].mean is None or method.metrics[name].mean is None:
        return "it is undefined, for instance because a model flagged nobody"
    return ""


def _both_sides(study: FinishedStudy, scope: Scope) -> bool:
    """Whether reference and other groups each have a group of at least the minimum cell."""
    sizes = {
        side: max(
            (row.patients for row in scope.groups if row.reference is side and isinstance(row.patients, int)), default=0
        )
        for side in (True, False)
    }
    return min(sizes.values()) >= study.plan.audit.minimum_cell


def _pair(study: FinishedStudy, scope: Scope) -> tuple[Result, Result]:
    """The first approach and ours, at the primary setting."""
    setting = primary(study)
    base, method = (
        scope.result(approach=approach, predictor=setting.predictor, threshold=setting.threshold)
        for approach in (study.axes.approaches[0], _METHOD)
    )
    return base, method


def _verdict(change: Estimate) -> str:
    """Whether a change is within noise, with its interval."""
    noise = within_noise(change)
    if noise is None or change.mean is None:
        return "no interval could be formed for the change, so no difference is claimed"
    interval = f"change {number(change.mean)}, interval {span(change)}"
    if noise:
        return f"the difference is within noise ({interval})"
    direction = "higher" if change.mean > 0 else "lower"
    return f"{direction} by more than this study's noise ({interval}; one study, to be repeated before it is relied on)"


def _value(estimate: Estimate, study: FinishedStudy) -> str:
    interval = span(estimate)
    shown = f" [{interval}]" if interval else " [no interval]"
    return f"{number(estimate.mean or 0.0)}{shown}"


def _called(name: str, *, start: bool = False) -> str:
    text = {"disparate_impact": "disparate impact (1 is equal)", "worst_tpr": "worst-group TPR", "f1": "F1"}[name]
    return text[0].upper() + text[1:] if start else f"the {text}" if name == "worst_tpr" else text


def _over(scope: Scope, name: str) -> str:
    """Over which groups a worst value is taken."""
    return f" (of {listed(row.group for row in scope.groups if row.status == 'ok')})" if name == "worst_tpr" else ""


def _of(study: FinishedStudy) -> str:
    """Whose patients the finding is about."""
    return _sites(len(study.audited)) if study.home is None else f"site {study.home}"


def _over_all(study: FinishedStudy) -> str:
    return "over all sites" if study.home is None else "at this site"


def _sites(number_of: int) -> str:
    return "1 site" if number_of == 1 else f"{number_of} sites"
