"""Summaries of rows -> the charts of one experiment: a file, a caption, and how it is drawn.

In:  `RowSummary`s of one setting.   Out: `Chart`s, in the order in which a page shows them.
Never: a chart without a caption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fairsynth.experiments.evidence import captions, figures
from fairsynth.experiments.evidence.counted import THRESHOLDS
from fairsynth.experiments.evidence.frontier import Frontier, frontier, weights
from fairsynth.experiments.evidence.summary import RowSummary
from fairsynth.experiments.evidence.tables import THRESHOLD_TITLES


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure of a page."""

    file: str
    caption: str
    draw: Callable[[Path], None]  # to the file at a path

    @property
    def markdown(self) -> str:
        """The figure with its caption, for a page in the same folder."""
        return f"![{self.caption.partition('. ')[0].partition(';')[0]}]({self.file})\n\n*{self.caption}*"


def charts(rows: Sequence[RowSummary], *, name: str) -> Iterator[Chart]:
    """The charts that `rows` have; their files begin with `name`. Of several rows, all are in the ceiling's, and the
    first has charts of its own, as it has tables of its own on the page."""
    if any(row.ceilings for row in rows):
        yield Chart(file=f"{name}-ceiling.svg", caption=captions.ceiling(rows), draw=partial(figures.ceiling, rows))
    for row in rows[:1]:
        own = f"{name}-r{row.real}-s{row.synthetic}"
        for predictor in dict.fromkeys(one.predictor for one in row.contrasts):
            yield Chart(
                file=f"{own}-{predictor}-gains.svg",
                caption=captions.forest(row, predictor=predictor),
                draw=partial(figures.forest, row, predictor=predictor),
            )
        if weights(row):
            found = _frontiers(row)
            yield Chart(
                file=f"{own}-lambda.svg",
                caption=captions.lambdas(found),
                draw=partial(figures.lambda_frontier, found),
            )


def _frontiers(row: RowSummary) -> list[tuple[str, Frontier]]:
    """One for each predictor and threshold, with its title."""
    return [
        (
            f"{predictor.replace('_', ' ')}, {THRESHOLD_TITLES[threshold]}",
            frontier(row, predictor=predictor, threshold=threshold),
        )
        for predictor in row.predictors
        for threshold in THRESHOLDS
    ]
