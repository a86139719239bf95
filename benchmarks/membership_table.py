"""The rows of benchmarks.membership -> the tables of docs/release.md, as Markdown.

In:  a row for each site of each study, and for each control.   Out: text.   Never: a mean without its interval.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

Row = dict

SETS = {"released": "released", "plain": "plain generator", "ten times": "ten times as many"}


def tables(rows: Sequence[Row]) -> str:
    """All tables, in the order of the document."""
    studies, controls = ([row for row in rows if ("control" in row) == kind] for kind in (False, True))
    return "\n\n".join((verdicts(studies), means(studies), canaries(studies, controls)))


def verdicts(studies: Sequence[Row]) -> str:
    """A line for each site of each study."""
    names = list(studies[0]["generators"])
    head = ["study", "site", "n", "verdict", "AUC, nearest record", "TPR / FPR at 1 %"]
    lines = [_line([*head, *(f"AUC, loss of the {name} generator" for name in names)]), "|---" * (6 + len(names)) + "|"]
    for row in studies:
        released = row["sets"]["released"]
        verdict = " ".join([released["verdict"], *released["blocking"]])
        n = f"{released['members']:,} + {released['others']:,}"
        cells = [row["seed"], row["site"], n, verdict, _interval(released), f"{released['ratio']:.2f}"]
        lines.append(_line([*cells, *(_interval(row["generators"][name]) for name in names)]))
    return "\n".join(lines)


def means(studies: Sequence[Row]) -> str:
    """A line for each attack, the mean over the studies of each site."""
    sites = sorted({row["site"] for row in studies})
    attacks = {f"nearest record, {said}": _of("sets", name) for name, said in SETS.items()}
    attacks |= {f"loss of the {name} generator": _of("generators", name) for name in studies[0]["generators"]}
    head = ["attack", *(f"{site}: {what}" for site in sites for what in ("AUC", "highest", "TPR / FPR", "gate passes"))]
    lines = [_line(head), "|---" * len(head) + "|"]
    for said, found in attacks.items():
        cells = [said]
        for site in sites:
            own = [found(row) for row in studies if row["site"] == site]
            gate = _gate(own) if "verdict" in own[0] else "no gate"
            auc, ratio = ([one[what] for one in own] for what in ("auc", "ratio"))
            cells += [_mean(auc, digits=3), f"{max(auc):.3f}", _mean(ratio, digits=2), gate]
        lines.append(_line(cells))
    return "\n".join(lines)


def canaries(studies: Sequence[Row], controls: Sequence[Row]) -> str:
    """A line for each generator: ranks of all its canaries, and what came out."""
    head = ["generator", "canaries", "median percentile", "in the lowest 1 %", "mean exposure, bits", "p", "came out"]
    lines = [_line([*head, "verbatim", "never planted, came out"]), "|---" * 9 + "|"]
    names = list(studies[0]["percentiles"])
    for name in names:
        parts = [row["ten times"] for row in studies] if name == names[-1] else []
        lines.append(_canaries(name, [row["percentiles"][name] for row in studies], parts))
    for row in controls:
        one = row["control"]
        name = f"control: {one['epochs']} more passes, each canary {one['copies']} times"
        lines.append(_canaries(name, [one["percentiles"]], [one["ten times"]]))
    return "\n".join(lines)


def _canaries(name: str, percentiles: Sequence[Sequence[float]], emitted: Sequence[Row]) -> str:
    """Fisher's combined p-value: were no canary learnt, percentiles are uniform."""
    ranks = np.concatenate(percentiles)
    exposure = -np.log2(ranks)
    p = float(stats.combine_pvalues(ranks, method="fisher").pvalue)
    cells = [name, len(ranks), f"{np.median(ranks):.3f}", int((ranks <= 0.01).sum()), f"{exposure.mean():.2f}"]
    cells.append(f"{p:.2g}")
    for hits, total in (("planted", "of_planted"), ("planted_verbatim", "of_planted"), ("others", "of_others")):
        found, of = (sum(part[key] for part in emitted) for key in (hits, total))
        cells.append(f"{found} of {of:,}" if emitted else "")
    return _line(cells)


def _of(kind: str, name: str) -> Callable[[Row], Row]:
    return lambda row: row[kind][name]


def _gate(own: Sequence[Row]) -> str:
    """How many pass, and which gates block how many."""
    blocking = Counter(gate for one in own for gate in one["blocking"])
    by = ", ".join(f"{gate}: {count}" for gate, count in sorted(blocking.items(), key=lambda item: int(item[0][1:])))
    return f"{sum(one['verdict'] == 'PASS' for one in own)} of {len(own)}" + (f" ({by})" if by else "")


def _interval(one: Row) -> str:
    return f"{one['auc']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _mean(values: Sequence[float], *, digits: int) -> str:
    """With half the width of the 95 % interval of the mean over studies (Student's t)."""
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else math.nan
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
