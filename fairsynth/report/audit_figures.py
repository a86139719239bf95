"""The audit's figures: TPR by group and approach, and code prevalence.

In:  `FinishedStudy`.   Out: `Picture` values.
Never: a point that stands for fewer people or visits than the minimum cell.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fairsynth.audit.summary import GroupRow, Scope
from fairsynth.fairness.estimates import Estimate
from fairsynth.report import svg, wording
from fairsynth.report.results import approach_name, group_name, members, positives_name, primary, whose
from fairsynth.report.study import FinishedStudy
from fairsynth.report.view import Picture, count_text, number
from fairsynth.schemas import FloatArray

_FLOOR = 3e-4  # prevalence at which codes that never occur are drawn


def group_figure(study: FinishedStudy) -> Picture:
    """TPR with interval of every group and approach, over all sites or the one at home."""
    scope = study.whole
    names = _group_labels(study, scope)

    def drawing(figure: Figure) -> None:
        panel = figure.subplots()
        approaches = study.axes.approaches
        for index, approach in enumerate(approaches):
            offset = (index - (len(approaches) - 1) / 2) * 0.17
            _points(panel, _rates(study, scope, approach), index=index, offset=offset, label=approach_name(approach))
        for place, group in enumerate(scope.groups):
            if group.status != "ok":
                panel.axvspan(place - 0.45, place + 0.45, color=svg.FAINT, alpha=0.5, linewidth=0)
                panel.text(place, 0.5, wording.INSUFFICIENT, rotation=90, ha="center", va="center", fontsize=9)
        panel.set_xticks(range(len(names)), names)
        panel.set_xlim(-0.6, len(names) - 0.4)
        panel.set_ylim(0, 1)
        panel.set_ylabel(f"TPR: share of {positives_name(study)} flagged")
        panel.grid(visible=False, axis="x")
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper left", ncols=len(approaches))

    caption = (
        f"Share of true {positives_name(study)} that the model flagged, by group, on real held-out patients of"
        f" {whose(study)}, with {study.summary.confidence * 100:g} % intervals. {primary(study).text}. Grey:"
        f" {wording.INSUFFICIENT}, fewer than {study.plan.audit.minimum_positives} held-out {positives_name(study)}."
    )
    width = max(8.2, min(1.5 * len(names) + 1.0, 12.0))
    return Picture(
        svg=svg.draw(drawing, name="groups", alt=_groups_alt(study, scope), size=(width, 3.8)), caption=caption
    )


def fidelity_figure(study: FinishedStudy) -> Picture:
    """Prevalence of every code: synthetic against real held-out visits, and the ceiling beside it."""
    scope = study.whole
    fidelity = scope.fidelity
    points, left_out = _drawn_codes(study, scope)  # (K, 3): training, held out, synthetic
    panels = (
        (2, "synthetic visits", fidelity.r2, 1),
        (0, "real training visits (ceiling)", fidelity.r2_ceiling, 0),
    )

    def drawing(figure: Figure) -> None:
        plots = figure.subplots(1, 2, sharex=True, sharey=True)
        for plot, (column, name, r2, shade) in zip(plots, panels, strict=True):
            plot.set_xscale("log")
            plot.set_yscale("log")
            plot.plot([_FLOOR, 1], [_FLOOR, 1], color=svg.INK, linewidth=0.8, linestyle="--")
            heights = np.maximum(points[:, column], _FLOOR)
            plot.scatter(points[:, 1], heights, s=14, color=svg.colour(shade), alpha=0.7, linewidths=0)
            plot.set_title(f"R2 = {number(r2, 3) if r2 is not None else 'not estimated'}")
            plot.set_xlabel("share of real held-out visits with the code")
            plot.set_ylabel(f"share of {name}")
            _shares(plot)

    caption = (
        f"Each dot is a code in the visits of {whose(study)}; on the dashed line the two shares are equal."
        f" {left_out:,} of {fidelity.codes:,} codes are in fewer than {study.plan.audit.minimum_cell} real visits of"
        " either kind and are not drawn; R2 counts them. Codes that no synthetic visit has lie on the bottom edge."
    )
    r2, ceiling = (number(v, 3) if v is not None else "not estimated" for v in (fidelity.r2, fidelity.r2_ceiling))
    alt = f"Two scatter plots of code prevalence by real held-out visits. Synthetic: R2 {r2}. Training: {ceiling}."
    return Picture(svg=svg.draw(drawing, name="fidelity", alt=alt, size=(8.4, 4.2)), caption=caption)


def _shares(plot: Plot) -> None:
    """Logarithmic axes from the floor to 100 %."""
    plot.set_xlim(_FLOOR, 1)
    plot.set_ylim(_FLOOR * 0.8, 1)
    for axis in (plot.xaxis, plot.yaxis):
        axis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 1]))
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axis.set_minor_locator(NullLocator())


def _points(panel: Plot, rates: list[Estimate | None], *, index: int, offset: float, label: str) -> None:
    """One approach: a mean and an interval for each group that has them."""
    known = [(place + offset, rate) for place, rate in enumerate(rates) if rate is not None and rate.mean is not None]
    panel.plot(
        [place for place, _ in known],
        np.array([rate.mean for _, rate in known], dtype=np.float64),
        linestyle="none",
        marker=svg.marker(index),
        color=svg.colour(index),
        label=label,
    )
    for place, rate in known:
        if rate.low is not None and rate.high is not None:
            panel.plot([place, place], [rate.low, rate.high], color=svg.colour(index), linewidth=1.4)


def _rates(study: FinishedStudy, scope: Scope, approach: str) -> list[Estimate | None]:
    """TPR of every group, None where INSUFFICIENT."""
    setting = primary(study)
    result = scope.result(approach=approach, predictor=setting.predictor, threshold=setting.threshold)
    return [result.groups[row.group].tpr if row.status == "ok" else None for row in scope.groups]


def _group_labels(study: FinishedStudy, scope: Scope) -> list[str]:
    counts = members(study, scope)
    return [
        f"{_wrapped(row)}\nn = {count_text(counts.patients[index])}\n{count_text(counts.positives[index])}"
        f" {positives_name(study)}"
        for index, row in enumerate(scope.groups)
    ]


def _wrapped(row: GroupRow) -> str:
    return group_name(row).replace(" (", "\n(") if row.reference else f"{row.group}\n"


def _groups_alt(study: FinishedStudy, scope: Scope) -> str:
    parts = []
    for approach in study.axes.approaches:
        values = [
            f"{row.group} {number(rate.mean)}"
            for row, rate in zip(scope.groups, _rates(study, scope, approach), strict=True)
            if rate is not None and rate.mean is not None
        ]
        parts.append(f"{approach_name(approach)}: {', '.join(values) or 'no group estimated'}")
    alt = f"True positive rate by group. {'; '.join(parts)}."
    return f"{alt} {wording.INSUFFICIENT}: {', '.join(scope.insufficient)}." if scope.insufficient else alt


def _drawn_codes(study: FinishedStudy, scope: Scope) -> tuple[FloatArray, int]:
    """(K, 3) prevalence of the codes with enough training and held-out visits, and how many codes are left out."""
    points = np.asarray(scope.fidelity.points, dtype=np.float64).reshape(-1, 3)
    training, held_out, _ = scope.fidelity.visits
    if isinstance(training, str) or isinstance(held_out, str):
        return np.zeros((0, 3)), len(points)
    counts = points[:, :2] * np.array([training, held_out])
    keep = (counts >= study.plan.audit.minimum_cell - 0.5).all(axis=1)
    return points[keep], int((~keep).sum())
