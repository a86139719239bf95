"""A row's summary -> Markdown tables by group and by site: what a number of all patients together may hide.

In:  a `RowSummary`.   Out: Markdown text.
Never: arithmetic; a group with too few positives without the word INSUFFICIENT.
"""

from __future__ import annotations

from fairsynth.experiments.evidence.measures import NO_THRESHOLD
from fairsynth.experiments.evidence.roles import METHOD, ORACLE, REAL_ONLY, title
from fairsynth.experiments.evidence.summary import RowSummary
from fairsynth.experiments.evidence.tables import mean_sd, table
from fairsynth.schemas import SiteId

SHOWN = (REAL_ONLY, METHOD, ORACLE)
_AT_THRESHOLD = {"TPR": "tpr", "FPR": "fpr", "PPV": "ppv", "selected": "selection_rate"}
_OF_SCORES = {
    "AUROC within sites": "auroc_within",
    "score - rate": "calibration_in_the_large",
    "ECE": "expected_calibration_error",
}
_BY_SITE = {
    "worst TPR": "worst_tpr",
    "DI": "disparate_impact",
    "eq. opp. diff.": "equal_opportunity_difference",
    "eq. odds diff.": "equalised_odds_difference",
    "F1": "f1",
}


def by_group(row: RowSummary, *, predictor: str, threshold: str) -> str:
    """Rates, AUROC and calibration of each group, all sites together, by real data alone, the method and the oracle."""
    scope, lines = row.everywhere, []
    for group in scope.groups:
        for approach in SHOWN:
            at = scope.result(approach=approach, predictor=predictor, threshold=threshold)
            scores = scope.result(approach=approach, predictor=predictor, threshold=NO_THRESHOLD)
            if at is not None and scores is not None:
                values = [
                    *(at.groups[metric][group.group] for metric in _AT_THRESHOLD.values()),
                    *(scores.groups[metric][group.group] for metric in _OF_SCORES.values()),
                ]
                name = group.group if group.status == "ok" else f"{group.group}, {group.status}"
                cells = [mean_sd(value, seeds=len(row.seeds)) for value in values]
                lines.append([name, f"{group.positives:,}", title(approach), *cells])
    return table(["group", "positives", "approach", *_AT_THRESHOLD, *_OF_SCORES], lines) + "\n"


def by_site(row: RowSummary, *, predictor: str, threshold: str) -> str:
    """Fairness at each site and over all sites, by the same approaches; and whether the site should augment."""
    said = {one.site: one.verdict for one in row.verdicts if (one.predictor, one.threshold) == (predictor, threshold)}
    lines = []
    for scope in row.scopes:
        for approach in SHOWN:
            result = scope.result(approach=approach, predictor=predictor, threshold=threshold)
            if result is not None:
                cells = [mean_sd(result.metrics[metric], seeds=len(row.seeds)) for metric in _BY_SITE.values()]
                verdict = said.get(SiteId(scope.scope)) if approach == METHOD else None
                lines.append([scope.scope, title(approach), *cells, "" if verdict is None else verdict.decision])
    return table(["scope", "approach", *_BY_SITE, "verdict"], lines) + "\n"
