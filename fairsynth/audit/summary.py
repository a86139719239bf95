"""The tables of a report: per scope what each approach does, to whom, and what each site should do about it.

In:  nothing.   Out: `Summary`, which `audit/summarise.py` makes of counts. Plain JSON, NaN never.
Never: patients; a small cell in clear.

Definitions of the metrics, of INSUFFICIENT and of the intervals: docs/metrics.md.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from fairsynth.config import Strict
from fairsynth.fairness.estimates import Estimate
from fairsynth.fairness.verdict import Verdict
from fairsynth.governance.disclosure import Count
from fairsynth.schemas import Group, SiteId

ALL_SITES = "all sites"

Status = Literal["ok", "INSUFFICIENT"]


class Axes(BaseModel):
    """What the axes of the audit arrays stand for; made from an `AuditReply` or from its JSON fields.

    Other fields of the reply are passed over, which is why this model alone accepts them.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", from_attributes=True)

    approaches: tuple[str, ...]  # the first is what the others are compared with
    predictors: tuple[str, ...]
    thresholds: tuple[str, ...]
    seeds: PositiveInt


class GroupRow(Strict):
    """One group's real held-out patients in one scope."""

    group: Group
    reference: bool
    patients: Count
    positives: Count
    status: Status  # INSUFFICIENT: fewer positives than the plan's `minimum_positives`, left out of every minimum


class GroupRates(Strict):
    """What one approach does to one group; `NOT_ESTIMATED` where the denominator is below the minimum cell."""

    selection_rate: Estimate
    tpr: Estimate
    fpr: Estimate
    ppv: Estimate
    auroc: Estimate


class Result(Strict):
    """One approach, predictor and threshold in one scope."""

    approach: str
    predictor: str
    threshold: str
    metrics: dict[str, Estimate]  # keys: METRICS
    change: dict[str, Estimate]  # from the first approach, seed by seed; empty for the first. Unpaired intervals
    worst_group: Group | None  # with the lowest TPR, averaged over seeds, among the groups with status ok
    lowest_auroc_group: Group | None
    groups: dict[Group, GroupRates]


class Fidelity(Strict):
    """Share of visits that carry each code: real training, real held-out, synthetic (of the fairness-optimised arm).

    R2 is the coefficient of determination 1 - sum (x - y)^2 / sum (y - mean y)^2 of y against the line y = x. Over all
    sites, a site's synthetic visits weigh as much as its real training visits, however many were made.
    """

    codes: int
    visits: tuple[Count, Count, Count]  # training, held-out, synthetic
    r2: float | None  # held-out (y) by synthetic (x)
    r2_ceiling: float | None  # held-out (y) by real training (x): what sampling error alone leaves
    r2_training: float | None  # training (y) by synthetic (x)
    r2_training_rare: float | None  # the same, codes in fewer than 1 % of training visits
    points: tuple[tuple[float, float, float], ...]  # per code, unnamed: training, held-out, synthetic; or empty
    auroc_real: float | None  # on held-out patients, of a logistic regression trained on real training patients alone
    auroc_synthetic: float | None  # the same, trained on synthetic patients alone: whether they carry the outcome


class SiteVerdict(Strict):
    """Whether a site should add FairSynth's patients, by one predictor at one threshold."""

    predictor: str
    threshold: str
    verdict: Verdict


class Scope(Strict):
    """One site, or all sites together (summed counts)."""

    scope: str
    patients: Count  # real held-out
    positives: Count
    groups: tuple[GroupRow, ...]
    insufficient: tuple[Group, ...]
    results: tuple[Result, ...]  # by approach, predictor, threshold
    added: dict[str, dict[Group, tuple[int, int]]]  # approach -> group -> patients added with label 0 and 1
    fidelity: Fidelity
    verdicts: tuple[SiteVerdict, ...] = ()  # of a site, by predictor and threshold; its limits come from the site

    def result(self, *, approach: str, predictor: str, threshold: str) -> Result:
        """The result at these axes. Raises KeyError when there is none."""
        for result in self.results:
            if (result.approach, result.predictor, result.threshold) == (approach, predictor, threshold):
                return result
        raise KeyError((approach, predictor, threshold))


class Summary(Strict):
    """All that a report prints of an audit."""

    schema_: Literal["fairsynth.summary/1"] = "fairsynth.summary/1"
    axes: Axes
    sites: tuple[SiteId, ...]
    missing: tuple[SiteId, ...]  # of the roster, without a reply
    reference: tuple[Group, ...]
    minimum_positives: int
    minimum_cell: int
    confidence: float
    replicates: int  # bootstrap replicates of each interval, spread over the seeds
    scopes: tuple[Scope, ...]  # "all sites" first, then the sites in order

    def scope(self, name: str) -> Scope:
        """The scope `name`: a site, or "all sites". Raises KeyError when there is none."""
        for scope in self.scopes:
            if scope.scope == name:
                return scope
        raise KeyError(name)
