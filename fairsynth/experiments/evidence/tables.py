"""Summaries of rows -> Markdown: the paper's two tables, and those that the paper lacks.

In:  `RowSummary`s of one setting.   Out: Markdown text, numbers as mean (sd) over seeds.
Never: arithmetic beyond choosing what is bold; a number without the seeds it is of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairsynth.experiments.evidence.frontier import frontier, weights
from fairsynth.experiments.evidence.measures import NO_THRESHOLD
from fairsynth.experiments.evidence.roles import METHOD, REAL_ONLY, ordered, title
from fairsynth.experiments.evidence.summary import RowSummary
from fairsynth.fairness.paired import CeilingShare, Paired

THRESHOLD_TITLES = {"half": "threshold 0.5", "tuned": "tuned threshold"}
COLUMNS = {"R": REAL_ONLY, "R+Over": "double_prioritised", "R+Synth": "plain_synthetic", "R+FairSynth": METHOD}
# Blocks of Table 1: heading, the metric that is printed, the metric whose best mean is bold, and its better side.
BLOCKS = (
    ("DI", "disparate_impact", "abs_log_di", -1),
    ("WTPR", "worst_tpr", "worst_tpr", 1),
    ("F1", "f1", "f1", 1),
)


def table1(rows: Sequence[RowSummary], *, predictor: str, threshold: str) -> str:
    """The paper's Table 1: a line for each pair of sizes, four approaches in each block, the best in bold.

    In the block of DI the best has the smallest mean |log DI|: a mean of ratios that miss 1 on both sides is no parity.
    """
    heads = ["real", "synthetic", *(f"{block}: {column}" for block, *_ in BLOCKS for column in COLUMNS)]
    won, lines = 0, []
    for row in paper_order(rows):
        cells = [f"{row.real:,}", f"{row.synthetic:,}"]
        won += sum(METHOD in best for best in best_of_four(row, predictor=predictor, threshold=threshold).values())
        for _, printed, judged, sign in BLOCKS:
            best = _best(row, judged, predictor, threshold, sign=sign)
            cells += [
                _bold(_shown(row, printed, approach, predictor, threshold), approach in best)
                for approach in COLUMNS.values()
            ]
        lines.append(cells)
    note = f"R+FairSynth is the best of the four in {won} of {2 * len(rows)} cells of DI and WTPR."
    return f"{table(heads, lines)}\n\n{note}\n"


def best_of_four(row: RowSummary, *, predictor: str, threshold: str) -> dict[str, set[str]]:
    """The best of Table 1's approaches in DI and in worst TPR, its cells that count; all of them at a tie."""
    return {
        printed: _best(row, judged, predictor, threshold, sign=sign)
        for _, printed, judged, sign in BLOCKS
        if printed != "f1"
    }


def comparison(row: RowSummary, *, predictor: str, threshold: str) -> str:
    """Every approach of one row in every metric that has a place here, and what the method gains over it."""
    shown = {
        "worst TPR": ("worst_tpr", threshold),
        "DI": ("disparate_impact", threshold),
        "\\|log DI\\|": ("abs_log_di", threshold),
        "F1": ("f1", threshold),
        "PPV": ("ppv", threshold),
        "selected": ("selection_rate", threshold),
        "eq. opp. diff.": ("equal_opportunity_difference", threshold),
        "eq. odds diff.": ("equalised_odds_difference", threshold),
        "AUROC within sites": ("auroc_within", NO_THRESHOLD),
        "lowest group AUROC": ("lowest_group_auroc", NO_THRESHOLD),
        "ECE": ("expected_calibration_error", NO_THRESHOLD),
    }
    contrast = row.contrast("worst_tpr", predictor=predictor, threshold=threshold)
    lines = []
    for approach in _judged(row, predictor):
        result = row.everywhere.result(approach=approach, predictor=predictor, threshold=threshold)
        cells = [_shown(row, metric, approach, predictor, at) for metric, at in shown.values()]
        cells[0] += f" {result.worst_group}" if result is not None and result.worst_group is not None else ""
        gain = None if contrast is None else contrast.against.get(approach)
        lines.append([_bold(title(approach), approach == METHOD), *cells, interval(gain)])
    return table(["approach", *shown, "FairSynth minus it, worst TPR"], lines) + "\n"


def ablation(row: RowSummary, *, predictor: str) -> str:
    """Every approach of one row, and the method minus it in what the method is for."""
    keys = {
        "worst TPR at 0.5": ("worst_tpr", "half"),
        "worst TPR, tuned": ("worst_tpr", "tuned"),
        "lowest group AUROC": ("lowest_group_auroc", NO_THRESHOLD),
        "\\|log DI\\|, tuned": ("abs_log_di", "tuned"),
        "F1, tuned": ("f1", "tuned"),
    }
    lines = []
    for approach in _judged(row, predictor):
        cells = [_bold(title(approach), approach == METHOD)]
        for metric, at in keys.values():
            contrast = row.contrast(metric, predictor=predictor, threshold=at)
            gain = None if contrast is None else contrast.against.get(approach)
            cells += [_shown(row, metric, approach, predictor, at), interval(gain)]
        lines.append(cells)
    heads = ["approach", *(name for key in keys for name in (key, "FairSynth minus it"))]
    return table(heads, lines) + "\n"


