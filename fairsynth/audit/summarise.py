"""Counts of every site -> the tables of a report.

In:  the plan, each site's audit arrays and what changed there (`AuditReply` in federation/messages.py).
Out: `Summary`: per scope (every site, and all sites together) the metrics of each approach x predictor x threshold with
mean, sd over seeds and interval, the groups with their status, and fidelity; each site's verdicts.
Never: patients; a metric of a group with too few positives inside a minimum; a small cell in clear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairsynth.audit.code_fidelity import fidelity
from fairsynth.audit.summary import ALL_SITES, Axes, GroupRates, GroupRow, Result, Scope, SiteVerdict, Summary
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError, Problem
from fairsynth.fairness import metrics
from fairsynth.fairness.comparison import (
    RATES,
    Judged,
    Rules,
    Values,
    change,
    group_rate,
    overall,
    redraw_scores,
)
from fairsynth.fairness.counts import FN, TP
from fairsynth.fairness.estimates import NOT_ESTIMATED
from fairsynth.fairness.intervals import bootstrap
from fairsynth.fairness.verdict import SiteChange, judge
from fairsynth.federation.plans import POOLED
from fairsynth.governance.disclosure import Count, shown
from fairsynth.schemas import Arrays, IntArray, SiteId
from fairsynth.seeds import numpy_stream

_ARRAYS = ("confusion", "scores", "synthetic", "code_visits", "code_totals", "alone")
_Counts = dict[str, IntArray]  # those arrays of one scope, checked


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frame:
    """What stays the same within one scope."""

    scope: str
    plan: StudyPlan
    axes: Axes
    members: IntArray  # (G,) held-out patients
    positives: IntArray  # (G,)

    @property
    def replicates(self) -> int:
        """Bootstrap replicates a seed."""
        return -(-self.plan.audit.bootstrap_replicates // self.axes.seeds)

    @property
    def rules(self) -> Rules:
        """How this scope's groups are compared."""
        return Rules(
            reference=np.isin(self.plan.groups.names, self.plan.groups.reference),
            sufficient=self.positives >= self.plan.audit.minimum_positives,
            confidence=self.plan.audit.confidence,
            favourable=self.plan.objective.favourable,
        )

    def rng(self, *path: str) -> np.random.Generator:
        """The bootstrap's generator for one purpose within this scope."""
        return numpy_stream(self.plan.seed, "audit", "bootstrap", self.scope, *path)

    def shown(self, count: np.integer | int) -> Count:
        """`count` as it may be printed."""
        return shown(int(count), minimum_cell=self.plan.audit.minimum_cell)


