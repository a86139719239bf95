"""Raw tables of one site -> the data-quality report, before anything runs.

In:  a folder of raw tables, the site's configuration, a study (or the default plan).   Out: `QualityReport`.
Never: a file left behind (all work is done in a temporary folder); a patient's value or identifier; a small count.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from fairsynth import artefacts
from fairsynth.config import GroupsConfig, SiteConfig, Strict, StudyConfig, StudyPlan, read_site
from fairsynth.errors import CohortError, ConfigError
from fairsynth.extraction import TablesReport, extract_anew
from fairsynth.extraction.rules import read_source
from fairsynth.governance.disclosure import Count, shown
from fairsynth.quality.codes import KindQuality, describe_kinds, kind_findings, place
from fairsynth.quality.events import inventory
from fairsynth.quality.findings import LEVELS, Finding, Level, errors_of
from fairsynth.quality.groups import GroupsQuality, describe_groups, group_findings
from fairsynth.quality.leaks import LeaksQuality, carriers, describe_leaks, leak_findings
from fairsynth.quality.missing import MissingQuality, describe_missing, missing_findings
from fairsynth.quality.order import OrderQuality, describe_order, order_findings, with_cohort
from fairsynth.quality.tables import TableQuality, describe_tables, table_findings
from fairsynth.quality.todos import open_todos, todo_findings, todo_problems
from fairsynth.schemas import Group, SiteId
from fairsynth.visits.catalogue import catalogue
from fairsynth.visits.flow import Flow
from fairsynth.visits.groups import GroupRules, read_groups
from fairsynth.visits.patients import first_strings, read_people, read_visits
from fairsynth.visits.prepare import VISITS, count_cells, prepare, read_records
from fairsynth.visits.shards import Shards, few_events, open_shards

HERE = SiteId("here")  # the one site of the default plan


class QualityReport(Strict):
    """What `fairsynth check SITE` tells. `groups` and `leaks` are None where no cohort could be made."""

    schema_: Literal["fairsynth.quality/1"] = Field(default="fairsynth.quality/1", alias="schema")
    source: str
    task: str
    minimum_cell: int
    calendar: str  # "real", or "artificial": years mean nothing
    patients: Count
    visits: Count
    tables: tuple[TableQuality, ...]
    codes: tuple[KindQuality, ...]
    missing: MissingQuality
    order: OrderQuality
    groups: GroupsQuality | None
    leaks: LeaksQuality | None
    findings: tuple[Finding, ...]  # the verdict: errors, warnings, notes

    def number(self, level: Level) -> int:
        """How many findings are as grave as that."""
        return sum(finding.level == level for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class _Site:
    """What is read once: configuration, events, and what they say of visits and people."""

    folder: Path
    config: SiteConfig
    rules: GroupRules
    root: Path
    plan: StudyPlan
    calendar: str
    shards: Shards
    codes: pl.DataFrame
    visits: pl.DataFrame
    people: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class _Cohort:
    """What `prepare` made: record visits, tokens, patients."""

    records: pl.DataFrame
    tokens: pl.DataFrame
    patients: pl.DataFrame


def check_site(data: Path, *, config: Path, study: StudyConfig | None = None) -> QualityReport:
    """The report on the tables in `data` under the configuration in folder `config`.

    Raises ConfigError, which names the decisions that the configuration leaves open, and ExtractionError where the
    tables cannot be read at all.
    """
    _load(config, alone=study is None)
    with tempfile.TemporaryDirectory(prefix="fairsynth-check-") as scratch:
        root = Path(scratch)
        tables = extract_anew(data, config=config, root=root)
        return _report(_open(root, config=config, study=study), tables)


def _load(config: Path, *, alone: bool) -> None:
    """Read the configuration. Raises ConfigError, with the open decisions beside what is wrong.

    A site that is checked `alone`, without a study, must name two groups.
    """
    try:
        site, _ = read_source(config)
        path = config / site.groups
        if alone and len({rule.group for rule in read_groups(path).rules}) < 2:
            raise ConfigError.of("one group only", where=str(path), expected="rules for two groups or more")
    except ConfigError as error:
        raise ConfigError([*error.problems, *todo_problems(open_todos(config))]) from None


def default_plan(rules: GroupRules, *, strings: pl.DataFrame) -> StudyPlan:
    """The plan of a study of this site alone: every group that `rules` name, the largest as reference.

    `strings` has one row a patient, column raw. The rules must name two groups or more.
    """
    names = tuple(dict.fromkeys(rule.group for rule in rules.rules))
    counts = Counter(dict.fromkeys(names, 0))
    for raw, number in strings.group_by("raw").len().iter_rows():
        if (group := rules.group_of(raw)) is not None:
            counts[group] += number
    largest = max(names, key=lambda name: counts[name])
    study = {
        "schema": "fairsynth.study/1",
        "name": "check",
        "seed": 0,
        "sites": [{"site": HERE, "config": ".", "data": "."}],
        "groups": GroupsConfig(names=names, reference=(largest,)),
    }
    return StudyConfig.model_validate(study).plan()


def _open(root: Path, *, config: Path, study: StudyConfig | None) -> _Site:
    settings = read_site(config)
    rules = read_groups(config / settings.groups)
    shards = open_shards(root / "events")
    few = few_events(shards, attribute=rules.attribute)
    calendar = str(artefacts.read_manifest(root / "events", kind="events")["facts"]["calendar"])
    visits = read_visits(few, attribute=rules.attribute, artificial=calendar != "real")
    return _Site(
        folder=config,
        config=settings,
        rules=rules,
        root=root,
        plan=study.plan() if study else default_plan(rules, strings=first_strings(visits)),
        calendar=calendar,
        shards=shards,
        codes=pl.read_parquet(root / "events" / "metadata" / "codes.parquet"),
        visits=visits,
        people=read_people(few),
    )


def _report(site: _Site, tables: TablesReport) -> QualityReport:
    """Every section, and the verdict on them."""
    minimum, exclude = site.plan.audit.minimum_cell, site.config.cohort.exclude_codes
    dated = site.calendar == "real"
    counts = inventory(site.shards)
    levels = site.plan.vocabulary.levels
    placed = place(counts, codes=site.codes, levels=levels)
    described = describe_tables(tables, calendar=dated)
    kinds = describe_kinds(placed, minimum=minimum)
    missing = describe_missing(
        site.shards, attribute=site.rules.attribute, patients=tables.patients, visits=tables.visits, minimum=minimum
    )
    order = describe_order(site.shards, visits=site.visits, people=site.people, calendar=dated, minimum=minimum)
    cohort, failures = _cohort(site)
    groups = leaks = None
    if cohort is not None:
        order = _order(order, cohort, site, counts)
        groups = _groups(cohort, site)
        leaks = describe_leaks(
            _carried(cohort, site), labels=cohort.patients, placed=placed, exclude=exclude, minimum=minimum
        )
    findings = [
        *failures,
        *todo_findings(open_todos(site.folder)),
        *table_findings(described, visits=_years(site.visits) if dated else None),
        *kind_findings(kinds),
        *missing_findings(missing),
        *(group_findings(groups) if groups else ()),
        *(leak_findings(leaks) if leaks else ()),
        *order_findings(order),
    ]
    return QualityReport(
        source=site.config.source,
        task=site.plan.task.name,
        minimum_cell=minimum,
        calendar=site.calendar,
        patients=shown(tables.patients, minimum_cell=minimum),
        visits=shown(tables.visits, minimum_cell=minimum),
        tables=described,
        codes=kinds,
        missing=missing,
        order=order,
        groups=groups,
        leaks=leaks,
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
    )


def _years(visits: pl.DataFrame) -> tuple[int, int] | None:
    """The first and the last year of the visits."""
    first, last = visits["admitted"].dt.year().min(), visits["discharged"].dt.year().max()
    return (int(str(first)), int(str(last))) if first is not None and last is not None else None


def _cohort(site: _Site) -> tuple[_Cohort | None, list[Finding]]:
    """The prepared cohort; None and why, where none can be made."""
    try:
        prepare(site.root, config=site.folder, plan=site.plan)
    except CohortError as raised:
        return None, errors_of(raised)
    folder = site.root / VISITS
    records = read_records(site.root, config=site.folder, plan=site.plan)
    tokens, patients = (pl.read_parquet(folder / f"{name}.parquet") for name in ("tokens", "patients"))
    return _Cohort(records=records, tokens=tokens, patients=patients), []


def _order(order: OrderQuality, cohort: _Cohort, site: _Site, counts: pl.DataFrame) -> OrderQuality:
    excluded = site.config.cohort.exclude_codes
    levels = site.plan.vocabulary.levels
    known = catalogue(counts, codes=site.codes, levels=levels, exclude_codes=excluded, flow=Flow())
    return with_cohort(
        order,
        site.shards,
        records=cohort.records,
        tokens=cohort.tokens,
        patients=cohort.patients,
        catalogue=known,
    )


def _groups(cohort: _Cohort, site: _Site) -> GroupsQuality:
    named, groups = {rule.group for rule in site.rules.rules}, site.plan.groups
    here: list[Group] = [name for name in groups.names if groups.attribute_name(name) in named]
    return describe_groups(count_cells(cohort.patients, plan=site.plan), plan=site.plan, here=here)


def _carried(cohort: _Cohort, site: _Site) -> pl.DataFrame:
    """Source codes and tokens of each record's last visit: subject_id, code."""
    last = cohort.records.group_by("subject_id", maintain_order=True).last()
    codes = carriers(site.shards, last=last.select("subject_id", "visit_id", "predicted_at", "open"))
    tokens = cohort.tokens.join(last.select("subject_id", "position"), on=["subject_id", "position"], how="semi")
    named = tokens.select("subject_id", pl.col("token").alias("code"))
    return pl.concat([codes, named]).unique()
