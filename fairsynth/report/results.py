"""The tables of the audit: four approaches, their change, groups, fidelity.

In:  `FinishedStudy`.   Out: `Table` values.
Never: a rate of a group that the summary calls INSUFFICIENT; arithmetic on metrics (audit.summarise does it).
"""

from __future__ import annotations

from dataclasses import dataclass

from fairsynth.audit.summary import ALL_SITES, GroupRow, Result, Scope
from fairsynth.fairness.estimates import Estimate
from fairsynth.governance.members import Members, guarded, pooled
from fairsynth.report import wording
from fairsynth.report.study import FinishedStudy, StudyRecord
from fairsynth.report.view import Cell, Part, Row, Table, count_cell, count_text, estimate_cell, listed, number, span

SHOWN = ("disparate_impact", "worst_tpr", "f1", "auroc", "selection_rate", "ppv")
CHANGES = ("disparate_impact", "worst_tpr", "f1", "auroc")
NOT_ESTIMATED = "not estimated"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One predictor and threshold."""

    predictor: str
    threshold: str

    @property
    def text(self) -> str:
        """How a caption names it."""
        predictor = wording.PREDICTORS.get(self.predictor, self.predictor)
        return f"{predictor}, threshold: {wording.THRESHOLDS.get(self.threshold, self.threshold)}"


def primary(study: FinishedStudy) -> Setting:
    """The setting that the finding speaks of, fixed by the plan and not by the results.

    It is the plan's first predictor, at the threshold tuned on validation patients: at 0.5 a model of a rare outcome
    flags almost nobody.
    """
    thresholds = study.axes.thresholds
    return Setting(predictor=study.axes.predictors[0], threshold="tuned" if "tuned" in thresholds else thresholds[0])


def settings(study: FinishedStudy) -> tuple[Setting, ...]:
    """Every predictor and threshold, the primary one first."""
    first = primary(study)
    every = [Setting(predictor=p, threshold=t) for p in study.axes.predictors for t in study.axes.thresholds]
    return (first, *(setting for setting in every if setting != first))


def approach_name(approach: str) -> str:
    """The printed name of an approach."""
    return wording.APPROACHES.get(approach, approach)


def seeds_text(study: FinishedStudy) -> str:
    """How many trainings a mean is over."""
    return "mean over 1 seed" if study.axes.seeds == 1 else f"mean over {study.axes.seeds} seeds"


def positives_name(study: StudyRecord) -> str:
    """What patients with label 1 are called."""
    return wording.POSITIVES.get(study.plan.task.name, "positives")


def members(study: FinishedStudy, scope: Scope) -> Members:
    """Held-out patients and positives of every group of `scope`, as they may be printed."""
    minimum = study.plan.audit.minimum_cell

    def of(one: Scope) -> Members:
        patients, positives = [row.patients for row in one.groups], [row.positives for row in one.groups]
        return guarded(patients, positives, totals=(one.patients, one.positives), minimum=minimum)

    if scope.scope != ALL_SITES:
        return of(scope)
    sites = [of(study.summary.scope(site)) for site in study.known]
    return pooled(of(scope), sites, totals=(scope.patients, scope.positives), minimum=minimum)


def scope_name(scope: Scope) -> str:
    """The printed name of a scope."""
    return "All sites" if scope.scope == ALL_SITES else f"Site {scope.scope}"


def whose(study: FinishedStudy) -> str:
    """Whose patients the head of the report speaks of."""
    return "all sites" if study.home is None else f"site {study.home}"


def approaches_table(study: FinishedStudy, scope: Scope, setting: Setting) -> Table:
    """The four approaches at one setting."""
    rows = []
    for approach in study.axes.approaches:
        result = scope.result(approach=approach, predictor=setting.predictor, threshold=setting.threshold)
        cells = [_metric(name, result) for name in SHOWN]
        added = sum(sum(cell) for cell in scope.added[approach].values())
        rows.append(
            Row(
                name=approach_name(approach),
                cells=(*cells, Cell(text=f"{added:,}")),
                primary=approach == "fairsynth",
            )
        )
    caption = (
        f"{scope_name(scope)}: {count_text(scope.patients)} real held-out patients, {count_text(scope.positives)}"
        f" {positives_name(study)}. {setting.text}. {seeds_text(study).replace('mean', 'Mean (sd)')}, and"
        f" {_confidence(study)} interval."
    )
    columns = ("Trained on", *(wording.METRICS[name] for name in SHOWN), "Patients added")
    return Table(caption=caption, columns=columns, rows=tuple(rows), note=_groups_note(study, scope))


def changes_table(study: FinishedStudy, scope: Scope, setting: Setting) -> Table:
    """How each approach differs from the first, with whether the difference is within noise."""
    rows = []
    for approach in study.axes.approaches[1:]:
        result = scope.result(approach=approach, predictor=setting.predictor, threshold=setting.threshold)
        cells = tuple(_change(result.change[name]) for name in CHANGES)
        rows.append(Row(name=approach_name(approach), cells=cells, primary=approach == "fairsynth"))
    first = approach_name(study.axes.approaches[0]).lower()
    return Table(
        caption=f"{scope_name(scope)}: change from {first}. {setting.text}.",
        columns=("Trained on", *(wording.METRICS[name] for name in CHANGES)),
        rows=tuple(rows),
        note=f"The intervals treat the two approaches as judged on different patients, because {_only_counts(study)}."
        f" They are therefore wide. Within noise: the {_confidence(study)} interval holds 0.",
    )


def groups_table(study: FinishedStudy, scope: Scope, setting: Setting) -> Table:
    """TPR of every group under the four approaches, with the group's size."""
    counts = members(study, scope)
    rows = []
    for index, group in enumerate(scope.groups):
        tpr = [
            _rate(group, scope.result(approach=a, predictor=setting.predictor, threshold=setting.threshold), "tpr")
            for a in study.axes.approaches
        ]
        cells = (count_cell(counts.patients[index]), count_cell(counts.positives[index]), *tpr)
        rows.append(Row(name=group_name(group), cells=cells, muted=group.status != "ok"))
    columns = ("Group", "Held out", positives_name(study).capitalize(), *map(approach_name, study.axes.approaches))
    return Table(
        caption=f"{scope_name(scope)}: TPR by group on real held-out patients. {setting.text}.",
        columns=columns,
        rows=tuple(rows),
        note=_groups_note(study, scope),
    )


