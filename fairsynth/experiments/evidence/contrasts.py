"""Measures of a row -> the method against everything else, seed by seed.

In:  `Row` and its `Measures`.   Out: typed contrasts, shares of the ceiling, what federation gains, verdicts.
Never: a comparison of different seeds or patients; a choice among methods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairsynth.config import Strict
from fairsynth.experiments.evidence.counted import THRESHOLDS, Row
from fairsynth.experiments.evidence.drawing import HELD_OUT
from fairsynth.experiments.evidence.measures import DIRECTION, NO_THRESHOLD, Key, Measures
from fairsynth.experiments.evidence.roles import FAMILIES, LOCAL, METHOD, ORACLE, POOLED, REAL_ONLY
from fairsynth.fairness.paired import CeilingShare, Paired, best_baseline, ceiling_share, paired
from fairsynth.fairness.verdict import MINIMUM_GROUPS, Change, Verdict, verdict
from fairsynth.schemas import FloatArray, SiteId

MOST_COPIES = 0.1  # of the oracle, where fresh patients of a cell run out: beyond it is no ceiling of fresh ones
CEILINGS: tuple[Key, ...] = (
    ("worst_tpr", "half"),
    ("worst_tpr", "tuned"),
    ("lowest_group_auroc", NO_THRESHOLD),
)


class BestGain(Strict):
    """The method minus the best of a family of baselines."""

    baseline: str  # with the best mean over seeds
    gain: Paired
    each_seed: Paired  # minus the best of every seed, whichever baseline it is
    left_out: tuple[str, ...]  # baselines that are undefined on a seed


class Contrast(Strict):
    """The method minus each other approach in one metric, all sites together."""

    predictor: str
    threshold: str
    metric: str
    higher_is_better: bool | None  # None: the metric has no better side
    against: dict[str, Paired]
    best: dict[str, BestGain]  # by family of baselines; empty where there is no better side


class Ceiling(Strict):
    """How far the method goes of the way to the oracle in one metric."""

    predictor: str
    threshold: str
    metric: str
    method: Paired  # over seeds, of the metric itself; so the next two
    real_only: Paired
    oracle: Paired
    share: CeilingShare  # of the way from real data alone
    share_from_best: CeilingShare | None  # of the way from the best data-level baseline; None without one


class Federation(Strict):
    """The federated generator minus each site's own, at the smallest site; and minus the pooled one, everywhere."""

    predictor: str
    threshold: str
    metric: str
    smallest_site: SiteId
    minus_local: Paired
    minus_pooled: Paired


class SiteVerdict(Strict):
    """Whether a site should add the method's patients."""

    site: SiteId
    predictor: str
    threshold: str
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """One predictor's metrics in one scope, by approach."""

    row: Row
    measures: Measures
    predictor: int

    def of(self, approach: str, key: Key) -> FloatArray:
        """(K,) the metric of each seed; NaN where the trial lacks the approach."""
        if approach not in self.row.approaches:
            return np.full(len(self.row.seeds), np.nan)
        return self.measures.overall[key][:, self.row.approaches.index(approach), self.predictor]

    def minus(self, first: str, second: str, key: Key) -> FloatArray:
        """(K,) `first` minus `second`; NaN where either is undefined, or where both are infinite."""
        with np.errstate(invalid="ignore"):
            return self.of(first, key) - self.of(second, key)

    @property
    def others(self) -> tuple[str, ...]:
        """Approaches that this predictor was trained with, but the method."""
        judged = self.row.present[:, self.predictor]
        return tuple(name for name, here in zip(self.row.approaches, judged, strict=True) if here and name != METHOD)


def contrasts(runs: Runs) -> list[Contrast]:
    """One for each metric."""
    name = runs.row.predictors[runs.predictor]
    return [
        Contrast(
            predictor=name,
            threshold=threshold,
            metric=metric,
            higher_is_better=None if metric not in DIRECTION else DIRECTION[metric] > 0,
            against={other: paired(runs.minus(METHOD, other, (metric, threshold))) for other in runs.others},
            best=_best(runs, (metric, threshold)),
        )
        for metric, threshold in runs.measures.overall
    ]