def summarise(
    plan: StudyPlan,
    replies: Mapping[SiteId, Arrays],
    *,
    axes: Axes,
    changes: Mapping[SiteId, Sequence[SiteChange]] | None = None,
) -> Summary:
    """The summary of the audit arrays of each site. The same plan and arrays give the same summary, in any order.

    A site has verdicts where `changes` says what changed there: counts do not tell which patients were judged twice.
    Raises ArtefactError when no site replied, or when arrays are missing or do not fit `axes` and the plan.
    """
    sites = tuple(sorted(replies))
    problems = [problem for site in sites for problem in _misfits(site, replies[site], plan, axes)]
    if len({replies[site]["code_visits"].shape for site in sites if "code_visits" in replies[site]}) > 1:
        problems.append(Problem(what="sites have different vocabularies", where="code_visits", expected="equal shapes"))
    if not sites:
        problems = [Problem(what="no site replied to the audit", where="audit", expected="at least one reply")]
    if problems:
        raise ArtefactError(problems)
    counts = {str(site): {name: replies[site][name].astype(np.int64) for name in _ARRAYS} for site in sites}
    members = [(ALL_SITES, list(counts.values())), *((site, [arrays]) for site, arrays in counts.items())]
    if POOLED in replies:  # nobody knows the counts of one site
        members, sites = members[:1], plan.roster
    told = {str(site): each for site, each in (changes or {}).items()}
    scopes = [_scope(name, parts, told.get(name, ()), plan=plan, axes=axes) for name, parts in members]
    return Summary(
        axes=axes,
        sites=sites,
        missing=tuple(site for site in plan.roster if site not in sites),
        reference=plan.groups.reference,
        minimum_positives=plan.audit.minimum_positives,
        minimum_cell=plan.audit.minimum_cell,
        confidence=plan.audit.confidence,
        replicates=-(-plan.audit.bootstrap_replicates // axes.seeds) * axes.seeds,
        scopes=tuple(scopes),
    )


def _misfits(site: SiteId, arrays: Arrays, plan: StudyPlan, axes: Axes) -> list[Problem]:
    """What is wrong with the arrays of one site."""
    a, p, h = len(axes.approaches), len(axes.predictors), len(axes.thresholds)
    k, g, c = axes.seeds, len(plan.groups.names), arrays["code_visits"].shape[-1] if "code_visits" in arrays else 0
    bins = metrics.SCORE_BINS
    shapes = ((a, p, k, h, g, 4), (a, p, k, g, 2, bins), (a, g, 2), (3, c), (3,), (2, g, 2, bins))
    problems = [
        Problem(what="audit array does not fit", where=f"site {site}: {name}", expected=f"int64 {shape}, none negative")
        for name, shape in zip(_ARRAYS, shapes, strict=True)
        if not _fits(arrays.get(name), shape)
    ]
    if not problems and not _same_patients(arrays["confusion"].astype(np.int64), arrays["scores"].astype(np.int64)):
        what = "approaches were not judged on the same held-out patients"
        problems.append(Problem(what=what, where=f"site {site}", expected="equal patients by group and label"))
    return problems


def _fits(array: npt.NDArray[np.generic] | None, shape: tuple[int, ...]) -> bool:
    fits = array is not None and array.shape == shape and array.dtype == np.int64
    return fits and array is not None and not (array.astype(np.int64) < 0).any()


def _same_patients(confusion: IntArray, scores: IntArray) -> bool:
    """Whether every approach, predictor, seed and threshold has the same patients by group and label."""
    positives = confusion[..., TP] + confusion[..., FN]
    by_label = np.stack([confusion.sum(-1) - positives, positives], axis=-1)  # (A, P, K, H, G, 2)
    first = by_label[0, 0, 0, 0]
    return bool((by_label == first).all() and (scores.sum(-1) == first).all())


def _frame(scope: str, arrays: _Counts, plan: StudyPlan, axes: Axes) -> _Frame:
    first = arrays["confusion"][0, 0, 0, 0]  # (G, 4): the held-out patients are the same everywhere
    return _Frame(scope=scope, plan=plan, axes=axes, members=first.sum(-1), positives=first[:, TP] + first[:, FN])


def _scope(name: str, parts: Sequence[_Counts], changes: Sequence[SiteChange], *, plan: StudyPlan, axes: Axes) -> Scope:
    """The scope of the sites whose counts are `parts`."""
    arrays = {key: np.stack([part[key] for part in parts]).sum(axis=0) for key in _ARRAYS}
    frame = _frame(name, arrays, plan, axes)
    rows = _group_rows(frame)
    names = frame.plan.groups.names
    added = {
        approach: {group: (int(cell[0]), int(cell[1])) for group, cell in zip(names, cells, strict=True)}
        for approach, cells in zip(frame.axes.approaches, arrays["synthetic"], strict=True)
    }
    return Scope(
        scope=frame.scope,
        patients=frame.shown(frame.members.sum()),
        positives=frame.shown(frame.positives.sum()),
        groups=rows,
        insufficient=tuple(row.group for row in rows if row.status == "INSUFFICIENT"),
        results=tuple(_results(arrays, frame=frame)),
        added=added,
        fidelity=fidelity(parts, minimum_cell=plan.audit.minimum_cell),
        verdicts=tuple(
            SiteVerdict(
                predictor=each.predictor,
                threshold=each.threshold,
                verdict=judge(each.gain, each.f1, each.abs_log_di),
            )
            for each in changes
        ),
    )


def _group_rows(frame: _Frame) -> tuple[GroupRow, ...]:
    rules = frame.rules
    return tuple(
        GroupRow(
            group=group,
            reference=bool(rules.reference[index]),
            patients=frame.shown(frame.members[index]),
            positives=frame.shown(frame.positives[index]),
            status="ok" if rules.sufficient[index] else "INSUFFICIENT",
        )
        for index, group in enumerate(frame.plan.groups.names)
    )


def _results(arrays: _Counts, *, frame: _Frame) -> Iterator[Result]:
    """One result for each approach, predictor and threshold, in that order."""
    first: dict[tuple[str, str], Judged] = {}
    for a, approach in enumerate(frame.axes.approaches):
        for p, predictor in enumerate(frame.axes.predictors):
            histogram = arrays["scores"][a, p]  # (K, G, 2, 200)
            rng = frame.rng(approach, predictor, "scores")
            redrawn = redraw_scores(histogram, replicates=frame.replicates, rng=rng)
            for h, threshold in enumerate(frame.axes.thresholds):
                confusion = arrays["confusion"][a, p, :, h]  # (K, G, 4)
                rng = frame.rng(approach, predictor, threshold)
                judged = Judged(
                    confusion=confusion,
                    observed=Values.of(confusion, histogram, rules=frame.rules),
                    replicates=Values.of(
                        bootstrap(confusion, replicates=frame.replicates, rng=rng), redrawn, rules=frame.rules
                    ),
                    rules=frame.rules,
                )
                since = None if a == 0 else first[predictor, threshold]
                first.setdefault((predictor, threshold), judged)
                yield _result(judged, since, keys=(approach, predictor, threshold), frame=frame)


def _result(judged: Judged, since: Judged | None, *, keys: tuple[str, str, str], frame: _Frame) -> Result:
    names = (*frame.plan.groups.names, None)  # index -1: no group
    approach, predictor, threshold = keys
    return Result(
        approach=approach,
        predictor=predictor,
        threshold=threshold,
        metrics=overall(judged),
        change={} if since is None else change(judged, since=since),
        worst_group=names[judged.worst_group],
        lowest_auroc_group=names[judged.lowest_auroc_group],
        groups={group: _group_rates(judged, index, frame) for index, group in enumerate(frame.plan.groups.names)},
    )


def _group_rates(judged: Judged, group: int, frame: _Frame) -> GroupRates:
    """Rates of one group; those whose denominator of patients is below the minimum cell are not given."""
    members, positives, smallest = frame.members[group], frame.positives[group], frame.plan.audit.minimum_cell
    denominators = {
        "selection_rate": members,
        "tpr": positives,
        "fpr": members - positives,
        "ppv": positives,
        "auroc": min(positives, members - positives),
    }
    return GroupRates(
        **{
            rate: group_rate(judged, rate, group=group) if denominators[rate] >= smallest else NOT_ESTIMATED
            for rate in RATES
        }
    )
