"""`Headlines` -> `summary.md`: over all settings so far, how much of what was asked is met, and what a sum hides.

In:  `Headlines`.   Out: Markdown.
Never: arithmetic; a count without of how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairsynth.experiments.evidence.headline import Headlines, Hidden, RowTargets
from fairsynth.experiments.evidence.levels import TITLES
from fairsynth.experiments.evidence.roles import title
from fairsynth.experiments.evidence.tables import THRESHOLD_TITLES, table
from fairsynth.experiments.evidence.tally import BEST_OF_FOUR, Tally

_COUNTED = (
    "Counted over (row, predictor): met, in brackets how many of them by the whole interval / missed / not estimable."
)
_ASKED = {BEST_OF_FOUR: "best of Table 1's four approaches in DI or worst TPR (each counts)"}


def overview(found: Headlines) -> str:
    """The document beside `summary.json`."""
    counts = asked(found.tallies) if any(found.tallies.values()) else ""
    parts = [f"# {found.table}: all settings so far", counts, _ran(found), _hidden(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def asked(tallies: Mapping[str, Sequence[Tally]]) -> str:
    """Each thing that was asked, with a column for each of the `tallies`; rows are counted over (row, predictor)."""
    keys = dict.fromkeys((one.asked, one.threshold) for own in tallies.values() for one in own)
    lines = [
        [
            _ASKED.get(name, name.replace("_", " ")),
            THRESHOLD_TITLES[threshold],
            *(_counts(own, name, threshold) for own in tallies.values()),
        ]
        for name, threshold in keys
    ]
    return f"{_COUNTED}\n\n{table(['asked', 'threshold', *tallies], lines)}"


def _counts(tallies: Sequence[Tally], name: str, threshold: str) -> str:
    """As `8 (6) / 1 / 0 of 9`; a dash where it was not asked."""
    found = next((one for one in tallies if (one.asked, one.threshold) == (name, threshold)), None)
    if found is None:
        return "-"
    shown = "" if found.shown is None else f" ({found.shown})"
    return f"{found.met}{shown} / {found.missed} / {found.not_estimable} of {found.of}"


def _ran(found: Headlines) -> str:
    """Which rows the counts are of."""
    lines = []
    for setting, predictors in found.settings.items():
        sizes = dict.fromkeys(
            f"{one.real:,} + {one.synthetic:,} ({one.seeds} seed{'' if one.seeds == 1 else 's'})"
            for own in predictors.values()
            for one in own
        )
        page = f"[{setting}]({found.table}-{setting}.md)"
        lines.append(f"- {page}: {', '.join(sizes)}; {', '.join(name.replace('_', ' ') for name in predictors)}")
    return "\n".join(["Rows that were run, as real + synthetic patients:", "", *lines])


def _hidden(found: Headlines) -> str:
    """What looks fair over all sites and is not at one."""
    lines = [f"- {line}" for row in found.rows for line in hidden_lines(row)]
    if not lines:
        return "No approach looks fair over all sites together and unfair at one of them."
    return "\n".join(
        ["Hidden by the global figure (fair over all sites together, unfair at the site named):", "", *lines]
    )


def hidden_lines(row: RowTargets) -> list[str]:
    """One for each predictor, threshold and metric: who is hidden, and where."""
    keys = dict.fromkeys((one.predictor, one.threshold, one.metric) for one in row.hidden_by_the_global_figure)
    return [
        f"{row.setting}, {row.real:,} + {row.synthetic:,}, {predictor.replace('_', ' ')},"
        f" {THRESHOLD_TITLES[threshold]}, {TITLES[metric]}: "
        + "; ".join(
            _numbers(one)
            for one in row.hidden_by_the_global_figure
            if (one.predictor, one.threshold, one.metric) == (predictor, threshold, metric)
        )
        for predictor, threshold, metric in keys
    ]


def _numbers(one: Hidden) -> str:
    """As `real only (+0.02; north -0.41 within noise)`."""
    there = "nobody favoured on a seed" if one.at_furthest is None else f"{one.at_furthest:+.2f}"
    noise = " within noise" if one.shown is False else ""
    return f"{title(one.approach)} ({one.all_sites:+.2f}; {one.furthest} {there}{noise})"
