"""A study with noise -> everything the server's page prints of it, in order.

In:  `NoisedStudy`.   Out: `NoisedPage`.
Never: a result, which the server does not have; a noised number that is called exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from fairsynth.config import MINIMUM_SITES
from fairsynth.governance.disclosure import shown
from fairsynth.report import facts, finding, noised_wording
from fairsynth.report.chosen import Chosen, chosen
from fairsynth.report.cohort import SPLIT_NAMES
from fairsynth.report.disclosed import Disclosed, disclosed
from fairsynth.report.facts import Fact
from fairsynth.report.noised import NoisedStudy
from fairsynth.report.page import rates_figure
from fairsynth.report.results import positives_name
from fairsynth.report.study import counted
from fairsynth.report.view import Picture, Row, Table, count_cell, listed
from fairsynth.report.wording import Explained
from fairsynth.schemas import SPLITS


@dataclass(frozen=True, kw_only=True)
class NoisedPage:
    """What the template prints."""

    template: ClassVar[str] = "noised.html.j2"

    name: str
    title: str
    asked: str
    known: str  # what the server has, in place of a finding
    warnings: tuple[str, ...]
    privacy: tuple[Fact, ...]
    protects: tuple[str, ...]
    covers: tuple[str, ...]
    uncovered: tuple[str, ...]
    at_home: tuple[str, ...]
    cohort_intro: str
    cohort: Table
    training_intro: str
    training: tuple[Picture, ...]
    chosen: Chosen
    facts: tuple[Fact, ...]
    disclosed: Disclosed
    how_to_read: tuple[Explained, ...] = noised_wording.HOW_TO_READ
    glossary: tuple[Explained, ...] = noised_wording.GLOSSARY


def noised_page(study: NoisedStudy) -> NoisedPage:
    """The server's page of a study with noise."""
    return NoisedPage(
        name=study.plan.name,
        title=f"FairSynth study “{study.plan.name}”",
        asked=finding.asked(study),
        known=_known(study),
        warnings=tuple(_warnings(study)),
        privacy=tuple(_privacy(study)),
        protects=tuple(_protects(study)),
        covers=noised_wording.COVERS,
        uncovered=noised_wording.UNCOVERED,
        at_home=noised_wording.AT_HOME,
        cohort_intro=noised_wording.COHORT_INTRO,
        cohort=_cohort(study),
        training_intro=noised_wording.TRAINING_INTRO,
        training=_training(study),
        chosen=chosen(study),
        facts=tuple(_facts(study)),
        disclosed=disclosed(study.plan, masked=True),
    )


def _known(study: NoisedStudy) -> str:
    return (
        f"{len(study.plan.roster)} sites trained the generators together. What left a site had noise: epsilon"
        f" {study.charged.epsilon:.3g} and delta {study.charged.delta:.2g} for one patient of one site, over the whole"
        f" study. {noised_wording.NO_RESULT}"
    )


def _warnings(study: NoisedStudy) -> Iterator[str]:
    """What a reader must know before the numbers."""
    for refused in study.refusals:
        yield f"A reply of site {refused.site} was refused ({refused.phase}, {refused.code})."
    if study.enrolment.left_out:
        yield (
            f"Left out: {listed(study.enrolment.left_out)}. Their numbers do not stand out of the noise, or are below"
            f" {study.plan.privacy.minimum_group} training patients: nothing was trained for these groups' fairness,"
            " and what the models do to them is not known here."
        )
    if bounded := sum(line.bounded for line in study.rounds):
        yield (
            f"In {bounded} of {len(study.rounds)} rounds a group's fairness coefficient reached its bound, because the"
            " group is small: the training then pushed less than the objective asks."
        )


def _protects(study: NoisedStudy) -> Iterator[str]:
    """What the two numbers mean, and against whom."""
    yield noised_wording.MEANING
    yield noised_wording.AGAINST
    if len(study.plan.roster) < MINIMUM_SITES:
        yield noised_wording.TWO_SITES


def _privacy(study: NoisedStudy) -> Iterator[Fact]:
    """The charge, and what it rests on."""
    charged = study.charged
    accountant = noised_wording.ACCOUNTANTS.get(charged.accountant, charged.accountant)
    yield Fact(name="Epsilon", value=f"{charged.epsilon:.3g}, for one patient of one site over the whole study")
    yield Fact(name="Delta", value=_chance(charged.delta))
    yield Fact(name="Computed from", value=accountant)
    yield Fact(name="Releases", value=f"{charged.releases:,}, all of them charged")
    yield Fact(
        name="Training",
        value=f"{charged.steps:,} steps, each patient in a step with a chance of {charged.batch_share:g}; a patient's"
        f" gradient is cut to a norm of {charged.clip:g}, and a step's noise is {charged.noise_multiplier:.3g} times"
        " that",
    )
    yield Fact(
        name="Counts",
        value=f"noise of {charged.counts_ratio:.3g} times what one patient can change, on each site's share; counted in"
        f" {_rounds(charged.counted_rounds)}",
    )


def _chance(delta: float) -> str:
    return f"{delta:.2g}, a chance of one in {1 / delta:,.0f}" if delta else "0"


def _rounds(numbers: tuple[int, ...]) -> str:
    if not numbers:
        return "no round"
    return f"round{'s' if len(numbers) > 1 else ''} {listed(map(str, numbers))} of the FairSynth generator"


def _cohort(study: NoisedStudy) -> Table:
    """Noised patients and positives by group and split; small numbers, mostly noise, are not printed."""
    minimum, cells = study.plan.audit.minimum_cell, study.cells
    absent = {name for index, name in enumerate(study.plan.groups.names) if not cells[:, index].any()}
    out = absent | set(study.enrolment.left_out)
    rows = tuple(
        Row(
            name=str(group),
            cells=tuple(
                count_cell(shown(int(number), minimum_cell=minimum))
                for split in cells
                for number in (split[index].sum(), split[index, 1])
            ),
        )
        for index, group in enumerate(study.plan.groups.names)
        if group not in out
    )
    named = [name for name in study.plan.groups.names if name in out]
    columns = ("Group", *(t for s in SPLITS for t in (SPLIT_NAMES[s], f"of these {positives_name(study)}")))
    left_out = f" Left out, or without a patient: {listed(named)}." if named else ""
    return Table(
        caption="Patients of all sites together by group, split and outcome, with noise.",
        columns=columns,
        rows=rows,
        note=f"Noised, not exact. <{minimum}: from 1 to {minimum - 1}; so small a number is mostly noise.{left_out}",
    )


def _training(study: NoisedStudy) -> tuple[Picture, ...]:
    """The group rates, where any were counted."""
    if not counted(study.rounds):
        return ()
    return (rates_figure(study, note=noised_wording.RATES_NOTE),)


def _facts(study: NoisedStudy) -> Iterator[Fact]:
    """What ran: the journal's own words, then the plan."""
    plan = study.plan
    yield from facts.run(study)
    yield Fact(name="Study seed", value=str(plan.seed))
    yield Fact(name="Sites that took part", value=listed(plan.roster))
    yield Fact(name="Training visits", value=f"{study.everyone.visits:,}, with noise, of all sites together")
    yield from facts.made(study)
    yield from facts.settings(study, "privacy")
