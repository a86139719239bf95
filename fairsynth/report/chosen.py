"""How FairSynth's patients came about: by which quotas, from which generator, and who gave them their outcome.

In:  `StudyRecord`.   Out: sentences, and tables of the guides that were tried.
Never: a count of people; held-out patients, who took no part in the choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairsynth.augmentation.guided import CANDIDATES
from fairsynth.fairness import metrics
from fairsynth.federation.plans import is_taught, reference_mask
from fairsynth.report import wording
from fairsynth.report.study import StudyRecord
from fairsynth.report.view import Cell, Row, Table, number

_QUOTAS = {
    "equal_rates": "patients with the outcome until every group of the site has the same share of them, the highest"
    " share that the number allows and at most one half; what is left goes to the smallest groups",
    "equal_cells": "patients of the cells (a group with or without the outcome) that have the fewest, until real and"
    " synthetic cells are as equal as the number allows",
}
_PREFIX = (
    "The generator was asked for patients of a group with a given outcome and drew the rest of their record: their"
    " outcome is what the generator takes for one."
)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Sentences, and tables where a teacher chose."""

    sentences: tuple[str, ...]
    tables: tuple[Table, ...]


def chosen(study: StudyRecord) -> Chosen:
    """How the patients of the approach `fairsynth` were made."""
    event = study.event("planned")
    taught = is_taught(study.plan)
    tables = (_guide(study, event), _trials(study, event)) if taught and event else ()
    untold = (wording.NO_TRIALS,) if taught and not study.events else ()  # no journal: at home
    return Chosen(sentences=(*_sentences(study), *untold), tables=tables)


def _sentences(study: StudyRecord) -> Iterator[str]:
    plan = study.plan.augmentation
    yield f"Each site added {plan.synthetic_patients:,} synthetic patients to its own real ones: {_QUOTAS[plan.plan]}."
    if plan.home_rounds:
        yield (
            "Before it drew anyone, each site trained the common FairSynth generator on its own patients alone for"
            f" {_times(plan.home_rounds)}. What came of that never left it."
        )
    if not is_taught(study.plan):
        yield _PREFIX
        return
    yield (
        f"The generator was asked for {CANDIDATES} candidates of a group for each patient wanted, their outcome left"
        " open. A teacher ordered each group's candidates by risk: a logistic regression that the sites trained"
        " together, and beside it a random forest of each site's own patients, which stayed there. A cut divides a"
        " group's candidates: from above it mostly came the patients with the outcome, from below it mostly those"
        " without."
    )
    yield (
        "So the generator says what patients look like, and the teacher who of them has the outcome. As many of one"
        " group are above its cut whatever the group's true risk: read scores of such a model as ranks, not as chances."
    )


def _times(rounds: int) -> str:
    return "one more round" if rounds == 1 else f"{rounds} more rounds"


def _guide(study: StudyRecord, event: dict[str, Any]) -> Table:
    """The share of each group's candidates above its cut."""
    return Table(
        caption="The guide that was kept: share of a group's candidates above its cut.",
        columns=("Group", "Above the cut"),
        rows=tuple(
            Row(name=str(group), cells=(Cell(text=number(share)),))
            for group, share in zip(study.plan.groups.names, event["selected"], strict=True)
        ),
    )


def _trials(study: StudyRecord, event: dict[str, Any]) -> Table:
    """What the guides that were tried did, the one that was kept set off."""
    predictor = study.plan.audit.predictors[0]
    rows = []
    for trial in event["tried"]:
        kept = trial["selected"] == event["selected"]
        impact = float(metrics.disparate_impact(np.asarray(trial["seen"]), reference=reference_mask(study.plan)))
        cells = (
            Cell(text=number(trial["f1"])),
            Cell(text=number(trial["worst_tpr"])),
            Cell(text=number(impact)) if np.isfinite(impact) else Cell(missing="undefined"),
            Cell(text="yes" if kept else "no"),
        )
        rows.append(Row(name=_shares(trial["selected"]), cells=cells, primary=kept))
    return Table(
        caption="The guides that were tried, judged on patients who are not held out.",
        columns=("Above the cut", "F1", "Worst TPR", "Disparate impact", "Kept"),
        rows=tuple(rows),
        note=f"{wording.PREDICTORS.get(predictor, predictor)} at 0.5, all sites. F1 and worst TPR are of validation"
        " patients (where no group has enough positives, the TPR of all together), disparate impact of training and"
        " validation patients. Of the shares whose F1 is near the best, that with the highest worst TPR was kept; cuts"
        " of the groups' own instead, if they brought disparate impact nearer to 1.",
    )


def _shares(selected: list[float]) -> str:
    same = len(set(selected)) == 1
    return f"{number(selected[0])} of every group" if same else "cuts of the groups' own"
