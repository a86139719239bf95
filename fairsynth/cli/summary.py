"""What the terminal shows of a study's result.

In:  a `Summary`.   Out: rich tables.   Never: arithmetic on patients; a count that the summary suppressed.
"""

from __future__ import annotations

from rich.table import Table

from fairsynth.audit.summary import Result, Scope, Summary
from fairsynth.cli.console import output
from fairsynth.fairness.estimates import Estimate
from fairsynth.report.wording import APPROACHES, PREDICTORS, THRESHOLDS

COLUMNS = {
    "worst_tpr": "worst TPR",
    "disparate_impact": "DI",
    "f1": "F1",
    "auroc": "AUROC",
    "selection_rate": "sel. rate",
    "ppv": "PPV",
}


def show_summary(summary: Summary) -> None:
    """Print the four approaches for all sites together, at the last threshold (tuned), who was counted, and each
    site's verdict."""
    scope = summary.scopes[0]
    output.print(_groups(scope))
    output.print(_approaches(summary, scope, summary.axes.thresholds[-1]))
    for line in (*_notes(summary, scope), *_verdicts(summary)):
        output.print(line, highlight=False)


def _approaches(summary: Summary, scope: Scope, threshold: str) -> Table:
    title = f"{scope.scope}, real held-out patients, threshold: {THRESHOLDS.get(threshold, threshold)}"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("trained on", no_wrap=True)
    for name in COLUMNS.values():
        table.add_column(name, justify="right", min_width=6)
    for predictor in summary.axes.predictors:
        table.add_row(f"[bold]{PREDICTORS.get(predictor, predictor)}[/bold]")
        for approach in summary.axes.approaches:
            result = scope.result(approach=approach, predictor=predictor, threshold=threshold)
            name = APPROACHES.get(approach, approach).replace("Real + ", "+ ")
            table.add_row(f"  {name}", *(_cell(result, metric) for metric in COLUMNS))
        table.add_section()
    return table


def _cell(result: Result, metric: str) -> str:
    text = shown_estimate(result.metrics[metric])
    if metric == "worst_tpr" and result.worst_group is not None:
        text += f" {result.worst_group}"
    return text


def shown_estimate(value: Estimate) -> str:
    """Mean (sd) over seeds, and the interval below."""
    if value.mean is None:
        return "INSUFFICIENT"
    sd = f" ({value.sd:.2f})" if value.sd is not None else ""
    interval = f"\n[dim]{value.low:.2f}, {value.high:.2f}[/dim]" if value.low is not None else ""
    return f"{value.mean:.2f}{sd}{interval}"


def _groups(scope: Scope) -> Table:
    table = Table("group", "held out", "positives", "status", title="real held-out patients", title_justify="left")
    for row in scope.groups:
        name = f"{row.group} (reference)" if row.reference else row.group
        table.add_row(name, _count(row.patients), _count(row.positives), row.status)
    return table


def _count(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value


_MORE = "Every site, and a threshold of 0.5: in the report."


def _notes(summary: Summary, scope: Scope) -> list[str]:
    lines = [
        f"{scope.scope}: {_count(scope.patients)} real held-out patients, {_count(scope.positives)} positives; "
        f"mean (sd) over {summary.axes.seeds} seeds, {summary.confidence:.0%} interval below. "
        + ("A threshold of 0.5: in the report." if len(summary.scopes) == 1 else _MORE)
    ]
    if scope.insufficient:
        lines.append(
            f"INSUFFICIENT (fewer than {summary.minimum_positives} held-out positives), left out of the worst group: "
            + ", ".join(scope.insufficient)
        )
    if summary.missing:
        lines.append("sites without an audit: " + ", ".join(summary.missing))
    return lines


def _verdicts(summary: Summary) -> list[str]:
    """Each site's, by the first predictor at the last threshold, as in the head of the report."""
    predictor, threshold = summary.axes.predictors[0], summary.axes.thresholds[-1]
    return [
        f"{scope.scope}, {PREDICTORS.get(predictor, predictor).lower()}: {each.verdict.text}"
        for scope in summary.scopes
        for each in scope.verdicts
        if (each.predictor, each.threshold) == (predictor, threshold)
    ]
