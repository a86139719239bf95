"""Should a site augment? The no-harm verdicts, at the primary setting and at every other.

In:  `FinishedStudy`.   Out: a sentence for the page's head, and tables.
Never: a verdict for all sites together: each site decides for its own patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fairsynth.audit.summary import Scope
from fairsynth.fairness.paired import CONFIDENCE
from fairsynth.fairness.verdict import F1_TOLERANCE, MINIMUM_GROUPS, Bounds, Verdict
from fairsynth.report import results, wording
from fairsynth.report.results import Setting
from fairsynth.report.study import FinishedStudy
from fairsynth.report.view import Cell, Part, Row, Table, listed, number

_COLUMNS = ("Verdict", "Worst TPR changes by", "F1 changes by", "|log DI| changes by")
_NOTE = (
    f"Augment: it is shown, at one-sided {CONFIDENCE * 100:g} %, that worst TPR rises and that F1 falls by at most"
    f" {F1_TOLERANCE:g}. Everything else is a reason not to, also where nothing can be shown: by one seed, or by groups"
    " with too few positives. The limits are the site's own, over seeds and over which patients were held out; both"
    " approaches are judged on the same patients, so they are narrower than in the tables below. |log DI|, the"
    " distance from parity, is no part of the rule."
)


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What the page says on whether to augment."""

    sentence: str  # for the head; empty where no site told what changed
    table: Table
    others: Part


def verdicts(study: FinishedStudy) -> Verdicts:
    """Of every site that told what changed."""
    first = results.primary(study)
    settings = results.settings(study)
    sites = _sites(study)
    return Verdicts(
        sentence=_sentence(sites, first),
        table=_table(sites, first),
        others=Part(
            name="Should a site augment? Every predictor and threshold",
            tables=tuple(_table(sites, setting) for setting in settings if setting != first),
        ),
    )


def _sites(study: FinishedStudy) -> list[Scope]:
    """The sites that told what changed."""
    scopes = [study.summary.scope(site) for site in study.known]
    return [scope for scope in scopes if scope.verdicts]


def _at(scope: Scope, setting: Setting) -> Verdict:
    """The verdict of a site at one setting."""
    wanted = (setting.predictor, setting.threshold)
    return next(each.verdict for each in scope.verdicts if (each.predictor, each.threshold) == wanted)


def _sentence(sites: Sequence[Scope], setting: Setting) -> str:
    """Each site's decision, in one line."""
    if not sites:
        return ""
    decisions = [f"{site.scope}: {_decision(_at(site, setting)).replace(':', ',')}" for site in sites]
    return f"{'; '.join(decisions)}. ({setting.text}.)"


def _decision(verdict: Verdict) -> str:
    """The verdict in words; a metric that is shown to fall is not called a gain within noise."""
    noise = verdict.decision == "do not augment: the gain is within noise"
    return "do not augment: worst TPR falls" if noise and verdict.metric_falls else verdict.decision


def _table(sites: Sequence[Scope], setting: Setting) -> Table:
    """The decisions at one setting, with the numbers they rest on."""
    return Table(
        caption=f"Should the site add FairSynth's patients? {setting.text}.",
        columns=("Site", *_COLUMNS),
        rows=tuple(Row(name=site.scope, cells=tuple(_cells(site, _at(site, setting)))) for site in sites),
        note=_NOTE,
    )


def _cells(site: Scope, verdict: Verdict) -> Iterator[Cell]:
    compared = [row.group for row in site.groups if row.status == "ok"]
    decision = _decision(verdict)
    yield Cell(text=decision[0].upper() + decision[1:])
    yield _change(
        verdict.gain,
        side="at least",
        note=f"of {listed(compared)}" if len(compared) >= MINIMUM_GROUPS else "fewer than two groups can be judged",
    )
    yield _change(verdict.f1, side="at least")
    yield _change(verdict.abs_log_di, side="at most")


def _change(change: Bounds, *, side: str, note: str = "") -> Cell:
    """A mean change and the limit on its worse side."""
    if change.mean is None:
        return Cell(missing=wording.INSUFFICIENT, note=note)
    limit = change.low if side == "at least" else change.high
    sign = "+" if change.mean > 0 else ""
    return Cell(
        text=f"{sign}{number(change.mean, 3)}",
        interval="no limit" if limit is None else f"{side} {number(limit, 3)}",
        note=note,
    )
