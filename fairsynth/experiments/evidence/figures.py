"""Summaries of rows -> charts: gains with intervals, shares of the ceiling, fairness against F1.

In:  `RowSummary`s, `Frontier`s.   Out: SVG files, the same bytes for the same numbers.
Never: pyplot or its global state; a point without its interval where there is one; colour as the only difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fairsynth.experiments.evidence.frontier import Frontier
from fairsynth.experiments.evidence.measures import NO_THRESHOLD
from fairsynth.experiments.evidence.roles import FAMILIES, ORACLE, ordered, title
from fairsynth.experiments.evidence.summary import RowSummary
from fairsynth.experiments.evidence.tables import metric_title
from fairsynth.experiments.evidence.targets import SHARE
from fairsynth.fairness.paired import Paired
from fairsynth.report.svg import colour, marker

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fairsynth",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}
_GAINS = (("worst_tpr", "half"), ("worst_tpr", "tuned"), ("lowest_group_auroc", NO_THRESHOLD))
_SHARES = (-1.0, 3.0)  # what a chart shows at most: with few seeds Fieller's intervals can be very long
_ABREAST = 2  # panels of the frontier beside each other: one for each threshold
_KINDS = ("data-level baseline", "model-level comparison", "oracle", "variant or control")


def forest(row: RowSummary, path: Path, *, predictor: str) -> None:
    """What the method gains over every other approach: a line each, with its interval."""
    found = [row.contrast(metric, predictor=predictor, threshold=at) for metric, at in _GAINS]
    names = ordered(tuple(dict.fromkeys(name for one in found if one is not None for name in one.against)))

    def drawing(figure: Figure) -> None:
        panels = figure.subplots(1, len(_GAINS), sharey=True)
        for panel, (metric, at), contrast in zip(panels, _GAINS, found, strict=True):
            for kind, label in enumerate(_KINDS):
                own = [(y, name) for y, name in enumerate(names) if _kind(name) == kind]
                gains = [(y, contrast.against[name]) for y, name in own if contrast and name in contrast.against]
                _points(panel, gains, index=kind, label=label)
            panel.axvline(0, color="0.4", linewidth=1)
            panel.set(title=metric_title(metric, at), xlabel="FairSynth minus it")
        panels[0].set_yticks(range(len(names)), labels=[title(name) for name in names])
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(_KINDS))

    _draw(drawing, path, size=(11, 1.6 + 0.27 * max(len(names), 4)))


def _kind(approach: str) -> int:
    """Index into `_KINDS`."""
    for index, family in enumerate(("data_level", "model_level")):
        if approach in FAMILIES[family]:
            return index
    return 2 if approach == ORACLE else 3


def _points(panel: Axes, gains: Sequence[tuple[float, Paired]], *, index: int, label: str) -> None:
    """Gains (y, interval); those that are undefined are left out."""
    drawn = [(y, gain.mean, gain) for y, gain in gains if gain.mean is not None]
    if not drawn:
        return
    means = [mean for _, mean, _ in drawn]
    panel.errorbar(
        means,
        [y for y, _, _ in drawn],
        xerr=_reach([(mean, gain.low, gain.high) for _, mean, gain in drawn]),
        color=colour(index),
        marker=marker(index),
        linestyle="none",
        capsize=2,
        label=label,
    )


def _reach(values: Sequence[tuple[float, float | None, float | None]]) -> Any:
    """(2, n) how far intervals go below and above (mean, low, high); 0 where there is none."""
    return (
        np.array(
            [
                (mean - (mean if low is None else low), (mean if high is None else high) - mean)
                for mean, low, high in values
            ]
        )
        .reshape(-1, 2)
        .T
    )


def ceiling(rows: Sequence[RowSummary], path: Path) -> None:
    """The share of the oracle's gain that the method reaches, by predictor; crosses where there is none."""
    predictors = list(dict.fromkeys(one.predictor for row in rows for one in row.ceilings))
    sizes = [f"{row.real:,} + {row.synthetic:,}" for row in rows]

    def drawing(figure: Figure) -> None:
        panels = figure.subplots(1, max(len(predictors), 1), sharey=True, squeeze=False)[0]
        for panel, predictor in zip(panels, predictors, strict=False):
            for index, key in enumerate(_GAINS):
                _shares(panel, rows, predictor, key, index=index)
            panel.axvline(1, color="0.4", linewidth=1)
            panel.axvline(SHARE, color="0.4", linewidth=1, linestyle="--")
            panel.set(title=predictor.replace("_", " "), xlabel="share of the oracle's gain over real only")
            left, right = panel.get_xlim()
            panel.set_xlim(max(left, _SHARES[0]), min(right, _SHARES[1]))
        panels[0].set_yticks(range(len(sizes)), labels=sizes)
        panels[0].set_ylabel("real + synthetic patients")
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        handles.append(Line2D([], [], color="0.4", marker="x", linestyle="none"))
        labels.append("not estimable, not 0")
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))

    _draw(drawing, path, size=(3.2 + 3 * max(len(predictors), 1), 1.8 + 0.5 * len(rows)))


