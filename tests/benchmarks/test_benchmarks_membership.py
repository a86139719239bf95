"""Canaries are patients of training and of nobody else; a generator that knows them by heart shows it, another not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from benchmarks.canaries import came_out, canary_rows, losses, of_the_same_make, percentiles, plant
from benchmarks.membership import DEMO, FULL, plan_of
from benchmarks.membership_table import tables
from fairsynth.config import GeneratorConfig, read_study
from fairsynth.extraction import extract
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.train import Study, Totals, threads, train
from fairsynth.simulate import simulate
from fairsynth.synthesis.release.profiles import profiles
from fairsynth.synthesis.release.rules import ReleaseRules
from fairsynth.synthesis.release.verdict import Evidence, examine
from fairsynth.visits.cohort import encode, load_cohort, prepare, shared_vocabulary
from fairsynth.visits.records import Records

SMALL = GeneratorConfig(embedding=16, layers=1, heads=2)
CONFIG = DEMO.parents[1] / "site_configs" / "mimic3"


@pytest.fixture(scope="module")
def plan():
    return plan_of("demo", scale=FULL, seed=1).model_copy(update={"generator": SMALL})


@pytest.fixture(scope="module")
def sites(tmp_path_factory, plan):
    """Two hospitals: the training patients' tokens before planting, what was planted, the cohorts after it."""
    root = tmp_path_factory.mktemp("sites")
    entry = read_study(DEMO).sites[0]
    folders = {name: root / name for name in ("east", "west")}
    proposals = {}
    for seed, (name, folder) in enumerate(folders.items()):
        simulate(entry.simulate.model_copy(update={"patients": 1500, "seed": seed}), folder / "raw")
        extract(folder / "raw", config=CONFIG, root=folder)
        proposals[name] = prepare(folder, config=CONFIG, plan=plan)
    before = {name: pl.read_parquet(folder / "visits" / "tokens.parquet") for name, folder in folders.items()}
    planted = plant(folders, number=4, others=99, seed=7)
    vocabulary = shared_vocabulary({code for one in proposals.values() for code in one.codes}, plan=plan)
    for name, folder in folders.items():
        encoded = encode(folder, vocabulary=vocabulary, plan=plan)
        assert (encoded.cells[0] == proposals[name].members).all()  # nobody was added
    return folders, before, planted, {name: load_cohort(folder) for name, folder in folders.items()}


def test_every_canary_is_one_training_patient_and_nobody_else_has_its_codes(sites):
    _, before, planted, cohorts = sites
    for name, own in planted.items():
        assert len(canary_rows(cohorts[name], own)) == 4
        for triple in (*own.triples, *own.others):
            for tokens in before.values():
                has = (
                    tokens.filter(pl.col("token").is_in(triple)).group_by("subject_id").agg(pl.col("token").n_unique())
                )
                assert has["token"].max() < 3


def test_planting_leaves_all_other_patients_as_they_were(sites):
    folders, before, planted, _ = sites
    for name, folder in folders.items():
        after = pl.read_parquet(folder / "visits" / "tokens.parquet")
        rows = pl.concat([before[name].unique(), after.unique()])
        changed = rows.group_by(rows.columns).len().filter(pl.col("len") == 1)["subject_id"].n_unique()
        assert changed == len(planted[name].triples)


def by_heart(cohort, plan, *, copies, epochs, own):
    rows = np.concatenate([np.arange(40), np.repeat(canary_rows(cohort, own), copies)])
    records = cohort.train.take(rows)
    begin = initial_weights(cohort.vocabulary, SMALL, seed=1)
    home = at_home(begin, base_rates(cohort.train, vocabulary=cohort.vocabulary))
    study = Study(vocabulary=cohort.vocabulary, plan=plan, totals=Totals(patients=len(rows), positions=2.0))
    study = replace(study, learning_rate=0.01)
    weights = train(home, records=records, study=study, coefficients=None, epochs=epochs, seed=1).weights
    return build(weights, vocabulary=cohort.vocabulary, config=SMALL)


def ranks(model, cohort, own):
    made = (of_the_same_make(triples, cohort, own) for triples in (own.triples, own.others))
    with threads(1):
        return percentiles(*(losses(model, one, vocabulary=cohort.vocabulary) for one in made))


def test_a_generator_that_knows_its_canaries_by_heart_ranks_them_first_and_one_that_saw_none_does_not(sites, plan):
    _, _, planted, cohorts = sites
    cohort, own = cohorts["east"], planted["east"]
    known = ranks(by_heart(cohort, plan, copies=40, epochs=10, own=own), cohort, own)
    unknown = ranks(by_heart(cohort, plan, copies=0, epochs=10, own=own), cohort, own)
    assert known.max() <= 0.04  # 4 canaries among 99 others
    assert unknown.max() > 0.2


def test_a_planted_patient_that_comes_out_is_counted_as_gate_g9_counts_it(sites):
    _, _, planted, cohorts = sites
    cohort, own = cohorts["east"], planted["east"]
    canaries = of_the_same_make(own.triples[:2], cohort, own)
    real = cohort.held_out
    longer = merged(canaries.take(np.array([1])), real.take(np.array([0])))
    out = Records.concatenate([real, canaries.take(np.array([0])), longer])
    counted = [came_out(out, own.triples, vocabulary=cohort.vocabulary, verbatim=exact) for exact in (False, True)]
    assert counted == [2, 1]
    assert came_out(real, own.triples, vocabulary=cohort.vocabulary) == 0
    evidence = Evidence(
        train=cohort.train, held_out=real, synthetic=out, vocabulary=cohort.vocabulary, seed=1, canaries=own.triples
    )
    (gate,) = (one for one in examine(evidence, ReleaseRules()).results if one.gate == "G9")
    assert gate.numbers == {"planted": 4, "emitted": 2}


def merged(one, other):
    """The first patient, whose one visit has the codes of the other's first visit too."""
    codes = np.union1d(one.codes, other.codes[: other.visit_offsets[1]])
    return replace(one, codes=codes, visit_offsets=np.array([0, len(codes)]))


def test_a_canary_is_not_compared_as_a_member(sites):
    _, _, planted, cohorts = sites
    rows = canary_rows(cohorts["west"], planted["west"])
    sizes = profiles(cohorts["west"].train, vocabulary=cohorts["west"].vocabulary).sizes[rows]
    assert (sizes < ReleaseRules().minimum_codes).all()


def test_a_percentile_is_the_rank_among_the_others_and_itself():
    assert percentiles(np.array([0.5, 2.5, 9.0]), np.array([1.0, 2.0, 3.0])).tolist() == [0.25, 0.75, 1.0]


def test_the_stored_run_gives_the_tables_of_the_document():
    root = DEMO.parents[1]
    rows = json.loads((root / "docs" / "results" / "membership.json").read_text(encoding="utf-8"))
    text = (root / "docs" / "release.md").read_text(encoding="utf-8")
    for table in tables(rows).split("\n\n"):
        assert table in text


@pytest.mark.slow
def test_a_small_study_is_trained_attacked_and_told(tmp_path):
    out = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.membership", "--quick", "--json", str(out)]
    subprocess.run(command, check=True, cwd=DEMO.parents[1], capture_output=True)
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [("control" in row, row["site"]) for row in rows] == [
        (False, "boston"),
        (True, "boston"),
        (True, "boston"),
        (False, "zhejiang"),
    ]
    once, often = (np.mean(row["control"]["percentiles"]) for row in rows[1:3])
    assert often < 0.1 and often <= once
