"""What FairSynth's patients changed at a site, on its own held-out patients -> what the site's verdict rests on.

In:  scores of the same held-out patients by both approaches, seed by seed.   Out: `SiteChange`: means and limits.
Never: a limit from seeds alone, which know nothing of other patients (docs/no-harm.md); a worst TPR of one group, which
says nothing of fairness; a score that leaves here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairsynth.audit.evaluate import Evaluation
from fairsynth.audit.place import Site
from fairsynth.fairness.paired_patients import HeldOut, Scores, differences, redraw_differences
from fairsynth.fairness.verdict import MINIMUM_GROUPS, UNKNOWN, Bounds, Change, SiteChange, bounds
from fairsynth.federation.plans import THRESHOLDS, reference_mask
from fairsynth.seeds import numpy_stream

Evaluations = Sequence[Evaluation]  # of one predictor: one a seed


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One predictor's evaluations on the same held-out patients, seed by seed."""

    real_only: Evaluations
    fairsynth: Evaluations


def site_changes(here: Site, compared: Mapping[str, Compared]) -> tuple[SiteChange, ...]:
    """One for each predictor and threshold, in the plan's order; `compared` is by predictor."""
    here.progress("what changed for the site's own held-out patients")
    return tuple(
        _change(here, compared[predictor], predictor=predictor, threshold=threshold)
        for predictor in here.plan.audit.predictors
        for threshold in THRESHOLDS
    )


def _change(here: Site, compared: Compared, *, predictor: str, threshold: str) -> SiteChange:
    """From real patients alone, with limits over seeds and patients."""
    held_out, at = _held_out(here), THRESHOLDS.index(threshold)
    if not len(held_out.label):
        return SiteChange(predictor=predictor, threshold=threshold, gain=UNKNOWN, f1=UNKNOWN, abs_log_di=UNKNOWN)
    before, after = _scores(compared.real_only, at), _scores(compared.fairsynth, at)
    seeds = differences(after, before, held_out=held_out)
    drawn = redraw_differences(
        after,
        before,
        held_out=held_out,
        replicates=here.plan.audit.bootstrap_replicates,
        rng=numpy_stream(here.plan.seed, "audit", here.site, "verdict", predictor, threshold),
    )

    def of(metric: str) -> Bounds:
        return bounds(Change(seeds=seeds[metric], replicates=drawn[metric]))

    fair = held_out.sufficient.sum() >= MINIMUM_GROUPS
    return SiteChange(
        predictor=predictor,
        threshold=threshold,
        gain=of("worst_tpr") if fair else UNKNOWN,
        f1=of("f1"),
        abs_log_di=of("abs_log_di"),
    )


def _held_out(here: Site) -> HeldOut:
    patients = here.cohort.held_out
    return HeldOut(
        label=patients.label.astype(np.int64),
        group=patients.group.astype(np.int64),
        names=here.plan.groups.names,
        reference=reference_mask(here.plan),
        minimum_positives=here.plan.audit.minimum_positives,
        favourable=here.plan.objective.favourable,
    )


def _scores(evaluations: Evaluations, at: int) -> Scores:
    """Of all seeds, with the threshold at position `at`."""
    return Scores(
        scores=np.stack([each.single for each in evaluations]),
        thresholds=np.array([each.thresholds[at] for each in evaluations]),
    )
