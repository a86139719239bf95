"""Every shipped source: raw tables -> records -> synthetic events -> tables -> the same records."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import meds
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from decode_stories import CONFIGS
from thrown_together import possible_patients
from thrown_together import write_events as write_artefact

from fairsynth import artefacts
from fairsynth.config import StudyPlan, read_site
from fairsynth.extraction import extract, read_rules
from fairsynth.synthesis.decode import write_events, write_tables
from fairsynth.visits.cohort import Cohort, encode, load_cohort, prepare, shared_vocabulary
from fairsynth.visits.groups import read_groups
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

TASKS = dict.fromkeys(("mimic4", "eicu", "omop"), "in_hospital_mortality") | {"diabetes130/medicare": "readmission_30d"}
PATIENTS = 60


@dataclass(frozen=True, kw_only=True)
class World:
    """Records of a site, the synthetic data made of them, and the records of that."""

    source: str
    site: Path
    synthetic: Path
    records: Records
    again: Records
    vocabulary: Vocabulary


@pytest.fixture(scope="module", params=TASKS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    source, root = request.param, tmp_path_factory.mktemp("world")
    config = CONFIGS / source
    groups = read_groups(config / read_site(config).groups)
    plan = plan_of(tuple(dict.fromkeys(rule.group for rule in groups.rules)), task=TASKS[source])
    told = possible_patients(source, read_rules(config), attribute=groups.attribute, number=PATIENTS, seed=1)
    raw = write_tables(write_artefact(root / "told", told), config=config, out=root / "raw")
    cohort = cohort_of(raw, config=config, root=root / "site", plan=plan)
    records = Records.concatenate([cohort.train, cohort.validation, cohort.held_out])
    synthetic = root / "synthetic"
    tables = write_tables(
        write_events(records, root=root / "site", out=synthetic, seed=3), config=config, out=synthetic
    )
    back = cohort_of(tables, config=config, root=root / "again", plan=plan, vocabulary=cohort.vocabulary)
    patients = pl.read_parquet(root / "again" / "visits" / "patients.parquet").sort("subject_id")
    order = np.concatenate(
        [patients.filter(split=name)["subject_id"].to_numpy() for name in ("train", "validation", "held_out")]
    )
    again = Records.concatenate([back.train, back.validation, back.held_out]).take(np.argsort(order))
    return World(
        source=source,
        site=root / "site",
        synthetic=synthetic,
        records=records,
        again=again,
        vocabulary=cohort.vocabulary,
    )


def plan_of(groups: tuple[str, ...], *, task: str) -> StudyPlan:
    """A plan in which one patient is enough to disclose a code, and a prediction late enough to know all of a visit."""
    split = {"train": 0.6, "validation": 0.2, "held_out": 0.2}
    shared = {name: {} for name in ("objective", "generator", "training", "augmentation", "audit")}
    return StudyPlan.model_validate(
        {
            **shared,
            "name": "sources",
            "seed": 5,
            "roster": ["here"],
            "quorum": 1,
            "task": {"name": task, "observation_hours": 400},
            "split": split,
            "groups": {"names": groups, "reference": groups[:1]},
            "vocabulary": {"minimum_patients": 1},
            "privacy": {},
        }
    )


def cohort_of(data: Path, *, config: Path, root: Path, plan: StudyPlan, vocabulary: Vocabulary | None = None) -> Cohort:
    extract(data, config=config, root=root)
    proposal = prepare(root, config=config, plan=plan)
    encode(root, vocabulary=vocabulary or shared_vocabulary(proposal.codes, plan=plan), plan=plan)
    return load_cohort(root)


def named(tokens: np.ndarray, offsets: np.ndarray, names: tuple[str, ...]) -> list[set[str]]:
    return [{names[token] for token in tokens[start:end]} for start, end in itertools.pairwise(offsets)]


def test_the_same_tokens_come_back_in_every_visit(world: World) -> None:
    names = world.vocabulary.names
    before, after = (named(records.codes, records.visit_offsets, names) for records in (world.records, world.again))
    assert len(set().union(*before)) > 5  # the source does give tokens
    assert after == before


def test_the_same_patients_come_back(world: World) -> None:
    names = world.vocabulary.names
    before, after = (named(records.context, records.context_offsets, names) for records in (world.records, world.again))
    assert after == before
    assert np.array_equal(world.again.patient_offsets, world.records.patient_offsets)
    assert np.array_equal(world.again.label, world.records.label)
    assert set(world.records.label) == {0, 1}
    assert np.array_equal(world.again.group, world.records.group)


def test_nothing_is_lost_or_implied_on_the_way_and_the_events_are_meds(world: World) -> None:
    facts = artefacts.read_manifest(world.synthetic / "tables", kind="tables")["facts"]
    assert (facts["unwritable"], facts["implied"]) == ({}, {})
    meds.DataSchema.validate(pq.read_table(world.synthetic / "events" / "data" / "0.parquet"))
