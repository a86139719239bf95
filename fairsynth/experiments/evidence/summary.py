"""Trials of one row of sizes -> what they say: every approach over seeds, the method's gains, the targets.

In:  `Cell`s of one setting and one pair of sizes that differ by seed.   Out: `RowSummary`, plain JSON, NaN never.
Never: patients; a group with too few held-out positives inside a minimum. Definitions in words: docs/evidence.md.

An interval is Student's over seeds, of the mean. Each seed trains and judges on another draw of the same pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from fairsynth.config import Strict
from fairsynth.experiments.evidence.cells import Cell
from fairsynth.experiments.evidence.contrasts import (
    Ceiling,
    Contrast,
    Federation,
    Runs,
    SiteVerdict,
    ceilings,
    contrasts,
    federation,
    verdicts,
)
from fairsynth.experiments.evidence.counted import THRESHOLDS, Row, gather
from fairsynth.experiments.evidence.levels import Level, levels
from fairsynth.experiments.evidence.measures import MINIMUM_POSITIVES, NO_THRESHOLD, Measures, measure
from fairsynth.experiments.evidence.roles import METHOD
from fairsynth.experiments.evidence.sampling import one_more_run
from fairsynth.experiments.evidence.targets import Target, targets
from fairsynth.fairness import metrics
from fairsynth.fairness.estimates import Estimate
from fairsynth.fairness.paired import Paired, paired
from fairsynth.schemas import FloatArray, Group, SiteId
from fairsynth.seeds import numpy_stream

_LOWEST = {"half": "tpr", "tuned": "tpr", NO_THRESHOLD: "auroc_within"}  # what the worst group is the worst in


class GroupRow(Strict):
    """One group's real held-out patients in one scope."""

    group: Group
    reference: bool
    patients: int  # on the seed with the fewest
    positives: int  # held-out positives, the mean over seeds
    status: Literal["ok", "INSUFFICIENT"]  # too few positives: left out of every minimum


class Result(Strict):
    """One approach and predictor at one threshold in one scope, over seeds."""

    approach: str
    predictor: str
    threshold: str  # "none": of scores, whatever the threshold
    metrics: dict[str, Paired]
    worst_group: Group | None  # lowest mean TPR (AUROC without a threshold) of the groups that may be compared
    groups: dict[str, dict[Group, Paired]]  # by metric; all sites together only, as is the next
    one_more_run: dict[str, Estimate]  # by metric: where one more run, on one more held-out sample, would fall


class Scope(Strict):
    """One site, or all sites together (summed counts)."""

    scope: str
    groups: tuple[GroupRow, ...]
    insufficient: tuple[Group, ...]
    results: tuple[Result, ...]

    def result(self, *, approach: str, predictor: str, threshold: str) -> Result | None:
        """The result at these axes, if there is one."""
        asked = (approach, predictor, threshold)
        found = (one for one in self.results if (one.approach, one.predictor, one.threshold) == asked)
        return next(found, None)


class RowSummary(Strict):
    """All that the trials of one row say."""

    setting: str
    real: int
    synthetic: int
    seeds: tuple[int, ...]
    sites: tuple[SiteId, ...]
    approaches: tuple[str, ...]
    predictors: tuple[str, ...]
    minimum_positives: int
    scopes: tuple[Scope, ...]  # all sites first
    contrasts: tuple[Contrast, ...]
    ceilings: tuple[Ceiling, ...]
    federation: tuple[Federation, ...]
    verdicts: tuple[SiteVerdict, ...]
    targets: tuple[Target, ...]
    oracle_copies: float | None = None  # share of the oracle's patients that are there once more, mean over seeds
    levels: tuple[Level, ...] = ()  # signed distances from parity, all sites together beside each site

    @property
    def everywhere(self) -> Scope:
        """All sites together."""
        return self.scopes[0]

    def value(self, metric: str, *, approach: str, predictor: str, threshold: str) -> Paired | None:
        """A metric of all sites together over seeds; None where the approach is absent."""
        found = self.everywhere.result(approach=approach, predictor=predictor, threshold=threshold)
        return None if found is None else found.metrics.get(metric)

    def contrast(self, metric: str, *, predictor: str, threshold: str) -> Contrast | None:
        """The method against the others in one metric; None where the method is absent."""
        asked = (metric, predictor, threshold)
        return next((one for one in self.contrasts if (one.metric, one.predictor, one.threshold) == asked), None)


def summarise(cells: Sequence[Cell], *, minimum_positives: int = MINIMUM_POSITIVES) -> RowSummary:
    """The summary of trials that differ by seed alone. Raises ArtefactError when they do not."""
    row = gather(cells)
    return summarise_row(row, measure(row, minimum_positives=minimum_positives), minimum_positives=minimum_positives)