def _shares(panel: Axes, rows: Sequence[RowSummary], predictor: str, key: tuple[str, str], *, index: int) -> None:
    """One metric's shares, a little below the one before."""
    found = [
        (y + 0.2 * (index - 1), one.share)
        for y, row in enumerate(rows)
        for one in row.ceilings
        if (one.predictor, one.metric, one.threshold) == (predictor, *key)
    ]
    known = [(y, one.share, one) for y, one in found if one.share is not None]
    style = {"color": colour(index), "linestyle": "none"}
    panel.errorbar(
        [share for _, share, _ in known],
        [y for y, _, _ in known],
        xerr=_reach([(share, one.low, one.high) for _, share, one in known]),
        marker=marker(index),
        capsize=2,
        label=metric_title(*key),
        **cast(Any, style),
    )
    unknown = [y for y, one in found if one.share is None]
    panel.plot([0] * len(unknown), unknown, marker="x", **cast(Any, style))


def lambda_frontier(frontiers: Sequence[tuple[str, Frontier]], path: Path) -> None:
    """Fairness against F1, a panel for each (title, frontier), a point for each lambda.

    A line is at the lowest F1, a ring about the recommended lambda.
    """
    weights = sorted({one.weight for _, found in frontiers for one in found.points})
    down = max(-(-len(frontiers) // _ABREAST), 1)

    def drawing(figure: Figure) -> None:
        panels = figure.subplots(down, _ABREAST, squeeze=False)
        for panel, (name, found) in zip(panels.flat, frontiers, strict=False):
            _frontier(panel, found, weights=weights)
            panel.set(title=name, xlabel="F1", ylabel=metric_title(found.metric, NO_THRESHOLD))
        for spare in panels.flat[len(frontiers) :]:
            spare.remove()
        keys = [Line2D([], [], label=f"lambda {weight:g}", **_of_weight(k)) for k, weight in enumerate(weights)]
        figure.legend(handles=keys, loc="outside upper center", ncols=max(len(keys), 1))

    _draw(drawing, path, size=(3.9 * _ABREAST, 0.5 + 2.9 * down))


def _of_weight(index: int) -> dict[str, Any]:
    """How the `index`th lambda's point looks: labels would lie on each other where lambda moves little."""
    return {"color": colour(index), "marker": marker(index), "linestyle": "none"}


def _frontier(panel: Axes, found: Frontier, *, weights: Sequence[float]) -> None:
    """One panel; `weights` are the lambdas of all panels, in order."""
    for one in found.points:
        f1, fairness = one.f1, one.fairness
        if f1.mean is None or fairness.mean is None:
            continue
        panel.errorbar(
            [f1.mean],
            [fairness.mean],
            xerr=_reach([(f1.mean, f1.low, f1.high)]),
            yerr=_reach([(fairness.mean, fairness.low, fairness.high)]),
            elinewidth=0.6,
            **cast(Any, _of_weight(weights.index(one.weight))),
        )
        if one.weight == found.recommended:
            panel.plot([f1.mean], [fairness.mean], marker="o", markersize=13, markerfacecolor="none", color="0.2")
    if found.floor is not None:
        panel.axvline(found.floor, color="0.4", linewidth=1, linestyle="--")


def _draw(drawing: Callable[[Figure], None], path: Path, *, size: tuple[float, float]) -> None:
    """Run `drawing` on a new figure of `size` inches and write it to `path`, whole or not at all."""
    with mpl.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=size, layout="constrained")
        drawing(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        temporary.replace(path)
