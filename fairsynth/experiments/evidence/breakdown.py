"""A row's summary -> Markdown tables by group, by site and of both levels: what a number of all patients may hide.

In:  a `RowSummary`.   Out: Markdown text.
Never: arithmetic; a group with too few positives without the word INSUFFICIENT.
"""

from __future__ import annotations

from fairsynth.experiments.evidence.levels import BEYOND, LOOKS_FAIR, TITLES
from fairsynth.experiments.evidence.measures import NO_THRESHOLD
from fairsynth.experiments.evidence.roles import METHOD, ORACLE, REAL_ONLY, ordered, title
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


_SIGNS = (
    "log DI is the log of disparate impact; the TPR gap is the TPR of the protected groups together minus that of the"
    " reference groups together. Below 0 the protected groups are favoured less, or found less often; 0 is parity."
)


def both_levels(row: RowSummary, *, predictor: str, threshold: str) -> str:
    """All sites together beside each site, by every approach, with signs; and whom the sum of all sites hides."""
    scopes = [scope.scope for scope in row.scopes]
    own = [one for one in row.levels if (one.predictor, one.threshold) == (predictor, threshold)]
    lines = []
    for approach in ordered(tuple(dict.fromkeys(one.approach for one in own))):
        found = {one.metric: one for one in own if one.approach == approach}
        values = [value for one in found.values() for value in (one.all_sites, *one.sites.values())]
        hidden = [
            f"{TITLES[metric]}{', within noise' if one.shown is False else ''}"
            for metric, one in found.items()
            if one.hidden_by_the_global_figure
        ]
        cells = [mean_sd(value, seeds=len(row.seeds), sign=True) for value in values]
        lines.append([title(approach), *cells, "; ".join(hidden)])
    heads = [f"{name}: {scope}" for name in TITLES.values() for scope in scopes]
    limits = (
        f"*Hidden*: all sites together are within {LOOKS_FAIR} of parity, and a site is {BEYOND} from it or further."
    )
    return f"{_SIGNS} {limits}\n\n{table(['approach', *heads, 'hidden'], lines)}\n"


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
