"""The cohort tables: who took part, patients by split and group, and the flow from raw data to cohort.

In:  `FinishedStudy`.   Out: `Table` values.
Never: a small cell, in clear or by subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairsynth.federation.plans import POOLED
from fairsynth.governance.disclosure import shown
from fairsynth.governance.members import members
from fairsynth.report.results import positives_name
from fairsynth.report.study import EnrolledSite, FinishedStudy
from fairsynth.report.view import Cell, Row, Table, count_cell, listed, number
from fairsynth.schemas import SPLITS, SiteId

NOT_KEPT = "not kept"
SPLIT_NAMES = {"train": "Training", "validation": "Validation", "held_out": "Held out"}


@dataclass(frozen=True, kw_only=True)
class SiteCohort:
    """One site's two tables."""

    name: str
    members: Table
    flow: Table


def sites_table(study: FinishedStudy) -> Table:
    """Every site of the roster, or the one at home: whether it took part, its data and what of it is covered."""
    rows = []
    for site in study.enrolled:
        entry = study.enrolment.sites.get(site)
        audited, minimum = ("yes" if site in study.arrays else "no"), study.plan.audit.minimum_cell
        cells = _site_cells(entry, audited, minimum) if entry else (Cell(missing="missing"),) * 6
        rows.append(Row(name=_name(site), cells=cells, muted=site not in study.arrays))
    return Table(
        caption="Sites of the study." if study.home is None else f"Data of site {study.home}.",
        columns=(
            "Site",
            "Audited",
            "Training visits",
            "Codes proposed",
            "Code occurrences covered",
            "Data (SHA-256 of events)",
            "Training patients",
        ),
        rows=tuple(rows),
        note="Code occurrences covered: share of the site's codes in training visits that the shared vocabulary holds.",
    )


def cohorts(study: FinishedStudy) -> tuple[SiteCohort, ...]:
    """The cohort of every enrolled site, in roster order; of all together where the server knows no more."""
    found = [site for site in study.enrolled if site in study.enrolment.sites]
    return tuple(
        SiteCohort(
            name="All sites together" if site == POOLED else f"Site {site}",
            members=_members_table(study, site),
            flow=_flow_table(study, site),
        )
        for site in found
    )


def _name(site: SiteId) -> str:
    return "all sites" if site == POOLED else str(site)


def _site_cells(entry: EnrolledSite, audited: str, minimum: int) -> tuple[Cell, ...]:
    training = sum(sum(row) for row in entry.cohort[0])
    return (
        Cell(text=audited),
        Cell(text=f"{entry.visits:,}"),
        Cell(missing=NOT_KEPT) if entry.codes is None else Cell(text=f"{entry.codes:,}"),
        Cell(missing=NOT_KEPT) if entry.mapped_share is None else Cell(text=f"{number(100 * entry.mapped_share, 1)} %"),
        Cell(text=entry.data_sha256[:16], note="first 16 digits") if entry.data_sha256 else Cell(missing=NOT_KEPT),
        count_cell(shown(training, minimum_cell=minimum)),
    )


def _of(site: SiteId) -> str:
    return "all sites together" if site == POOLED else f"site {site}"


def _members_table(study: FinishedStudy, site: SiteId) -> Table:
    """Patients and positives by group and split; small cells hidden, groups without a patient here named below."""
    cohort, minimum = study.cohort(site), study.plan.audit.minimum_cell
    printed = [members(cells, minimum=minimum) for cells in cohort]  # one a split
    rows = tuple(
        Row(
            name=str(group),
            cells=tuple(
                count_cell(value) for split in printed for value in (split.patients[index], split.positives[index])
            ),
        )
        for index, group in enumerate(study.plan.groups.names)
        if any(sum(cells[index]) for cells in cohort)
    )
    absent = [group for index, group in enumerate(study.plan.groups.names) if not any(sum(c[index]) for c in cohort)]
    where = "left out, or without a patient" if site == POOLED else "No patient at this site"
    nobody = f" {where.capitalize()}: {listed(absent)}." if absent else ""
    names = [SPLIT_NAMES[split] for split in SPLITS]
    columns = ("Group", *(text for name in names for text in (name, f"of these {positives_name(study)}")))
    return Table(
        caption=f"Patients of {_of(site)} by group, split and outcome.",
        columns=columns,
        rows=rows,
        note=f"<{minimum}: from 1 to {minimum - 1}. ≥: a bound, where the exact number would give a hidden one away."
        + nobody,
    )


def _flow_table(study: FinishedStudy, site: SiteId) -> Table:
    """The site's own steps and what was left after each."""
    minimum = study.plan.audit.minimum_cell
    flow = study.enrolment.sites[site].flow
    rows = tuple(
        Row(name=step.replace("_", " "), cells=(count_cell(shown(left, minimum_cell=minimum)),))
        for step, left in flow.items()
    )
    return Table(caption=f"Cohort flow of {_of(site)}.", columns=("Step", "Count"), rows=rows)
