"""Groups crossed with sex: what the plan expands them to, and which patient is in which, from events to records."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from visits_stories import Story, study_plan, write_events

from fairsynth.config import GroupsConfig, StudyPlan
from fairsynth.errors import CohortError
from fairsynth.schemas import SPLITS
from fairsynth.visits.cohort import encode, load_cohort, prepare, shared_vocabulary

CROSSED = {"names": ["white", "black", "asian"], "reference": ["white"], "cross": "sex"}
SIX = ("white:female", "white:male", "black:female", "black:male", "asian:female", "asian:male")


# --- the plan --------------------------------------------------------------------------------------------------------


def test_each_group_becomes_two_in_the_order_given():
    groups = GroupsConfig.model_validate(CROSSED)
    assert groups.names == SIX
    assert groups.reference == ("white:female", "white:male")
    assert groups.attribute_names == ("white", "black", "asian")


def test_a_crossed_group_can_be_the_reference_alone():
    groups = GroupsConfig.model_validate(CROSSED | {"reference": ["white:male"]})
    assert groups.reference == ("white:male",)
    assert groups.names == SIX


def test_a_plan_of_crossed_groups_reads_back_as_the_same():
    plan = study_plan(groups=CROSSED)
    again = StudyPlan.model_validate_json(plan.model_dump_json(by_alias=True))
    assert again == plan
    assert again.groups.names == SIX


def test_one_group_crossed_compares_the_sexes():
    groups = GroupsConfig.model_validate({"names": ["all"], "reference": ["all:male"], "cross": "sex"})
    assert groups.names == ("all:female", "all:male")


def test_without_a_cross_names_stay_as_they_are():
    groups = GroupsConfig(names=("white", "black:other"), reference=("white",))
    assert groups.names == groups.attribute_names == ("white", "black:other")


@pytest.mark.parametrize(
    ("names", "reference", "message"),
    [
        (["white:female", "black"], ["black"], "both sexes of each"),
        (["white", "black"], ["green"], "'green:female' is not among"),
        (["white", "white:male", "black"], ["black"], "named twice"),
        (["white", "black"], ["white", "black"], "must not be a reference"),
        (["white", 3], ["white"], "valid string"),
        ("white", ["white"], "valid tuple"),
    ],
)
def test_groups_that_cannot_be_crossed_are_refused(names, reference, message):
    with pytest.raises(ValidationError, match=message):
        GroupsConfig.model_validate({"names": names, "reference": reference, "cross": "sex"})


# --- the site --------------------------------------------------------------------------------------------------------


@pytest.fixture
def forty(tmp_path):
    """Forty patients, ten of each of white and black, female and male; five die; two more whose sex is not known."""
    rows = []
    for number in range(42):
        sex, ethnicity = (
            ("FM"[number % 2], ("WHITE", "BLACK/HAITIAN")[number // 2 % 2]) if number < 40 else ("U", "WHITE")
        )
        story = Story(number + 1, sex=sex, ethnicity=ethnicity)
        story.visit(1, day=0, codes=["DIAG//ICD9CM//4280"]).visit(2, day=20, died=number % 8 == 0)
        rows += story.rows
    return write_events(tmp_path / "site", rows)


def whole(root, folder, plan):
    """The proposal and the whole cohort."""
    proposal = prepare(root, config=folder, plan=plan)
    cells = encode(root, vocabulary=shared_vocabulary(proposal.codes, plan=plan), plan=plan).cells
    return proposal, cells, load_cohort(root)


def test_every_patient_is_in_the_group_of_its_attribute_and_sex(forty, config):
    proposal, cells, cohort = whole(forty, config(), study_plan(groups=CROSSED))
    assert cohort.vocabulary.groups == SIX
    assert cells.sum(axis=(0, 2)).tolist() == [10, 10, 10, 10, 0, 0]
    assert proposal.members.shape == (6, 2)
    names = np.array(cohort.vocabulary.names)
    for split in SPLITS:
        records = getattr(cohort, split)
        for row in range(len(records)):
            said = set(names[records.context[slice(*records.context_offsets[row : row + 2])]])
            group, sex = cohort.vocabulary.groups[records.group[row]].split(":")
            assert {f"GROUP//{group}:{sex}", f"SEX//{sex}"} <= said


def test_a_patient_of_unknown_sex_is_left_out_and_counted_with_or_without_a_cross(forty, config):
    for groups in (CROSSED, CROSSED | {"cross": "none"}):
        flow = prepare(forty, config=config(), plan=study_plan(groups=groups)).flow
        assert flow["visits_in_events"] - flow["visits_with_sex_and_birth"] == 4  # two patients of two visits
        assert flow["patients_with_a_group"] == 40


def test_crossing_changes_nothing_but_the_groups(forty, config):
    _, plain_cells, plain = whole(forty, config(), study_plan(groups=CROSSED | {"cross": "none"}))
    plain_codes = {split: getattr(plain, split).codes for split in SPLITS}
    _, cells, cohort = whole(forty, config(), study_plan(groups=CROSSED))
    assert plain.vocabulary.groups == ("white", "black", "asian")
    assert (cells.reshape(3, 3, 2, 2).sum(axis=2) == plain_cells).all()
    for split in SPLITS:
        assert (getattr(cohort, split).codes == plain_codes[split]).all()
        assert (getattr(cohort, split).label == getattr(plain, split).label).all()
        assert (getattr(cohort, split).group // 2 == getattr(plain, split).group).all()


def test_a_crossed_group_is_decoded_into_the_source_string_of_its_attribute(forty, config):
    whole(forty, config(), study_plan(groups=CROSSED))
    rows = pl.read_parquet(forty / "cohort" / "decoder.parquet").filter(pl.col("token").str.starts_with("GROUP//"))
    assert dict(zip(rows["token"], rows["source_code"], strict=True)) == {
        "GROUP//black:female": "ETHNICITY//BLACK/HAITIAN",
        "GROUP//black:male": "ETHNICITY//BLACK/HAITIAN",
        "GROUP//white:female": "ETHNICITY//WHITE",
        "GROUP//white:male": "ETHNICITY//WHITE",
    }


def test_a_rule_for_a_group_outside_the_study_is_refused_by_its_own_name(forty, config):
    outside = CROSSED | {"names": ["white", "asian"]}
    with pytest.raises(CohortError, match=r"unknown group: .*  black\n  expected one of: white, asian"):
        prepare(forty, config=config(), plan=study_plan(groups=outside))