def ceiling(rows: Sequence[RowSummary]) -> str:
    """How far the method goes of the way to fresh real patients, by row, predictor and metric."""
    heads = ["real", "synthetic", "predictor", "metric", "real only", "FairSynth", "oracle", "copies in it"]
    heads += ["share", "share from best"]
    lines = [
        [
            f"{row.real:,}",
            f"{row.synthetic:,}",
            one.predictor.replace("_", " "),
            metric_title(one.metric, one.threshold),
            mean_sd(one.real_only, seeds=len(row.seeds)),
            mean_sd(one.method, seeds=len(row.seeds)),
            mean_sd(one.oracle, seeds=len(row.seeds)),
            "-" if row.oracle_copies is None else f"{row.oracle_copies:.0%}",
            share(one.share),
            "-" if one.share_from_best is None else share(one.share_from_best),
        ]
        for row in paper_order(rows)
        for one in row.ceilings
    ]
    return table(heads, lines) + "\n"


def table2(rows: Sequence[RowSummary], *, predictor: str, threshold: str) -> str:
    """The paper's Table 2: a column for each lambda, the recommended one of each row in bold."""
    columns = sorted({weight for row in rows for weight, _ in weights(row)})
    lines = []
    for block, printed, *_ in BLOCKS:
        for row in paper_order(rows):
            approach = dict(weights(row))
            chosen = frontier(row, predictor=predictor, threshold=threshold).recommended
            cells = [
                _bold(_shown(row, printed, approach.get(weight, ""), predictor, threshold), weight == chosen)
                for weight in columns
            ]
            lines.append([block, f"{row.real:,}", f"{row.synthetic:,}", *cells])
    return table(["metric", "real", "synthetic", *(f"lambda = {weight:g}" for weight in columns)], lines) + "\n"


def targets(rows: Sequence[RowSummary]) -> str:
    """Everything that was asked of the method, with the numbers that decide."""
    heads = ["real", "synthetic", "predictor", "threshold", "asked", "status", "metric", "found", "limit", "note"]
    lines = [
        [
            f"{row.real:,}",
            f"{row.synthetic:,}",
            one.predictor.replace("_", " "),
            one.threshold,
            one.name.replace("_", " "),
            _bold(one.status, one.status == "met"),
            one.metric.replace("_", " "),
            interval(Paired(mean=one.value, sd=None, low=one.low, high=one.high, seeds=len(row.seeds))),
            f"{one.limit:g}",
            one.note.replace("|", "\\|"),
        ]
        for row in paper_order(rows)
        for one in row.targets
    ]
    return table(heads, lines) + "\n"


# --- cells of tables -------------------------------------------------------------------------------------------------


def mean_sd(value: Paired | None, *, seeds: int, sign: bool = False) -> str:
    """As `0.48 (0.07)`, and on how many of the `seeds` it is defined where not on all; a dash where on none.

    With `sign`, as `+0.48 (0.07)`.
    """
    if value is None or value.mean is None:
        return "-"
    spread = "" if value.sd is None else f" ({value.sd:.2f})"
    defined = "" if value.seeds == seeds else f", {value.seeds} of {seeds} seeds"
    mean = f"{value.mean:+.2f}" if sign else f"{value.mean:.2f}"
    return f"{mean}{spread}{defined}"


def interval(value: Paired | None) -> str:
    """As `+0.120 [+0.050, +0.190]`; a dash where there is nothing to say."""
    if value is None or value.mean is None:
        return "-"
    limits = "" if value.low is None or value.high is None else f" [{value.low:+.3f}, {value.high:+.3f}]"
    return f"{value.mean:+.3f}{limits}"


def share(value: CeilingShare) -> str:
    """As `85 % [70, 101]`; the summary says why there is none."""
    if value.share is None:
        return "not estimable"
    limits = "" if value.low is None or value.high is None else f" [{100 * value.low:.0f}, {100 * value.high:.0f}]"
    return f"{100 * value.share:.0f} %{limits}"


def paper_order(rows: Sequence[RowSummary]) -> list[RowSummary]:
    """First the rows that differ by real patients alone, as the first one given, then the others."""
    return sorted(rows, key=lambda row: (row.synthetic != rows[0].synthetic, row.real, row.synthetic))


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold and text != "-" else text


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    rule = ["---" if index == 0 else "---:" for index in range(len(heads))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *lines))


def _value(row: RowSummary, metric: str, approach: str, predictor: str, threshold: str) -> Paired | None:
    return row.value(metric, approach=approach, predictor=predictor, threshold=threshold)


def _shown(row: RowSummary, metric: str, approach: str, predictor: str, threshold: str) -> str:
    value = _value(row, metric, approach, predictor, threshold)
    return mean_sd(value, seeds=len(row.seeds))


def _best(row: RowSummary, metric: str, predictor: str, threshold: str, *, sign: int) -> set[str]:
    """The approaches of Table 1 with the best mean of `metric`: all of them at a tie, nobody where nothing is known.

    An approach that is undefined on a seed is not the best of all seeds.
    """
    values = {name: _value(row, metric, name, predictor, threshold) for name in COLUMNS.values()}
    means = {
        name: sign * value.mean
        for name, value in values.items()
        if value is not None and value.mean is not None and value.seeds == len(row.seeds)
    }
    return {name for name, mean in means.items() if mean == max(means.values())}


def _judged(row: RowSummary, predictor: str) -> tuple[str, ...]:
    """The approaches that this predictor was trained with, as tables show them."""
    results = row.everywhere.results
    return ordered(tuple(dict.fromkeys(one.approach for one in results if one.predictor == predictor)))


def metric_title(metric: str, threshold: str) -> str:
    """As `worst tpr, tuned`."""
    name = {"worst_tpr": "worst TPR", "lowest_group_auroc": "lowest group AUROC"}.get(metric, metric.replace("_", " "))
    return name if threshold == NO_THRESHOLD else f"{name}, {THRESHOLD_TITLES[threshold]}"
