"""Fairness of all sites together beside that of each, on counts planted so that opposite sites cancel out."""

import dataclasses
import json
import math

import numpy as np
import pytest
from evidence_stories import SITES, Approach, trial, trials
from hypothesis import given, settings
from hypothesis import strategies as st

from fairsynth.experiments.evidence.breakdown import both_levels
from fairsynth.experiments.evidence.counted import gather
from fairsynth.experiments.evidence.headline import headlines
from fairsynth.experiments.evidence.levels import levels, tpr_gap
from fairsynth.experiments.evidence.measures import measure
from fairsynth.experiments.evidence.overview import overview
from fairsynth.experiments.evidence.summary import summarise

AT = {"approach": "real_only", "predictor": "transformer", "threshold": "half"}
SEEN, OVERLOOKED = (150, 150), (50, 50)  # of 250 positives and of 750 negatives, how many are selected


def planted(cell, *, big, small, approach=0):
    """`cell`, where an approach selects (positives, negatives) of white and of black as told; "tiny" has nobody."""
    held_out = np.zeros_like(cell.held_out)
    for site, by_group in enumerate((big, small)):
        for group, chosen in enumerate(by_group):
            for label, everyone in ((1, 250), (0, 750)):
                selected = chosen[1 - label]
                held_out[:, :, site, group, label, 150] = selected
                held_out[:, :, site, group, label, 50] = everyone - selected
    others = np.arange(len(held_out)) != approach
    held_out[others, ..., 150] = held_out[others].sum(axis=-1)  # the others select everybody
    held_out[others, ..., 50] = 0
    return dataclasses.replace(cell, held_out=held_out)


def story(*, seeds=3, **where):
    """Trials of real data alone, planted, and of a method that selects everybody."""
    return [planted(trial({"real_only": Approach(), "fairsynth": Approach()}, seed=k), **where) for k in range(seeds)]


OPPOSITE = {"big": (SEEN, OVERLOOKED), "small": (OVERLOOKED, SEEN)}


def level(summary, metric, **more):
    asked = {**AT, "metric": metric, **more}
    return next(one for one in summary.levels if all(getattr(one, name) == value for name, value in asked.items()))


def test_opposite_sites_cancel_out_in_the_sum_and_are_named():
    found = level(summarise(story(**OPPOSITE)), "log_di")
    assert found.all_sites.mean == pytest.approx(0, abs=1e-12)
    assert found.sites["big"].mean == pytest.approx(math.log(100 / 300), abs=1e-12)
    assert found.sites["small"].mean == pytest.approx(math.log(300 / 100), abs=1e-12)
    assert found.hidden_by_the_global_figure
    gap = level(summarise(story(**OPPOSITE)), "tpr_gap")
    assert (gap.sites["big"].mean, gap.sites["small"].mean) == pytest.approx((-0.4, 0.4), abs=1e-12)
    assert gap.all_sites.mean == pytest.approx(0, abs=1e-12)
    assert gap.hidden_by_the_global_figure


@pytest.mark.parametrize(
    "where",
    [
        {"big": (SEEN, SEEN), "small": (SEEN, SEEN)},  # fair everywhere
        {"big": (SEEN, OVERLOOKED), "small": (SEEN, OVERLOOKED)},  # unfair everywhere: the sum says so
        {"big": (SEEN, OVERLOOKED), "small": (SEEN, SEEN)},  # one site is unfair, and the sum is too
        {"big": (SEEN, (130, 140)), "small": ((130, 140), SEEN)},  # opposite, but by little
    ],
)
def test_nothing_is_hidden_where_the_sum_is_unfair_or_every_site_is_near_parity(where):
    found = summarise(story(**where))
    assert not any(one.hidden_by_the_global_figure for one in found.levels)


def test_a_site_where_no_protected_patient_is_favoured_is_infinitely_far():
    nobody = {"big": (SEEN, (0, 0)), "small": (SEEN, (300, 300))}  # 0 and 300 of 500 against 150 of 500
    found = level(summarise(story(**nobody)), "log_di")
    assert found.all_sites.mean == pytest.approx(0, abs=1e-12)
    assert (found.furthest, found.nobody_favoured) == ("big", ("big",))
    assert (found.sites["big"].mean, found.shown) == (None, None)
    assert found.hidden_by_the_global_figure


