"""Summaries of rows -> `summary.json`: the numbers that an abstract would quote, by setting and predictor.

In:  `RowSummary`s.   Out: `Headlines`, plain JSON with the same keys whatever was run; what cannot be said is null.
Never: a number that the summaries do not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from fairsynth.config import Strict
from fairsynth.experiments.evidence.counted import THRESHOLDS
from fairsynth.experiments.evidence.roles import METHOD, REAL_ONLY
from fairsynth.experiments.evidence.summary import RowSummary
from fairsynth.experiments.evidence.tables import COLUMNS, best_of_four
from fairsynth.experiments.evidence.tally import Table1Cell, Tally, tally
from fairsynth.experiments.evidence.targets import Target
from fairsynth.fairness.paired import CeilingShare, Paired
from fairsynth.schemas import Group, SiteId

ALL_SETTINGS = "all settings"
UNDEFINED = Paired(mean=None, sd=None, low=None, high=None, seeds=0)
_NO_SHARE = CeilingShare(share=None, low=None, high=None, seeds=0, reason="no such trials")


class Gain(Paired):
    """A gain and over whom."""

    baseline: str | None


class Headline(Strict):
    """One row of sizes at one threshold, all sites together.

    Intervals are Student's over seeds, of the share Fieller's.
    """

    real: int
    synthetic: int
    threshold: str
    seeds: int
    wtpr: Paired  # worst TPR
    wtpr_gain_ci: Gain  # worst TPR, minus the best data-level baseline
    ceiling_share: CeilingShare  # of the way from real data alone to the oracle, in worst TPR
    abs_log_di: Paired
    f1_change: Paired  # minus real only
    federated_minus_pooled: Paired  # worst TPR


class Hidden(Strict):
    """An approach that is near parity over all sites together and far from it at a site; means over seeds."""

    approach: str
    predictor: str
    threshold: str
    metric: str  # `log_di` or `tpr_gap`, with their signs
    all_sites: float
    furthest: SiteId
    at_furthest: float | None  # None: on a seed no protected patient is favoured there
    shown: bool | None  # whether the interval at that site excludes parity; None without one


class RowTargets(Strict):
    """What was asked of one row, who was left out of every minimum, and what its sums hide."""

    setting: str
    real: int
    synthetic: int
    insufficient: dict[str, tuple[Group, ...]]  # by scope
    targets: tuple[Target, ...]
    table1: tuple[Table1Cell, ...] = ()
    hidden_by_the_global_figure: tuple[Hidden, ...] = ()


class Headlines(Strict):
    """`summary.json`."""

    schema_: Literal["fairsynth.evidence/1"] = "fairsynth.evidence/1"
    table: str
    code_version: str
    minimum_positives: int
    settings: dict[str, dict[str, tuple[Headline, ...]]]  # by setting and predictor
    rows: tuple[RowTargets, ...]
    tallies: dict[str, tuple[Tally, ...]] = {}  # by setting, and of `ALL_SETTINGS`


def headlines(rows: Sequence[RowSummary], *, table: str, code_version: str) -> Headlines:
    """The headlines of `rows`, of which there is at least one."""
    settings: dict[str, dict[str, tuple[Headline, ...]]] = {}
    for row in rows:
        of = settings.setdefault(row.setting, {})
        for predictor in row.predictors:
            lines = tuple(_headline(row, predictor, threshold) for threshold in THRESHOLDS)
            of[predictor] = (*of.get(predictor, ()), *lines)
    targets = tuple(
        RowTargets(
            setting=row.setting,
            real=row.real,
            synthetic=row.synthetic,
            insufficient={scope.scope: scope.insufficient for scope in row.scopes},
            targets=row.targets,
            table1=tuple(_table1(row)),
            hidden_by_the_global_figure=tuple(_hidden(row)),
        )
        for row in rows
    )
    return Headlines(
        table=table,
        code_version=code_version,
        minimum_positives=rows[0].minimum_positives,
        settings=settings,
        rows=targets,
        tallies=_tallies(targets),
    )


def merged(new: Headlines, old: Headlines) -> Headlines:
    """`new`, and of `old`, a summary of the same table, the settings that `new` lacks."""
    kept = tuple(row for row in old.rows if row.setting not in new.settings)
    rows = tuple(sorted((*kept, *new.rows), key=lambda row: row.setting))
    settings = {**old.settings, **new.settings}
    return new.model_copy(update={"settings": settings, "rows": rows, "tallies": _tallies(rows)})


def _tallies(rows: Sequence[RowTargets]) -> dict[str, tuple[Tally, ...]]:
    """Of each setting, then of all."""
    by_setting = {name: [row for row in rows if row.setting == name] for name in dict.fromkeys(r.setting for r in rows)}
    return {
        name: tally([one for row in own for one in row.targets], table1=[one for row in own for one in row.table1])
        for name, own in (*by_setting.items(), (ALL_SETTINGS, rows))
    }


def _table1(row: RowSummary) -> Iterator[Table1Cell]:
    """The cells of DI and worst TPR, where all four approaches of the paper were run."""
    if not set(COLUMNS.values()) <= set(row.approaches):
        return
    for predictor in row.predictors:
        for threshold in THRESHOLDS:
            for metric, best in best_of_four(row, predictor=predictor, threshold=threshold).items():
                yield Table1Cell(predictor=predictor, threshold=threshold, metric=metric, best=METHOD in best)


def _hidden(row: RowSummary) -> Iterator[Hidden]:
    """What the levels say is hidden."""
    for one in row.levels:
        if one.hidden_by_the_global_figure and one.furthest is not None and one.all_sites.mean is not None:
            yield Hidden(
                approach=one.approach,
                predictor=one.predictor,
                threshold=one.threshold,
                metric=one.metric,
                all_sites=one.all_sites.mean,
                furthest=one.furthest,
                at_furthest=None if one.furthest in one.nobody_favoured else one.sites[one.furthest].mean,
                shown=one.shown,
            )


def _headline(row: RowSummary, predictor: str, threshold: str) -> Headline:
    def value(metric: str) -> Paired:
        found = row.value(metric, approach=METHOD, predictor=predictor, threshold=threshold)
        return UNDEFINED if found is None else found

    f1 = row.contrast("f1", predictor=predictor, threshold=threshold)
    asked = ("worst_tpr", predictor, threshold)
    shares = (one.share for one in row.ceilings if (one.metric, one.predictor, one.threshold) == asked)
    pooled = (one.minus_pooled for one in row.federation if (one.metric, one.predictor, one.threshold) == asked)
    return Headline(
        real=row.real,
        synthetic=row.synthetic,
        threshold=threshold,
        seeds=len(row.seeds),
        wtpr=value("worst_tpr"),
        wtpr_gain_ci=_gain(row, predictor, threshold),
        ceiling_share=next(shares, _NO_SHARE),
        abs_log_di=value("abs_log_di"),
        f1_change=UNDEFINED if f1 is None else f1.against.get(REAL_ONLY, UNDEFINED),
        federated_minus_pooled=next(pooled, UNDEFINED),
    )


def _gain(row: RowSummary, predictor: str, threshold: str) -> Gain:
    """Over the best data-level baseline."""
    contrast = row.contrast("worst_tpr", predictor=predictor, threshold=threshold)
    best = None if contrast is None else contrast.best.get("data_level")
    if best is None:
        return Gain(baseline=None, **UNDEFINED.model_dump())
    return Gain(baseline=best.baseline, **best.gain.model_dump())
