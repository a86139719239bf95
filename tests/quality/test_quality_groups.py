"""Who is large enough to be estimated, and what the table must not tell."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairsynth.config import StudyConfig, StudyPlan
from fairsynth.quality.groups import describe_groups, group_findings, half_width
from fairsynth.quality.report import check_site

NAMES = ("white", "black", "asian", "other")


def plan(**changes: object) -> StudyPlan:
    study = {
        "schema": "fairsynth.study/1",
        "name": "story",
        "seed": 5,
        "sites": [{"site": "a", "config": "a", "data": "a"}],
        "groups": {"names": NAMES, "reference": ["white"]},
    }
    return StudyConfig.model_validate(study | changes).plan()


def described(*cells: tuple[int, int], **changes: object):
    return describe_groups(np.array(cells), plan=plan(**changes), here=NAMES)


def test_a_group_is_large_enough_when_the_held_out_share_of_its_positives_is():
    found = described((900, 110), (900, 109), (500, 0), (0, 0))
    assert [group.estimable for group in found.groups] == [True, False, False, False]
    assert [group.held_out_positives for group in found.groups] == [11, 10, 0, 0]
    large, small, never, absent = (group.verdict for group in found.groups)
    assert large == "large enough: about 11 held-out patients with the outcome, a true-positive rate to within ±0.25"
    assert small.startswith("too small: about 10 held-out patients with the outcome, 11 are needed")
    assert never == absent == "nobody with the outcome: no rate can be estimated"


def test_a_larger_held_out_share_makes_a_group_large_enough():
    split = {"train": 0.6, "validation": 0.15, "held_out": 0.25}
    assert described((300, 44), (300, 44), (0, 0), (0, 0), split=split).groups[0].estimable
    assert not described((300, 44), (300, 44), (0, 0), (0, 0)).groups[0].estimable


@pytest.mark.parametrize("positives", [3, 11, 40])
def test_the_half_width_is_that_of_wilson(positives):
    z = 1.959963984540054
    closed = z * math.sqrt(0.25 / positives + z**2 / (4 * positives**2)) / (1 + z**2 / positives)
    assert half_width(positives, confidence=0.95) == pytest.approx(closed, abs=1e-9)


def test_a_hidden_group_tells_no_rate_and_no_number():
    found = described((1900, 150), (200, 4), (6, 2), (300, 60))
    black, asian = found.groups[1:3]
    assert (black.patients, black.positives, asian.patients, asian.positives) == ("≥11", "<11", "<11", "<11")
    for group in (black, asian):
        assert (group.rate, group.low, group.high, group.held_out_positives, group.tpr_half_width) == (None,) * 5
        assert not any(word.isdigit() and word != "11" for word in group.verdict.split())


cells = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=4, max_size=4)


@given(cells)
def test_a_number_that_follows_from_the_positives_is_there_only_if_they_are(rows):
    found = described(*rows)
    for group, (negatives, positives) in zip(found.groups, rows, strict=True):
        if group.rate is not None:
            assert (group.patients, group.positives) == (negatives + positives, positives)
            assert group.low <= group.rate <= group.high
        if not isinstance(group.positives, int):
            assert (group.rate, group.held_out_positives, group.tpr_half_width) == (None, None, None)
            assert "about" not in group.verdict


def test_the_verdict_names_the_small_groups_and_that_nothing_can_be_compared():
    told = [finding.what for finding in group_findings(described((900, 200), (300, 20), (0, 0), (90, 3)))]
    assert told == [
        "2 of 4 groups are too small for their rates to be estimated at this site",
        "fewer than two groups are large enough: this site alone can compare nothing",
        "groups without a patient",
    ]
    assert list(group_findings(described((900, 200), (900, 200), (900, 200), (900, 200)))) == []


def test_a_study_that_crosses_groups_with_sex_is_checked_in_crossed_groups(site):
    groups = {"names": ["han", "yi", "buyei", "miao", "tujia", "hui", "other", "white"], "reference": ["han"]}
    study = {
        "schema": "fairsynth.study/1",
        "name": "check",
        "seed": 1,
        "sites": [{"site": "here", "config": ".", "data": "."}],
    }
    plain, crossed = (
        check_site(
            site / "raw",
            config=site / "config",
            study=StudyConfig.model_validate(study | {"groups": groups | {"cross": cross}}),
        ).groups
        for cross in ("none", "sex")
    )
    assert [one.group for one in crossed.groups] == [
        f"{one.group}:{sex}" for one in plain.groups for sex in ("female", "male")
    ]
    assert crossed.patients == plain.patients
