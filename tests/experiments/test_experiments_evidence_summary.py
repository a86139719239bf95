"""Rows of trials: what is in a summary, what is refused, what one more run would show."""

import json

import pytest
from evidence_stories import BLACK, GROUPS, PATIENTS, SITES, WINNING, Approach, rows, target, trial, trials
from scipy import stats

from fairsynth.errors import ArtefactError
from fairsynth.experiments.evidence.counted import gather
from fairsynth.experiments.evidence.measures import measure
from fairsynth.experiments.evidence.roles import fairness_weight, ordered, title
from fairsynth.experiments.evidence.summary import summarise

AT = {"predictor": "transformer", "threshold": "half"}


# --- one more run ----------------------------------------------------------------------------------------------------


def test_where_one_more_run_would_fall_is_wilsons_interval_for_a_rate_of_one_seed():
    cell = trial({"fairsynth": Approach()}, seed=1)
    found = summarise([cell]).everywhere.result(approach="fairsynth", **AT).one_more_run
    *_, label, score = rows(Approach(), seed=1, name="fairsynthtransformer")
    hard = score >= 0.5
    oracle = stats.binomtest(int((hard & (label == 1)).sum()), int(hard.sum())).proportion_ci(method="wilson")
    assert (found["ppv"].low, found["ppv"].high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


def test_where_one_more_run_would_fall_is_wider_than_where_the_mean_is(summary):
    result = summary.everywhere.result(approach="fairsynth", **AT)
    for metric, wide in result.one_more_run.items():
        narrow = result.metrics[metric]
        assert wide.mean == pytest.approx(narrow.mean, abs=1e-12)
        assert wide.high - wide.low > narrow.high - narrow.low


def test_one_more_run_of_the_same_truth_falls_into_the_interval_about_as_often_as_it_says():
    found = summarise(trials({"fairsynth": Approach()}, seeds=4)).everywhere.result(approach="fairsynth", **AT)
    others = measure(gather([trial({"fairsynth": Approach()}, seed=seed) for seed in range(100, 160)]))[0].overall
    for metric in ("disparate_impact", "f1", "worst_tpr"):
        inside = found.one_more_run[metric]
        held = (others[metric, "half"] >= inside.low) & (others[metric, "half"] <= inside.high)
        assert held.mean() > 0.85


# --- rows of trials --------------------------------------------------------------------------------------------------


def test_a_pair_that_holds_zeros_is_absent_and_another_name_is_kept():
    approaches = {**WINNING, "fedavg": Approach(), "a_new_idea": Approach()}
    both = ("transformer", "logistic_regression")
    found = summarise(trials(approaches, seeds=2, predictors=both, absent=[("fedavg", "logistic_regression")]))
    assert found.value("f1", approach="fedavg", predictor="logistic_regression", threshold="half") is None
    assert found.value("f1", approach="fedavg", **AT).seeds == 2
    assert "a_new_idea" in found.contrast("f1", **AT).against
    best = {name: found.contrast("f1", predictor=name, threshold="half").best for name in both}
    assert ("model_level" in best["transformer"], "model_level" in best["logistic_regression"]) == (True, False)


def test_without_the_method_there_is_nothing_to_compare_and_the_rest_is_there():
    found = summarise(trials({"real_only": Approach(), "oracle": Approach()}, seeds=2))
    assert (found.contrasts, found.ceilings, found.federation, found.verdicts, found.targets) == ((), (), (), (), ())
    assert found.value("f1", approach="oracle", **AT).seeds == 2


def test_an_approach_that_a_trial_lacks_is_undefined_on_its_seed():
    less = {name: one for name, one in WINNING.items() if name != "reweighing"}
    found = summarise([*trials(seeds=3), trial(less, seed=7)])
    assert found.value("f1", approach="reweighing", **AT).seeds == 3
    contrast = found.contrast("worst_tpr", **AT)
    assert contrast.best["data_level"].left_out == ("reweighing",)
    assert contrast.against["reweighing"].seeds == 3
    assert target(found, "above_every_data_level_baseline").status == "not estimable"


def test_the_order_of_trials_and_approaches_changes_nothing(cells, summary):
    assert summarise(cells[::-1]) == summary
    backwards = [trial(dict(list(WINNING.items())[::-1]), seed=seed) for seed in range(5)]
    other = summarise(backwards)
    for one in summary.contrasts:
        there = other.contrast(one.metric, predictor=one.predictor, threshold=one.threshold)
        assert (there.against, there.best) == (one.against, one.best)
    assert other.targets == summary.targets


def test_no_number_is_nan_whatever_is_missing():
    poor = {"real_only": Approach(overlook=9.0), "fairsynth": Approach(overlook=9.0)}  # flags nobody
    found = summarise(trials(poor, seeds=2))
    assert json.loads(json.dumps(found.model_dump(mode="json"), allow_nan=False))["real"] == 1000
    assert found.value("disparate_impact", approach="fairsynth", **AT).mean is None


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (trial(WINNING, seed=0), "a seed counted twice"),
        (trial(WINNING, seed=1, real=2000), "trials of different rows"),
        (trial(WINNING, seed=1, synthetic=500), "trials of different rows"),
    ],
)
def test_trials_that_are_not_of_one_row_are_refused(second, what):
    with pytest.raises(ArtefactError, match=what):
        summarise([trial(WINNING, seed=0), second])


def test_approaches_that_were_not_judged_on_the_same_patients_are_refused():
    cell = trial(WINNING, seed=0)
    cell.held_out[3, 0, 0, BLACK, 1, 7] += 1
    with pytest.raises(ArtefactError, match="same held-out patients"):
        summarise([cell])
    with pytest.raises(ArtefactError, match="no finished trial"):
        summarise([])


def test_the_groups_rows_count_the_held_out_patients(summary):
    for scope, sites in zip(summary.scopes, (SITES, *((site,) for site in SITES)), strict=True):
        for index, row in enumerate(scope.groups):
            assert row.group == GROUPS[index]
            assert row.patients == sum(PATIENTS[site][index] for site in sites)
            assert row.reference is (index == 0)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("lambda=1.2", 1.2),
        ("lambda_1.2", 1.2),
        ("fairsynth_lambda_0", 0.0),
        ("fairsynth", None),
        ("steered_lambda", None),
        ("lambda=2x", None),
    ],
)
def test_a_lambda_is_read_from_a_name_that_ends_in_one(name, weight):
    assert fairness_weight(name) == weight


def test_tables_show_known_names_first_then_lambdas_upwards_then_the_rest():
    assert ordered(("zebra", "lambda_10", "oracle", "lambda_2", "real_only")) == (
        "real_only",
        "oracle",
        "lambda_2",
        "lambda_10",
        "zebra",
    )
    assert title("zebra_crossing") == "zebra crossing"
