"""The cohort of the real MIMIC-III demo, where its folder lies beside the checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from visits_stories import study_plan

from fairsynth.extraction import extract
from fairsynth.visits.cohort import encode, load_cohort, prepare, shared_vocabulary

REPOSITORY = Path(__file__).parents[2]
DEMO = next((up / "shared/data/mimic-iii-demo" for up in REPOSITORY.parents if (up / "shared/data").is_dir()), None)
CONFIG = REPOSITORY / "site_configs" / "mimic3"

pytestmark = pytest.mark.skipif(DEMO is None or not DEMO.is_dir(), reason="no folder shared/data/mimic-iii-demo")

GROUPS = {"names": ["white", "black", "hispanic", "asian", "other"], "reference": ["white"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    extract(DEMO, config=CONFIG, root=root)
    return root


def test_the_demo_has_the_patients_deaths_and_groups_that_its_tables_have(site):
    """Counts of the tables: 100 patients, 40 die in their last admission; 74, 6, 3, 2, 15 by group."""
    plan = study_plan(groups=GROUPS)
    proposal = prepare(site, config=CONFIG, plan=plan)
    encoded = encode(site, vocabulary=shared_vocabulary(proposal.codes, plan=plan), plan=plan)
    assert proposal.flow["visits_in_events"] == 129
    assert encoded.cells.sum(axis=(0, 2)).tolist() == [74, 6, 3, 2, 15]
    assert encoded.cells.sum(axis=(0, 1)).tolist() == [60, 40]
    assert encoded.cells.sum(axis=(1, 2)).tolist() == [80, 10, 10]
    tokens = pl.read_parquet(site / "visits" / "tokens.parquet")
    diagnoses = tokens.filter(pl.col("token").str.starts_with("DX//"))
    assert diagnoses["token"].str.starts_with("DX//CCS//").all()  # every ICD-9 code of the demo has a category
    assert 10 < len(diagnoses) / 129 < 13.65  # distinct categories a visit; 13.65 codes a visit


def test_the_next_visit_task_has_the_patients_with_two_admissions(site):
    """Admissions a patient: 86 have one, 11 two, 2 three, 1 fifteen."""
    plan = study_plan(groups=GROUPS, task={"name": "mortality_next_visit"})
    proposal = prepare(site, config=CONFIG, plan=plan)
    encode(site, vocabulary=shared_vocabulary(proposal.codes, plan=plan), plan=plan)
    cohort = load_cohort(site)
    counts = np.concatenate([records.visit_counts for records in (cohort.train, cohort.validation, cohort.held_out)])
    assert sorted(counts.tolist()) == [1] * 11 + [2] * 2 + [14]
