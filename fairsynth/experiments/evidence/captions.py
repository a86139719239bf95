"""Summaries of rows -> a caption for each chart that says what to conclude from it.

In:  `RowSummary`s, `Frontier`s.   Out: sentences.
Never: a conclusion that the numbers do not hold; a count without of how many.
"""

from __future__ import annotations

from collections.abc import Sequence

from fairsynth.experiments.evidence.contrasts import CEILINGS, MOST_COPIES, Contrast
from fairsynth.experiments.evidence.frontier import Frontier
from fairsynth.experiments.evidence.roles import FAMILIES, ORACLE
from fairsynth.experiments.evidence.summary import RowSummary
from fairsynth.experiments.evidence.tables import interval, metric_title
from fairsynth.experiments.evidence.targets import SHARE
from fairsynth.fairness.paired import Paired


def gains(rows: Sequence[RowSummary]) -> str:
    """In how many rows and predictors the method is above every data-level baseline, for each metric of the charts.

    Empty where there is none to compare with.
    """
    said = []
    for metric, threshold in CEILINGS:
        found = [one for row in rows for one in row.contrasts if (one.metric, one.threshold) == (metric, threshold)]
        compared = [own for own in (_over(one, "data_level") for one in found) if own]
        if not compared:
            continue
        above = [own for own in compared if all(_above(gain) for gain in own)]
        shown = [own for own in above if all(gain.excludes_zero for gain in own)]
        said.append(
            f"in {metric_title(metric, threshold)} in {len(above)} of {len(compared)}"
            f" (every interval above 0 in {len(shown)})"
        )
    return f"Over (row, predictor), FairSynth is above every data-level baseline {'; '.join(said)}." if said else ""


def forest(row: RowSummary, *, predictor: str) -> str:
    """What the chart of one predictor's gains shows."""
    said = []
    for metric, threshold in CEILINGS:
        found = row.contrast(metric, predictor=predictor, threshold=threshold)
        if found is not None:
            sides = [_beaten(found, family) for family in FAMILIES]
            sides.append(_oracle(found))
            said.append(f"{metric_title(metric, threshold)}: {', '.join(side for side in sides if side)}.")
    head = (
        f"FairSynth minus every other approach, {predictor.replace('_', ' ')}, {row.real:,} real and {row.synthetic:,}"
        f" synthetic patients; right of the line FairSynth is better; 95 % intervals over {len(row.seeds)}"
        f" seed{'' if len(row.seeds) == 1 else 's'}."
    )
    return " ".join([head, *said])


def _beaten(found: Contrast, family: str) -> str:
    """As `above 5 of 5 data-level baselines (interval above 0 for 4)`; empty where none was run."""
    own = _over(found, family)
    if not own:
        return ""
    above = [gain for gain in own if _above(gain)]
    shown = sum(gain.excludes_zero for gain in above)
    kind = {"data_level": "data-level baselines", "model_level": "model-level comparisons"}[family]
    return f"above {len(above)} of {len(own)} {kind} (interval above 0 for {shown})"


def _oracle(found: Contrast) -> str:
    gain = found.against.get(ORACLE)
    return "" if gain is None or gain.mean is None else f"minus the oracle {interval(gain)}"


def _over(found: Contrast, family: str) -> list[Paired]:
    """The gains over each member of a family that is defined on some seed."""
    return [gain for name in FAMILIES[family] if (gain := found.against.get(name)) is not None and gain.seeds]


def _above(gain: Paired) -> bool:
    return gain.mean is not None and gain.mean > 0


def ceiling(rows: Sequence[RowSummary]) -> str:
    """What the chart of the shares of the ceiling shows."""
    said = []
    for metric, threshold in CEILINGS:
        found = [
            one.share for row in rows for one in row.ceilings if (one.metric, one.threshold) == (metric, threshold)
        ]
        known = [one.share for one in found if one.share is not None]
        reached = sum(share >= SHARE for share in known)
        silent = f", not estimable in {len(found) - len(known)}" if len(known) < len(found) else ""
        said.append(f"{metric_title(metric, threshold)}: {reached} of {len(found)}{silent}")
    return (
        "How far FairSynth goes of the way from real only (0) to the oracle, which adds fresh real patients (1)."
        f" At least {SHARE:g} of the way (the dashed line), counted over (row, predictor): {'; '.join(said)}."
        f" It is not estimable where more than {MOST_COPIES:.0%} of the oracle's patients are copies, for want of fresh"
        " ones."
    )


def lambdas(frontiers: Sequence[tuple[str, Frontier]]) -> str:
    """What the chart of fairness against F1 shows: the recommended lambda of each panel, and what it gains."""
    head = (
        "Worst TPR against F1 by lambda; left of the dashed line F1 falls too far; the ring is recommended:"
        " the smallest lambda within one standard error of the best."
    )
    seeds = {point.fairness.seeds for _, found in frontiers for point in found.points}
    warning = ["One seed only: differences may all be chance, and so may the ring."] if seeds <= {0, 1} else []
    return " ".join([head, *warning, *(f"{name}: {_recommended(found)}." for name, found in frontiers)])


def _recommended(found: Frontier) -> str:
    if found.recommended is None:
        return f"none, {found.reason}"
    means = {one.weight: one.fairness.mean for one in found.points}
    best, plain = means[found.recommended], means.get(0.0)
    if best is None or plain is None or found.recommended == 0:
        return f"{found.recommended:g}"
    return f"{found.recommended:g}, {best - plain:+.3f} over lambda = 0"