def rates_table(study: FinishedStudy, scope: Scope, setting: Setting, *, approach: str) -> Table:
    """All rates of every group under one approach."""
    result = scope.result(approach=approach, predictor=setting.predictor, threshold=setting.threshold)
    names = ("selection_rate", "tpr", "fpr", "ppv", "auroc")
    rows = tuple(
        Row(
            name=group_name(group),
            cells=tuple(_rate(group, result, name) for name in names),
            muted=group.status != "ok",
        )
        for group in scope.groups
    )
    return Table(
        caption=f"{approach_name(approach)}. {setting.text}.",
        columns=("Group", "Selection rate", "TPR", "False alarm rate", "PPV", "AUROC"),
        rows=rows,
    )


def scope_parts(study: FinishedStudy) -> tuple[Part, ...]:
    """Every scope with all its settings."""
    return tuple(
        Part(
            name=f"{scope_name(scope)}: every predictor and threshold",
            tables=tuple(approaches_table(study, scope, setting) for setting in settings(study)),
        )
        for scope in study.scopes
    )


def group_parts(study: FinishedStudy) -> tuple[Part, ...]:
    """Every scope with its group tables at the primary setting."""
    setting = primary(study)
    return tuple(
        Part(
            name=f"{scope_name(scope)}: every group, all rates",
            tables=(
                groups_table(study, scope, setting),
                *(rates_table(study, scope, setting, approach=approach) for approach in study.axes.approaches),
            ),
        )
        for scope in study.scopes
    )


def fidelity_table(study: FinishedStudy) -> Table:
    """R2 of code prevalence in every scope and the AUROC that synthetic patients alone teach, each by its ceiling."""
    rows = []
    for scope in study.scopes:
        fidelity = scope.fidelity
        values = (
            fidelity.r2,
            fidelity.r2_ceiling,
            fidelity.r2_training_rare,
            fidelity.auroc_synthetic,
            fidelity.auroc_real,
        )
        visits = tuple(count_cell(count) for count in fidelity.visits)
        figures = tuple(Cell(text=number(v, 3)) if v is not None else Cell(missing=NOT_ESTIMATED) for v in values)
        rows.append(Row(name=scope_name(scope), cells=(*visits, *figures)))
    return Table(
        caption="How synthetic visits resemble real ones (FairSynth generator, in each site's own mix of groups and"
        " outcomes).",
        columns=(
            "Scope",
            "Training visits",
            "Held-out visits",
            "Synthetic visits",
            "R2",
            "R2 ceiling",
            "R2, rare codes",
            "AUROC, synthetic",
            "AUROC, real",
        ),
        rows=tuple(rows),
        note="R2 compares the share of visits with each code: held-out by synthetic, against the line of equality, so"
        " it can be negative; its ceiling is held-out by training; rare codes, in fewer than 1 % of training visits,"
        " are training by synthetic. AUROC is that of a logistic regression on real held-out patients, trained on"
        " synthetic patients alone, or on real ones alone: the nearer the two are, the more the synthetic patients tell"
        " of who has the outcome.",
    )


def group_name(row: GroupRow) -> str:
    """A group, marked when it is a reference group."""
    return f"{row.group} (reference)" if row.reference else str(row.group)


def within_noise(change: Estimate) -> bool | None:
    """Whether the interval of a change holds 0; None without an interval."""
    if change.low is None or change.high is None:
        return None
    return change.low <= 0 <= change.high


def _metric(name: str, result: Result) -> Cell:
    note = f"lowest: {result.worst_group}" if name == "worst_tpr" and result.worst_group is not None else ""
    return estimate_cell(result.metrics[name], note=note)


def _change(change: Estimate) -> Cell:
    if change.mean is None:
        return Cell(missing=wording.INSUFFICIENT)
    sign = "+" if change.mean > 0 else ""
    verdict = {True: "within noise", False: "beyond noise", None: "no interval"}[within_noise(change)]
    return Cell(text=f"{sign}{number(change.mean)}", interval=span(change), note=verdict)


def _rate(group: GroupRow, result: Result, name: str) -> Cell:
    if group.status != "ok" and name != "selection_rate":
        return Cell(missing=wording.INSUFFICIENT)
    rate: Estimate = getattr(result.groups[group.group], name)
    return estimate_cell(rate, missing=NOT_ESTIMATED)


def _groups_note(study: FinishedStudy, scope: Scope) -> str:
    compared = [row.group for row in scope.groups if row.status == "ok"]
    over = listed(compared) if compared else "no group"
    note = f"Worst TPR is over the groups with at least {study.plan.audit.minimum_positives} held-out"
    note += f" {positives_name(study)}: {over}."
    if scope.insufficient:
        note += f" {wording.INSUFFICIENT}, left out: {listed(scope.insufficient)}."
    return note


def _only_counts(study: FinishedStudy) -> str:
    return "only counts leave a site" if study.home is None else "an audit keeps counts alone"


def _confidence(study: FinishedStudy) -> str:
    return f"{study.summary.confidence * 100:g} %"
