"""A site's events -> rolled-up visits, and what the site may say of them before a vocabulary is agreed.

In:  `events/`, `site.yaml`, `groups.yaml`, the plan.   Out: `visits/` (patients, tokens, source codes), a `Proposal`.
Never: a code in a proposal that fewer than `minimum_patients` training patients carry; anything written on failure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fairsynth import artefacts
from fairsynth.config import SiteConfig, StudyPlan, read_site
from fairsynth.schemas import SPLITS, IntArray
from fairsynth.visits import decoder as decoding
from fairsynth.visits.bins import AGE_BINS, binned
from fairsynth.visits.catalogue import Catalogue, catalogue
from fairsynth.visits.flow import Flow
from fairsynth.visits.groups import GroupRules, assign, check_known, crossed, read_groups
from fairsynth.visits.patients import first_strings, read_people, read_visits, select
from fairsynth.visits.shards import Shards, few_events, inventory, open_shards
from fairsynth.visits.split import split
from fairsynth.visits.tasks import Outcome, load_task, outcome_of
from fairsynth.visits.tokens import Tokens, read_tokens, record_visits

VISITS = "visits"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What a site may say of its cohort before a vocabulary is agreed."""

    codes: dict[str, int]  # token -> training patients who carry it, at least `minimum_patients`
    members: IntArray  # (G, 2) training patients by (group, label)
    visits: int  # of training patients' records
    flow: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class _Site:
    """What `prepare` reads once and passes on."""

    config: SiteConfig
    rules: GroupRules
    rules_path: Path
    plan: StudyPlan
    shards: Shards
    few: pl.DataFrame  # the events that say who the patients are and when their visits are
    codes: pl.DataFrame
    artificial: bool  # the source has no calendar: what lies between visits means nothing
    flow: Flow = field(default_factory=Flow)


def prepare(root: Path, *, config: Path, plan: StudyPlan) -> Proposal:
    """Roll up `root/events` into `root/visits` and say what this site can offer.

    Raises ConfigError, ArtefactError (no events) and CohortError (with the cohort flow).
    """
    manifest = artefacts.read_manifest(root / "events", kind="events")
    site = _open(root, config=config, plan=plan)
    records = _records(site)
    patients = _patients(records, site)
    training = patients.filter(split="train")
    tokens = read_tokens(
        site.shards,
        records=records,
        catalogue=_catalogue(site),
        training=training["subject_id"],
        flow=site.flow,
    )
    absent = [name for name in plan.groups.names if name not in set(patients["group"])]
    facts: dict[str, Any] = {
        "plan_sha256": plan_sha256(plan),
        "task": plan.task.name,
        "groups_without_patients": absent,
        "readmission_events": bool(site.few["code"].str.starts_with("READMISSION//").any()),
    }
    inputs = {"events": manifest["content"], "config": artefacts.sha256_folder(config)}
    with artefacts.new(root, kind=VISITS, inputs=inputs, facts=facts) as folder:
        patients.write_parquet(folder / "patients.parquet")
        tokens.visits.cast({"token": pl.String}).write_parquet(folder / "tokens.parquet")
        tokens.phenotypes.write_parquet(folder / "phenotypes.parquet")
        _sources(tokens, records, training=training, site=site).write_parquet(folder / "sources.parquet")
        artefacts.write_text(folder / "flow.json", json.dumps(site.flow.counts, indent=2) + "\n")
    return Proposal(
        codes=proposed_codes(tokens.visits, training=training["subject_id"], plan=plan),
        members=count_cells(training, plan=plan),
        visits=int(training["visits"].sum()),
        flow=dict(site.flow.counts),
    )


def read_records(root: Path, *, config: Path, plan: StudyPlan) -> pl.DataFrame:
    """The visits of every record as `prepare` takes them, in order: position, predicted_at, open, label, group, ..."""
    return _records(_open(root, config=config, plan=plan))


def proposed_codes(tokens: pl.DataFrame, *, training: pl.Series, plan: StudyPlan) -> dict[str, int]:
    """Tokens that at least `minimum_patients` training patients carry, and how many; the commonest `maximum_codes`."""
    counts = (
        tokens.filter(pl.col("subject_id").is_in(training.implode()))
        .group_by("token")
        .agg(pl.col("subject_id").n_unique().alias("patients"))
        .filter(pl.col("patients") >= plan.vocabulary.minimum_patients)
        .sort("patients", "token", descending=[True, False])
        .head(plan.vocabulary.maximum_codes)
        .sort("token")
    )
    return dict(zip(counts["token"], counts["patients"], strict=True))


def count_cells(patients: pl.DataFrame, *, plan: StudyPlan) -> IntArray:
    """(G, 2) patients by (group, label); a group with nobody has zeros."""
    rows = [[0, 0] for _ in plan.groups.names]
    for group, label, count in patients.group_by("group", "label").len().iter_rows():
        rows[plan.groups.names.index(group)][label] = count
    return np.array(rows, dtype=np.int64)