def _best(runs: Runs, key: Key) -> dict[str, BestGain]:
    """The gain over the best of each family that has a member here."""
    found = {}
    for family, members in FAMILIES.items() if key[0] in DIRECTION else ():
        baselines = {name: runs.of(name, key) for name in members if name in runs.others}
        best = best_baseline(baselines, higher_is_better=DIRECTION[key[0]] > 0)
        if best is not None:
            mine = runs.of(METHOD, key)
            found[family] = BestGain(
                baseline=best.name,
                gain=paired(mine - best.values),
                each_seed=paired(mine - best.each_seed),
                left_out=best.left_out,
            )
    return found


def ceilings(runs: Runs) -> list[Ceiling]:
    """One for each of `CEILINGS`."""
    return [_ceiling(runs, key) for key in CEILINGS]


def _ceiling(runs: Runs, key: Key) -> Ceiling:
    method, real_only, oracle = (runs.of(name, key) for name in (METHOD, REAL_ONLY, ORACLE))
    baselines = {name: runs.of(name, key) for name in FAMILIES["data_level"] if name in runs.others}
    best = best_baseline(baselines)
    return Ceiling(
        predictor=runs.row.predictors[runs.predictor],
        threshold=key[1],
        metric=key[0],
        method=paired(method),
        real_only=paired(real_only),
        oracle=paired(oracle),
        share=share_of_fresh(runs, key),
        share_from_best=None if best is None else share_of_fresh(runs, key, base=best.values),
    )


def share_of_fresh(runs: Runs, key: Key, *, base: FloatArray | None = None) -> CeilingShare:
    """How far the method goes from `base`, real data alone, to the oracle; not estimable where that is copies."""
    method, real_only, oracle = (runs.of(name, key) for name in (METHOD, REAL_ONLY, ORACLE))
    found = ceiling_share(method, real_only=real_only if base is None else base, oracle=oracle)
    copies = runs.row.oracle_copies.mean()
    if not copies > MOST_COPIES:
        return found
    reason = f"{copies:.0%} of the oracle's patients are copies, for want of fresh ones"
    return found.model_copy(update={"share": None, "low": None, "high": None, "reason": reason})


def federation(everywhere: Runs, at_smallest: Runs) -> list[Federation]:
    """One for each metric that has a better side; empty where nothing was trained at each site alone, or pooled."""
    if not {LOCAL, POOLED} & set(everywhere.others):
        return []
    return [
        Federation(
            predictor=everywhere.row.predictors[everywhere.predictor],
            threshold=threshold,
            metric=metric,
            smallest_site=SiteId(at_smallest.measures.scope),
            minus_local=paired(at_smallest.minus(METHOD, LOCAL, (metric, threshold))),
            minus_pooled=paired(everywhere.minus(METHOD, POOLED, (metric, threshold))),
        )
        for metric, threshold in everywhere.measures.overall
        if metric in DIRECTION
    ]


def verdicts(at_site: Runs) -> list[SiteVerdict]:
    """Should this site augment: by worst TPR, at each threshold. Where fewer than two groups have enough positives, no
    gain is known."""
    compared = at_site.measures.sufficient.sum() >= MINIMUM_GROUPS
    unknown = Change(seeds=np.full(len(at_site.row.seeds), np.nan))

    def change(metric: str, threshold: str) -> Change:
        found = at_site.minus(METHOD, REAL_ONLY, (metric, threshold))
        return Change(seeds=found, held_out_share=HELD_OUT)

    return [
        SiteVerdict(
            site=SiteId(at_site.measures.scope),
            predictor=at_site.row.predictors[at_site.predictor],
            threshold=threshold,
            verdict=verdict(
                gain=change("worst_tpr", threshold) if compared else unknown,
                f1=change("f1", threshold),
                abs_log_di=change("abs_log_di", threshold),
            ),
        )
        for threshold in THRESHOLDS
    ]
