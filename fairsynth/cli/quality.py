"""What the terminal shows of a data-quality report.

In:  a `QualityReport`.   Out: rich tables and the verdict.   Never: arithmetic on patients; a count that is hidden.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from fairsynth.cli.console import output
from fairsynth.quality import QualityReport
from fairsynth.quality.codes import NAMES, KindQuality
from fairsynth.quality.findings import LEVELS, Finding
from fairsynth.quality.groups import GroupQuality, GroupsQuality
from fairsynth.quality.leaks import LeaksQuality
from fairsynth.quality.missing import MissingQuality
from fairsynth.quality.order import OrderQuality
from fairsynth.quality.parts import number
from fairsynth.quality.tables import TableQuality

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
SHOWN_UNMAPPED = 5  # a kind; `--json` has more


def show_quality(report: QualityReport) -> None:
    """Print every section, then the verdict."""
    people = f"{number(report.patients)} patients, {number(report.visits)} visits"
    _line(f"{report.source}: {people}; task {report.task}; <{report.minimum_cell}: from 1 to {report.minimum_cell - 1}")
    if report.calendar != "real":
        _line("the source has no dates: its years mean nothing and are not shown")
    output.print(_tables(report.tables))
    output.print(_kinds(report.codes))
    if any(kind.unmapped for kind in report.codes):
        output.print(_unmapped(report.codes))
    output.print(_missing(report.missing))
    output.print(_order(report.order))
    if report.groups is not None:
        output.print(_groups(report.groups))
    if report.leaks is not None:
        output.print(_leaks(report.leaks))
    _verdict(report)


def _line(text: str, style: str = "") -> None:
    output.print(Text(text, style=style), soft_wrap=True)


def _table(title: str, *columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _tables(tables: Iterable[TableQuality]) -> Table:
    numbers = ("rows", "kept", "with visit", "events")
    shown = _table("tables", "file", "years", *numbers, "left out", right=numbers)
    for one in tables:
        years = "" if one.first_year is None else f"{one.first_year} to {one.last_year}"
        visit = "" if one.share_with_visit is None else f"{one.share_with_visit:.1%}"
        reasons = "\n".join(f"{rows:,} {reason}" for reason, rows in one.left_out.items())
        shown.add_row(Text(one.file), years, f"{one.rows:,}", f"{one.kept:,}", visit, f"{one.events:,}", reasons)
    return shown


def _kinds(kinds: Iterable[KindQuality]) -> Table:
    numbers = ("codes", "events", "mapped")
    shown = _table("share of events that the shared vocabulary has a place for", "kind", "to", *numbers, right=numbers)
    for one in kinds:
        share = "none" if one.mapped_share is None else f"{one.mapped_share:.1%}"
        shown.add_row(NAMES[one.kind], one.vocabulary, f"{one.codes:,}", f"{one.events:,}", share)
    return shown


def _unmapped(kinds: Iterable[KindQuality]) -> Table:
    numbers = ("events", "patients")
    shown = _table("largest codes without a place", "code", "unit", "description", *numbers, right=numbers)
    for one in kinds:
        for code in one.unmapped[:SHOWN_UNMAPPED]:
            words = Text(code.code), Text(code.unit or ""), Text(code.description or "")
            shown.add_row(*words, f"{code.events:,}", f"{code.patients:,}")
        further = len(one.unmapped) - SHOWN_UNMAPPED
        hidden = max(further, 0) + one.further_unmapped_codes
        if hidden:
            shown.add_row(Text(f"{hidden:,} further {one.kind}//...", style="dim"))
    return shown


def _missing(missing: MissingQuality) -> Table:
    shown = _table("missing", "what", "how many", right=("how many",))
    for name, lack in missing.visits_without.items():
        shown.add_row(f"visits without a {name}", str(lack))
    shown.add_row("visits without an admission", str(missing.visits_without_admission))
    shown.add_row("visits without a discharge", str(missing.visits_without_discharge))
    for name, lack in missing.patients_without.items():
        shown.add_row(f"patients without {name}", str(lack))
    shown.add_row("laboratory events without a number", str(missing.values_without_number))
    return shown


def _order(order: OrderQuality) -> Table:
    shown = _table("order in time", "what", "how many", right=("how many",))
    rows: dict[str, object] = {
        "events more than a day before birth": order.before_birth,
        "events of care after the day of death": order.after_death,
        "visits that end before they start": order.visits_ending_before_start,
        "visits that begin before the previous one ended": order.visits_overlapping,
        "events after the prediction time, left out of records": order.events_after_prediction,
        "diagnoses and procedures coded after it, kept (retrospective coding)": order.coded_after_prediction,
        "tokens that change when events after it are deleted (must be 0)": order.tokens_that_need_the_future,
        "patients in two splits (must be 0)": order.patients_in_two_splits,
        "patients with birth, sex and first admission of another": order.repeated_people,
    }
    for name, value in rows.items():
        text = "not checked" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
        shown.add_row(name, text)
    return shown


def _groups(groups: GroupsQuality) -> Table:
    numbers = ("patients", "outcome", "rate")
    shown = _table("groups of the cohort", "group", *numbers, "large enough to be estimated?", right=numbers)
    for one in groups.groups:
        name = f"{one.group} (reference)" if one.reference else str(one.group)
        shown.add_row(name, number(one.patients), number(one.positives), _rate(one), one.verdict)
    shown.add_section()
    shown.add_row("all", number(groups.patients), number(groups.positives))
    return shown


def _rate(group: GroupQuality) -> str:
    if group.rate is None:
        return "hidden" if group.patients != 0 else ""
    return f"{group.rate:.1%} [{group.low:.1%}, {group.high:.1%}]"


def _leaks(leaks: LeaksQuality) -> Table:
    numbers = ("patients", "outcome", "PPV")
    title = f"codes closely tied to the outcome, of {leaks.codes:,} looked at"
    shown = _table(title, "code", "description", *numbers, "verdict", "status", right=numbers)
    for one in leaks.leaky:
        ppv = "hidden" if one.ppv is None else f"{one.ppv:.2f}"
        words = Text(one.code), Text(one.description or "")
        shown.add_row(*words, number(one.patients), number(one.positives), ppv, one.strength, one.status)
    return shown


def _verdict(report: QualityReport) -> None:
    """Every finding, errors first, and how many of each."""
    _line("verdict", "bold")
    for finding in report.findings:
        _line(_told(finding), STYLES[finding.level])
        if finding.do:
            _line(f"  do: {finding.do}", STYLES[finding.level])
    counts = ((report.number(level), level) for level in LEVELS)
    _line(", ".join(f"{count} {level}{'' if count == 1 else 's'}" for count, level in counts), "bold")


def _told(finding: Finding) -> str:
    return f"{finding.level}: {finding.what}: {finding.where}"
