"""Judged targets of many rows -> in how many of them each is met.

In:  `Target`s and cells of Table 1, of any number of settings, rows and predictors.   Out: `Tally`s.
Never: a weight. Each row and predictor counts once, whatever its sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairsynth.config import Strict
from fairsynth.experiments.evidence.targets import Target

BEST_OF_FOUR = "best_of_table_1"


class Table1Cell(Strict):
    """One metric of one row of Table 1: four approaches, and whether the method is the best of them."""

    predictor: str
    threshold: str
    metric: str
    best: bool


class Tally(Strict):
    """In how many rows and predictors one thing that was asked is met, at one threshold."""

    asked: str
    threshold: str
    met: int
    shown: int | None  # of those met, how many with the whole interval on the right side; None: no interval decides
    missed: int
    not_estimable: int  # among them what was not asked for, because the oracle does not get there either

    @property
    def of(self) -> int:
        """All of them."""
        return self.met + self.missed + self.not_estimable


def tally(targets: Sequence[Target], *, table1: Iterable[Table1Cell] = ()) -> tuple[Tally, ...]:
    """One for each name and threshold, in the order in which they come first; the cells of Table 1 last."""
    keys = dict.fromkeys((one.name, one.threshold) for one in targets)
    found = [_targets([one for one in targets if (one.name, one.threshold) == key]) for key in keys]
    cells = tuple(table1)
    thresholds = dict.fromkeys(cell.threshold for cell in cells)
    return (*found, *(_cells([cell for cell in cells if cell.threshold == at]) for at in thresholds))


def _targets(targets: Sequence[Target]) -> Tally:
    met = [one for one in targets if one.status == "met"]
    return Tally(
        asked=targets[0].name,
        threshold=targets[0].threshold,
        met=len(met),
        shown=sum(one.shown is True for one in met),
        missed=sum(one.status == "missed" for one in targets),
        not_estimable=sum(one.status == "not estimable" for one in targets),
    )


def _cells(cells: Sequence[Table1Cell]) -> Tally:
    won = sum(cell.best for cell in cells)
    return Tally(
        asked=BEST_OF_FOUR,
        threshold=cells[0].threshold,
        met=won,
        shown=None,
        missed=len(cells) - won,
        not_estimable=0,
    )
