"""Should a site augment? The no-harm verdicts, at the primary setting and at every other.

In:  `FinishedStudy`.   Out: a sentence for the page's head, and tables.
Never: a verdict for all sites together: each site decides for its own patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fairsynth.audit.summary import SiteVerdict
from fairsynth.fairness.paired import CONFIDENCE
from fairsynth.fairness.verdict import F1_TOLERANCE, Bounds
from fairsynth.report import results, wording
from fairsynth.report.results import Setting
from fairsynth.report.study import FinishedStudy
from fairsynth.report.view import Cell, Part, Row, Table, number

_COLUMNS = ("Verdict", "Worst TPR changes by", "F1 changes by", "|log DI| changes by")
_NOTE = (
    f"Augment: it is shown, at one-sided {CONFIDENCE:.0%}, that worst TPR rises and that F1 falls by at most"
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
    rows = list(_by_site(study))
    return Verdicts(
        sentence=_sentence(rows, first),
        table=_table(rows, first),
        others=Part(
            name="Should a site augment? Every predictor and threshold",
            tables=tuple(_table(rows, setting) for setting in settings if setting != first),
        ),
    )


def _by_site(study: FinishedStudy) -> Iterator[tuple[str, Sequence[SiteVerdict]]]:
    for site in study.audited:
        if found := study.summary.scope(site).verdicts:
            yield str(site), found


def _at(found: Sequence[SiteVerdict], setting: Setting) -> SiteVerdict:
    return next(each for each in found if (each.predictor, each.threshold) == (setting.predictor, setting.threshold))


def _sentence(rows: Sequence[tuple[str, Sequence[SiteVerdict]]], setting: Setting) -> str:
    """Each site's decision, in one line."""
    if not rows:
        return ""
    decisions = [f"{site}: {_at(found, setting).verdict.decision.replace(':', ',')}" for site, found in rows]
    return f"{'; '.join(decisions)}. ({setting.text}.)"


def _table(rows: Sequence[tuple[str, Sequence[SiteVerdict]]], setting: Setting) -> Table:
    """The decisions at one setting, with the numbers they rest on."""
    return Table(
        caption=f"Should the site add FairSynth's patients? {setting.text}.",
        columns=("Site", *_COLUMNS),
        rows=tuple(Row(name=site, cells=tuple(_cells(_at(found, setting)))) for site, found in rows),
        note=_NOTE,
    )


def _cells(one: SiteVerdict) -> Iterator[Cell]:
    verdict = one.verdict
    yield Cell(text=verdict.decision[0].upper() + verdict.decision[1:])
    yield _change(verdict.gain, side="at least")
    yield _change(verdict.f1, side="at least")
    yield _change(verdict.abs_log_di, side="at most")


def _change(change: Bounds, *, side: str) -> Cell:
    """A mean change and the limit on its worse side."""
    if change.mean is None:
        return Cell(missing=wording.INSUFFICIENT)
    limit = change.low if side == "at least" else change.high
    sign = "+" if change.mean > 0 else ""
    return Cell(
        text=f"{sign}{number(change.mean, 3)}",
        interval="no limit" if limit is None else f"{side} {number(limit, 3)}",
    )
