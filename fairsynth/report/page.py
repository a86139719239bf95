"""A finished study -> everything the template prints, in order.

In:  `FinishedStudy`.   Out: `Page`.
Never: markup other than this package's own SVG; file access.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from fairsynth.report import audit_figures, cohort, curves, facts, finding, results, wording
from fairsynth.report.chosen import Chosen, chosen
from fairsynth.report.cohort import SiteCohort
from fairsynth.report.disclosed import Disclosed, disclosed
from fairsynth.report.facts import Fact
from fairsynth.report.study import FinishedStudy, StudyRecord
from fairsynth.report.verdicts import Verdicts, verdicts
from fairsynth.report.view import Part, Picture, Table, listed
from fairsynth.report.wording import Explained


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the template prints."""

    template: ClassVar[str] = "report.html.j2"

    name: str
    title: str
    notice: str  # for whose eyes the page is; empty where anyone may see it
    asked: str
    finding: str
    warnings: tuple[str, ...]
    verdicts: Verdicts
    results_intro: str
    main_tables: tuple[Table, ...]
    scopes: tuple[Part, ...]
    group_figure: Picture
    main_groups: Table
    group_scopes: tuple[Part, ...]
    cohort_intro: str
    cohorts: tuple[SiteCohort, ...]
    training: tuple[Picture, ...]
    untold: str  # what is not on the page, and why; empty where nothing is left out
    chosen: Chosen
    fidelity_figure: Picture
    fidelity_table: Table
    sites: Table
    facts: tuple[Fact, ...]
    disclosed: Disclosed
    how_to_read: tuple[Explained, ...] = wording.HOW_TO_READ
    glossary: tuple[Explained, ...] = wording.GLOSSARY


def page(study: FinishedStudy) -> Page:
    """The page of a finished study."""
    everyone, setting = study.whole, results.primary(study)
    return Page(
        name=study.plan.name,
        title=_title(study),
        notice=_notice(study),
        asked=finding.asked(study),
        finding=finding.finding(study),
        warnings=finding.warnings(study),
        verdicts=verdicts(study),
        results_intro=wording.RESULTS_INTRO,
        main_tables=(
            results.approaches_table(study, everyone, setting),
            results.changes_table(study, everyone, setting),
        ),
        scopes=results.scope_parts(study),
        group_figure=audit_figures.group_figure(study),
        main_groups=results.groups_table(study, everyone, setting),
        group_scopes=results.group_parts(study),
        cohort_intro=wording.COHORT_INTRO if study.home is None else wording.COHORT_INTRO_AT_HOME,
        cohorts=cohort.cohorts(study),
        training=_training(study),
        untold="" if study.home is None else wording.NO_JOURNAL,
        chosen=chosen(study),
        fidelity_figure=audit_figures.fidelity_figure(study),
        fidelity_table=results.fidelity_table(study),
        sites=cohort.sites_table(study),
        facts=tuple(_facts(study)),
        disclosed=disclosed(study.plan, masked=study.masked),
    )


def _title(study: FinishedStudy) -> str:
    name = f"FairSynth study “{study.plan.name}”"
    return name if study.home is None else f"{name}: site {study.home}, its own page"


def _notice(study: FinishedStudy) -> str:
    """For whose eyes the page is; empty for the server's report."""
    if study.home is None:
        return ""
    return wording.NO_RELEASE.format(site=study.home, minimum=study.plan.audit.minimum_cell)


def _training(study: FinishedStudy) -> tuple[Picture, ...]:
    """The three training figures; none at home, where there is no journal."""
    if study.home is not None:
        return ()
    return (
        Picture(
            svg=curves.likelihood(study),
            caption="How surprised each generator is by real visits, before each round; lower is better. Validation"
            " rising while training falls would mean learning by heart. Pooled over sites.",
        ),
        Picture(
            svg=curves.fairness_loss(study),
            caption="The fairness loss of the generator's own predictions on training patients; 0 is parity. Only the"
            " FairSynth generator is trained to lower it.",
        ),
        rates_figure(study),
    )


def rates_figure(study: StudyRecord, *, note: str = "") -> Picture:
    """The group rates by round, with what is not drawn, and a `note`."""
    _, hidden = curves.shown_groups(study)
    rates = "How many positive predictions the generator expects for a patient of each group, on training patients."
    if hidden:
        rates += f" Not drawn, fewer than {study.plan.audit.minimum_cell} training patients: {listed(hidden)}."
    return Picture(svg=curves.group_rates(study), caption=f"{rates}{note}")


def _facts(study: FinishedStudy) -> Iterator[Fact]:
    """What ran: the journal's own words, then the plan."""
    plan = study.plan
    yield from facts.run(study)
    yield Fact(name="Seeds", value=f"study seed {plan.seed}; {study.axes.seeds} training seeds for every predictor")
    if study.home is None:
        yield Fact(name="Sites that took part", value=listed(study.audited))
        yield Fact(name="Sites missing", value=listed(study.missing) or "none")
    else:
        yield Fact(name="This page is of", value=f"site {study.home}")
        yield Fact(name="Sites of the study", value=listed(plan.roster))
    named = f", not without {listed(plan.required)}" if plan.required else ""
    yield Fact(name="Quorum", value=f"{plan.quorum} of {len(plan.roster)}{named}")
    yield from facts.made(study)
    yield from facts.settings(study)