def summarise_row(row: Row, measures: Sequence[Measures], *, minimum_positives: int) -> RowSummary:
    """The summary of a row whose measures are at hand."""
    everywhere, *sites = measures
    with_method = [index for index, name in enumerate(row.predictors) if _has_method(row, index)]
    runs = [Runs(row=row, measures=everywhere, predictor=index) for index in with_method]
    smallest = sites[row.smallest_site]
    return RowSummary(
        setting=row.setting,
        real=row.real,
        synthetic=row.synthetic,
        seeds=row.seeds,
        sites=tuple(SiteId(name) for name in row.sites),
        approaches=row.approaches,
        predictors=row.predictors,
        minimum_positives=minimum_positives,
        scopes=tuple(_scope(row, one, with_groups=one is everywhere) for one in measures),
        contrasts=tuple(one for each in runs for one in contrasts(each)),
        ceilings=tuple(one for each in runs for one in ceilings(each)),
        federation=tuple(one for each in runs for one in federation(each, replace(each, measures=smallest))),
        verdicts=tuple(one for site in sites for each in runs for one in verdicts(replace(each, measures=site))),
        targets=tuple(one for each in runs for one in targets(each, replace(each, measures=smallest))),
        oracle_copies=None if np.isnan(row.oracle_copies).any() else float(row.oracle_copies.mean()),
        levels=tuple(levels(row, measures)),
    )


def _has_method(row: Row, predictor: int) -> bool:
    return METHOD in row.approaches and bool(row.present[row.approaches.index(METHOD), predictor])


def _scope(row: Row, measures: Measures, *, with_groups: bool) -> Scope:
    names = [Group(name) for name in row.groups]
    rows = tuple(
        GroupRow(
            group=name,
            reference=bool(row.reference[index]),
            patients=int(measures.members[index]),
            positives=round(float(measures.positives[index])),
            status="ok" if measures.sufficient[index] else "INSUFFICIENT",
        )
        for index, name in enumerate(names)
    )
    return Scope(
        scope=measures.scope,
        groups=rows,
        insufficient=tuple(one.group for one in rows if one.status != "ok"),
        results=tuple(_results(row, measures, with_groups=with_groups)),
    )


def _results(row: Row, measures: Measures, *, with_groups: bool) -> Iterator[Result]:
    """One result for each pair of approach and predictor that exists, and each threshold."""
    names = [Group(name) for name in row.groups]
    for a, approach in enumerate(row.approaches):
        for p in (p for p in range(len(row.predictors)) if row.present[a, p]):
            for threshold in (*THRESHOLDS, NO_THRESHOLD):
                overall = {metric: of for (metric, at), of in measures.overall.items() if at == threshold}
                groups = {metric: of for (metric, at), of in measures.by_group.items() if at == threshold}
                yield Result(
                    approach=approach,
                    predictor=row.predictors[p],
                    threshold=threshold,
                    metrics={metric: paired(values[:, a, p]) for metric, values in overall.items()},
                    worst_group=_worst(groups[_LOWEST[threshold]][:, a, p], measures, names=names),
                    groups={metric: _by_group(values[:, a, p], names) for metric, values in groups.items()}
                    if with_groups
                    else {},
                    one_more_run=_one_more(row, measures, (a, p, threshold)) if with_groups else {},
                )


def _one_more(row: Row, measures: Measures, at: tuple[int, int, str]) -> dict[str, Estimate]:
    """The wider intervals of an approach, a predictor and a threshold; none without a threshold."""
    a, p, threshold = at
    if threshold not in measures.confusion:
        return {}
    sizes = (row.setting, row.real, row.synthetic)
    return one_more_run(
        measures.confusion[threshold][:, a, p],
        reference=row.reference,
        sufficient=measures.sufficient,
        favourable=row.favourable,
        rng=numpy_stream(0, "evidence", "one more run", *sizes, row.approaches[a], row.predictors[p], threshold),
    )


def _by_group(values: FloatArray, names: Sequence[Group]) -> dict[Group, Paired]:
    """Of values (K, G), each group over seeds."""
    return {name: paired(values[:, index]) for index, name in enumerate(names)}


def _worst(rates: FloatArray, measures: Measures, *, names: Sequence[Group]) -> Group | None:
    """The group with the lowest mean over seeds of `rates` (K, G), among those that may be compared.

    Seeds that lack the approach are passed over; a group that is undefined on another seed is not the worst.
    """
    judged = rates[np.isfinite(rates).any(axis=1)]
    if not len(judged):
        return None
    lowest = int(metrics.lowest(judged.mean(axis=0), among=measures.sufficient).group)
    return None if lowest < 0 else names[lowest]