def plan_sha256(plan: StudyPlan) -> str:
    """The hash that names a study."""
    return artefacts.sha256_json(plan.model_dump(mode="json", by_alias=True))


def _open(root: Path, *, config: Path, plan: StudyPlan) -> _Site:
    settings = read_site(config)
    rules_path = config / settings.groups
    events = root / "events"
    facts = artefacts.read_manifest(events, kind="events")["facts"]
    rules, shards = read_groups(rules_path), open_shards(events)
    return _Site(
        config=settings,
        rules=rules,
        rules_path=rules_path,
        plan=plan,
        shards=shards,
        few=few_events(shards, attribute=rules.attribute),
        codes=pl.read_parquet(events / "metadata" / "codes.parquet"),
        artificial=facts.get("calendar") == "artificial",
    )


def _catalogue(site: _Site) -> Catalogue:
    excluded = site.config.cohort.exclude_codes
    levels = site.plan.vocabulary.levels
    return catalogue(inventory(site.shards), codes=site.codes, levels=levels, exclude_codes=excluded, flow=site.flow)


def _records(site: _Site) -> pl.DataFrame:
    """The visits of every record, with group and raw string of the patient, prediction time and label."""
    flow, plan = site.flow, site.plan
    visits = read_visits(site.few, attribute=site.rules.attribute, artificial=site.artificial)
    people, cohort = read_people(site.few), site.config.cohort
    visits = select(visits, people=people, cohort=cohort, flow=flow, artificial=site.artificial)
    if visits.is_empty():
        raise flow.error(
            "empty cohort",
            where="site.yaml  cohort",
            do="widen `cohort` in site.yaml, or check the events' cohort flow",
        )
    cell = plan.audit.minimum_cell
    groups = assign(first_strings(visits), rules=site.rules, source=site.rules_path, minimum_cell=cell)
    check_known(groups["group"].unique(), names=plan.groups.attribute_names, source=site.rules_path)
    flow.note("patients_with_a_group", len(groups))
    visits = visits.drop("raw").join(groups, on="subject_id", how="inner", maintain_order="left")
    visits = crossed(visits, cross=plan.groups.cross)
    examples = load_task(plan.task.name)(visits, plan.task)
    _check_labels(examples, site)
    return record_visits(visits, examples, maximum_visits=plan.generator.maximum_visits, flow=flow)


def _check_labels(examples: pl.DataFrame, site: _Site) -> None:
    """Raise CohortError unless there are examples of both labels."""
    flow, where = site.flow, f"task {site.plan.task.name}"
    flow.note("patients_with_an_example", len(examples))
    flow.note("patients_with_a_positive_label", int(examples["label"].sum()))
    if examples.is_empty():
        raise flow.error("empty cohort", where=where, expected="a patient with an example", do="choose another task")
    for label, name in ((1, "positives"), (0, "negatives")):
        if not (examples["label"] == label).any():
            do = "choose another task, or check the outcome events"
            raise flow.error(f"task without {name}", where=where, expected="patients of both labels", do=do)


def _patients(records: pl.DataFrame, site: _Site) -> pl.DataFrame:
    """One row a patient: subject_id, group, raw, sex, age, label, visits, split."""
    last = records.group_by("subject_id", maintain_order=True).last()
    visits = (pl.col("position") + 1).cast(pl.Int64).alias("visits")
    age = binned(pl.col("age_days"), AGE_BINS).alias("age")
    patients = last.select("subject_id", "group", "raw", "sex", age, "label", visits).sort("subject_id")
    plan = site.plan
    which = split(
        patients["subject_id"].to_numpy(),
        shares=plan.split,
        seed=plan.seed,
        source=site.config.source,
        independent=plan.privacy.noised,
    )
    sizes = np.bincount(which, minlength=len(SPLITS))
    for name, size in zip(SPLITS, sizes, strict=True):
        site.flow.note(f"patients_{name}", int(size))
    if not sizes.all():
        do = "widen `cohort` in site.yaml, or change the shares"
        raise site.flow.error("too few patients to split", where="plan  split", expected="a patient in each", do=do)
    return patients.with_columns(pl.Series("split", [SPLITS[index] for index in which]))


def _sources(tokens: Tokens, records: pl.DataFrame, *, training: pl.DataFrame, site: _Site) -> pl.DataFrame:
    """Source codes of the training patients, for the decoder."""
    visits = records.join(training.select("subject_id"), on="subject_id", how="semi")
    readmission = outcome_of(site.plan.task.name) is Outcome.readmission
    return pl.concat(
        [
            tokens.sources,
            decoding.group_sources(training, attribute=site.rules.attribute),
            decoding.structural_sources(site.few, visits=visits.filter(~pl.col("hospice")) if readmission else visits),
            decoding.readmission_sources(site.few, visits=visits if readmission else visits.clear()),
        ]
    )