def test_a_group_with_too_few_positives_is_in_no_gap():
    cells = trials({"real_only": Approach(), "fairsynth": Approach()}, seeds=2)
    for cell in cells:  # nobody of "tiny" is found
        tiny = cell.held_out[:, :, :, 2]
        tiny[..., 1, 0], tiny[..., 1, 1:] = tiny[..., 1, :].sum(axis=-1), 0
    left_out, counted = (level(summarise(cells, minimum_positives=least), "tpr_gap") for least in (30, 1))
    assert abs(left_out.all_sites.mean) < 0.04
    assert counted.all_sites.mean < left_out.all_sites.mean - 0.01


def test_the_gap_is_undefined_where_one_side_has_no_positive():
    counts = np.array([[5, 1, 5, 9], [0, 3, 0, 7]])
    assert np.isnan(tpr_gap(counts, reference=np.array([True, False]), among=np.array([True, True])))
    assert np.isnan(tpr_gap(counts, reference=np.array([True, False]), among=np.array([True, False])))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_levels_are_the_metrics_of_each_scope_with_a_sign(seed):
    row = gather([trial({"fairsynth": Approach(black_site={"big": -0.5, "small": 0.9})}, seed=seed)])
    measures = measure(row)
    found = {(one.metric, one.threshold): one for one in levels(row, measures)}
    for threshold in ("half", "tuned"):
        log_di, gap = found["log_di", threshold], found["tpr_gap", threshold]
        for one, scope in zip((log_di.all_sites, *log_di.sites.values()), measures, strict=True):
            assert abs(one.mean) == pytest.approx(scope.overall["abs_log_di", threshold][0, 0, 0], abs=1e-12)
        for one, scope in zip(
            (gap.all_sites, *gap.sites.values()), measures, strict=True
        ):  # one group each: no pooling
            difference = scope.overall["equal_opportunity_difference", threshold][0, 0, 0]
            assert abs(one.mean) == pytest.approx(difference, abs=1e-12)
        assert gap.sites["big"].mean < gap.all_sites.mean < gap.sites["small"].mean


def test_the_page_and_the_summary_tell_what_is_hidden_and_where():
    summary = summarise(story(**OPPOSITE))
    table = both_levels(summary, predictor="transformer", threshold="half")
    lines = {line.split(" | ")[0].strip("| "): line for line in table.splitlines() if line.startswith("|")}
    assert lines["real only"].split(" | ")[1:] == [
        *("+0.00 (0.00)", "-1.10 (0.00)", "+1.10 (0.00)", "+0.00 (0.00)", "-0.40 (0.00)", "+0.40 (0.00)"),
        "log DI; TPR gap |",
    ]
    assert lines["+ FairSynth"].endswith("+0.00 (0.00) |  |")
    found = headlines([summary], table="table1", code_version="0")
    hidden = json.loads(found.model_dump_json())["rows"][0]["hidden_by_the_global_figure"]
    assert {(one["approach"], one["metric"], one["furthest"]) for one in hidden} == {
        ("real_only", "log_di", "big"),
        ("real_only", "tpr_gap", "big"),
    }
    assert "real only (+0.00; big -1.10" in overview(found)
    fair = summarise(story(big=(SEEN, SEEN), small=(SEEN, SEEN)))
    assert "No approach looks fair" in overview(headlines([fair], table="table1", code_version="0"))


def test_the_favourable_outcome_turns_disparate_impact_and_its_sign_over():
    cells = story(big=(SEEN, OVERLOOKED), small=(SEEN, OVERLOOKED))
    negative = [
        dataclasses.replace(cell, axes=cell.axes.model_copy(update={"favourable": "negative"})) for cell in cells
    ]
    found = summarise(negative)
    assert level(found, "log_di").sites["big"].mean == pytest.approx(math.log(900 / 700), abs=1e-12)
    scope = found.scopes[1 + SITES.index("big")]
    ratio = scope.result(approach="real_only", predictor="transformer", threshold="half").metrics["disparate_impact"]
    assert ratio.mean == pytest.approx(900 / 700, abs=1e-12)
    positive = summarise(cells)
    for row, truth in ((found, 900 / 700), (positive, 100 / 300)):
        wider = row.everywhere.result(**AT).one_more_run["disparate_impact"]
        assert wider.mean == pytest.approx(truth, abs=1e-12)
        assert wider.low < truth < wider.high
    assert level(found, "tpr_gap") == level(positive, "tpr_gap")
    assert found.value("f1", **AT) == positive.value("f1", **AT)
