"""A finished study -> everything the template prints, in order.

In:  `FinishedStudy`.   Out: `Page`.
Never: markup other than this package's own SVG; file access.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fairsynth.artefacts import code_version
from fairsynth.audit.summary import ALL_SITES
from fairsynth.config import MINIMUM_SITES
from fairsynth.federation.plans import is_taught, plan_sha256
from fairsynth.report import audit_figures, cohort, curves, finding, results, wording
from fairsynth.report.chosen import Chosen, chosen
from fairsynth.report.cohort import SiteCohort
from fairsynth.report.study import FinishedStudy
from fairsynth.report.verdicts import Verdicts, verdicts
from fairsynth.report.view import Part, Picture, Table, listed
from fairsynth.report.wording import Explained


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A name and its value; `hash` values are set in a fixed-width face."""

    name: str
    value: str
    hash: bool = False


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the template prints."""

    name: str
    title: str
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
    chosen: Chosen
    fidelity_figure: Picture
    fidelity_table: Table
    sites: Table
    facts: tuple[Fact, ...]
    leaves: tuple[str, ...]
    stays: tuple[str, ...]
    unprotected: str
    how_to_read: tuple[Explained, ...] = wording.HOW_TO_READ
    glossary: tuple[Explained, ...] = wording.GLOSSARY


def page(study: FinishedStudy) -> Page:
    """The page of a finished study."""
    everyone, setting = study.summary.scope(ALL_SITES), results.primary(study)
    return Page(
        name=study.plan.name,
        title=f"FairSynth study “{study.plan.name}”",
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
        cohort_intro=wording.COHORT_INTRO,
        cohorts=cohort.cohorts(study),
        training=_training(study),
        chosen=chosen(study),
        fidelity_figure=audit_figures.fidelity_figure(study),
        fidelity_table=results.fidelity_table(study),
        sites=cohort.sites_table(study),
        facts=tuple(_facts(study)),
        leaves=_leaves(study),
        stays=wording.STAYS + (wording.STAYS_MASKED if study.masked else ()),
        unprotected=_unprotected(study),
    )


def _leaves(study: FinishedStudy) -> tuple[str, ...]:
    """What went to the server in a study of this plan."""
    primed = wording.LEAVES_PRIMED if study.plan.training.primed else ()
    always = wording.LEAVES_MASKED if study.masked else wording.LEAVES
    return (*always, *primed, *(wording.LEAVES_TAUGHT if is_taught(study.plan) else ()))


def _unprotected(study: FinishedStudy) -> str:
    """What this study does not protect."""
    if not study.masked:
        return wording.UNPROTECTED_PLAIN
    return wording.UNPROTECTED_MASKED + ("" if len(study.plan.roster) >= MINIMUM_SITES else wording.UNPROTECTED_TWO)


def _training(study: FinishedStudy) -> tuple[Picture, ...]:
    """The three training figures."""
    _, hidden = curves.shown_groups(study)
    rates = "How many positive predictions the generator expects for a patient of each group, on training patients."
    if hidden:
        rates += f" Not drawn, fewer than {study.plan.audit.minimum_cell} training patients: {listed(hidden)}."
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
        Picture(svg=curves.group_rates(study), caption=rates),
    )


def _facts(study: FinishedStudy) -> Iterator[Fact]:
    """What ran: the journal's own words, then the plan."""
    plan = study.plan
    yield Fact(name="Study", value=plan.name)
    yield Fact(name="Plan (SHA-256)", value=plan_sha256(plan), hash=True)
    started = study.event("study")
    for name, value in started.items():
        if name not in {"event", "name", "plan_sha256", "roster", "seed", "quorum"}:
            yield Fact(name=name.replace("_", " ").capitalize(), value=_plain(value))
    yield Fact(name="Report made by", value=f"fairsynth {code_version()}")
    yield Fact(name="Seeds", value=f"study seed {plan.seed}; {study.axes.seeds} training seeds for every predictor")
    yield Fact(name="Sites that took part", value=listed(study.audited))
    yield Fact(name="Sites missing", value=listed(study.missing) or "none")
    yield Fact(name="Quorum", value=f"{plan.quorum} of {len(plan.roster)}")
    yield Fact(name="Vocabulary (SHA-256)", value=study.enrolment.vocabulary_sha256, hash=True)
    yield Fact(name="Codes in the vocabulary", value=f"{len(study.enrolment.codes):,}")
    last = study.arm("fairsynth")
    if last and last[-1].weights_sha256:
        yield Fact(name="FairSynth generator (SHA-256)", value=last[-1].weights_sha256, hash=True)
    seconds = sum(line.seconds or 0.0 for line in study.rounds)
    yield Fact(name="Time in rounds", value=f"{seconds:,.0f} s over {len(study.rounds)} rounds of both generators")
    for name in (
        "task",
        "split",
        "groups",
        "vocabulary",
        "objective",
        "generator",
        "training",
        "augmentation",
        "audit",
    ):
        yield Fact(name=name.capitalize(), value=_plain(getattr(plan, name).model_dump(mode="json", by_alias=True)))


def _plain(value: Any) -> str:
    """A JSON value as a reader's text."""
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return listed([_plain(item) for item in value])
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
