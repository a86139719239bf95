"""What the method gains on each other approach, on trials whose truth is known."""

import dataclasses

import numpy as np
import pytest
from evidence_stories import BLACK, WINNING, Approach, rows, target, trial, trials
from scipy import stats

from fairsynth.experiments.evidence.counted import gather
from fairsynth.experiments.evidence.measures import measure
from fairsynth.experiments.evidence.roles import REAL_ONLY
from fairsynth.experiments.evidence.summary import summarise
from fairsynth.experiments.evidence.tables import ceiling

AT = {"predictor": "transformer", "threshold": "half"}


# --- contrasts -------------------------------------------------------------------------------------------------------


def test_a_method_that_wins_by_construction_meets_every_target(summary):
    assert {one.status for one in summary.targets} == {"met"}
    assert {one.name for one in summary.targets if not one.shown} <= {"near_pooled", "parity_not_worse_than_real_only"}
    assert len(summary.targets) == 2 * 7


def test_gains_are_paired_by_seed_as_in_a_t_test(summary, cells):
    found = summary.contrast("worst_tpr", **AT)
    values = measure(gather(cells))[0].overall["worst_tpr", "half"][:, :, 0]
    names = cells[0].axes.approaches
    mine, other = values[:, names.index("fairsynth")], values[:, names.index("reweighing")]
    low, high = stats.ttest_rel(mine, other).confidence_interval(0.95)
    gain = found.against["reweighing"]
    assert (gain.low, gain.high) == pytest.approx((low, high), abs=1e-12)
    assert set(found.against) == set(names) - {"fairsynth"}


def test_the_best_baseline_is_of_its_family_and_controls_are_in_none(summary):
    best = summary.contrast("worst_tpr", **AT).best
    assert set(best) == {"data_level"}  # no model-level comparison was run
    assert best["data_level"].baseline == "cell_balanced"  # same_plan_copies does better, as a control
    assert best["data_level"].each_seed.mean <= best["data_level"].gain.mean
    assert summary.contrast("disparate_impact", **AT).best == {}


def test_the_gain_over_the_best_of_each_seed_is_over_the_maximum_of_the_baselines(summary, cells):
    values = measure(gather(cells))[0].overall["lowest_group_auroc", "none"][:, :, 0]
    names = list(cells[0].axes.approaches)
    baselines = ("real_only", "plain_synthetic", "double_prioritised", "cell_balanced", "reweighing")
    best = values[:, [names.index(name) for name in baselines]].max(axis=1)
    found = summary.contrast("lowest_group_auroc", predictor="transformer", threshold="none").best["data_level"]
    assert found.each_seed.mean == pytest.approx((values[:, names.index("fairsynth")] - best).mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "threshold"),
    [
        ("worst_tpr", "half"),
        ("abs_log_di", "half"),
        ("demographic_parity_difference", "half"),
        ("equal_opportunity_difference", "half"),
        ("equalised_odds_difference", "half"),
        ("lowest_group_auroc", "none"),
        ("auroc_within", "none"),
        ("f1", "half"),
        ("ppv", "half"),
        ("tpr", "half"),
    ],
)
def test_a_baseline_that_serves_all_groups_alike_is_the_best_in_every_metric(metric, threshold):
    fair = {**WINNING, "cell_balanced": Approach(lift=0.0)}
    found = summarise(trials(fair, seeds=3)).contrast(metric, predictor="transformer", threshold=threshold)
    assert found.best["data_level"].baseline == "cell_balanced"


def test_a_baseline_with_fewer_false_alarms_and_truer_scores_is_the_best_in_both():
    calmer = {**WINNING, "cell_balanced": Approach(overlook=1.0)}  # scores were too high
    found = summarise(trials(calmer, seeds=3))
    for metric, threshold in (("fpr", "half"), ("expected_calibration_error", "none")):
        contrast = found.contrast(metric, predictor="transformer", threshold=threshold)
        assert contrast.best["data_level"].baseline == "cell_balanced"


def test_rates_of_a_group_match_the_rows(summary):
    found = summarise([trial(WINNING, seed=0)]).everywhere.result(approach="oracle", **AT)
    _, group, label, score = rows(WINNING["oracle"], seed=0, name="oracletransformer")
    here, hard = group == BLACK, score >= 0.5
    assert found.groups["fpr"]["black"].mean == pytest.approx(hard[here & (label == 0)].mean())
    assert found.groups["tpr"]["black"].mean == pytest.approx(hard[here & (label == 1)].mean())
    assert found.groups["ppv"]["black"].mean == pytest.approx(label[here & hard].mean())
    assert found.groups["selection_rate"]["black"].mean == pytest.approx(hard[here].mean())
    assert found.metrics["fpr"].mean == pytest.approx(hard[label == 0].mean())


def test_where_lower_is_better_the_best_baseline_is_the_lowest(summary):
    best = summary.contrast("abs_log_di", **AT).best["data_level"]
    means = {
        name: summary.value("abs_log_di", approach=name, **AT).mean
        for name in ("real_only", "plain_synthetic", "double_prioritised", "cell_balanced", "reweighing")
    }
    assert best.baseline == min(means, key=means.get)
    assert best.each_seed.mean >= best.gain.mean


def test_a_method_that_copies_real_only_meets_no_target_of_gain():
    same = {**WINNING, "fairsynth": WINNING[REAL_ONLY]}
    found = summarise(trials(same))
    for threshold in ("half", "tuned"):
        assert target(found, "above_every_data_level_baseline", threshold=threshold).status == "missed"
        assert target(found, "share_of_the_ceiling", threshold=threshold).status == "missed"
    assert target(found, "above_every_data_level_baseline").note == "against cell_balanced"
    assert target(found, "above_local_at_the_smallest_site").status == "missed"
    assert target(found, "near_pooled").status == "missed"
    assert {one.verdict.decision for one in found.verdicts if one.threshold == "half"} == {
        "do not augment: the gain is within noise"
    }


def test_a_site_where_one_group_alone_has_enough_positives_is_not_told_to_augment(summary):
    decisions = {(one.site, one.threshold): one.verdict for one in summary.verdicts}
    assert "augment" in {one.decision for one in decisions.values()}
    fewest = min(min(scope.positives) for scope in measured(trials(WINNING)))
    most = max(max(scope.positives) for scope in measured(trials(WINNING))[1:])
    alone = summarise(trials(WINNING), minimum_positives=int(most))
    assert fewest < most
    assert {one.verdict.gain.mean for one in alone.verdicts} == {None}
    assert "augment" not in {one.verdict.decision for one in alone.verdicts}


def measured(cells):
    return measure(gather(cells))


def test_one_baseline_within_noise_is_enough_to_miss_the_first_target():
    rival = {**WINNING, "reweighing": WINNING["fairsynth"]}
    found = target(summarise(trials(rival)), "above_every_data_level_baseline")
    assert (found.status, found.note) == ("missed", "against reweighing")
    assert found.low < 0


def test_a_threshold_that_flags_fewer_costs_f1_and_the_target_says_so():
    costly = {**WINNING, "fairsynth": Approach(lift=1.0, overlook=2.5), REAL_ONLY: Approach()}
    assert target(summarise(trials(costly)), "f1_kept").status == "missed"


@pytest.mark.parametrize(("repeated", "status"), [(200, "met"), (300, "not estimable")])
def test_an_oracle_of_copies_is_no_ceiling(repeated, status):
    found = summarise(trials(seeds=3, repeated=repeated))  # of 2,500
    share = target(found, "share_of_the_ceiling")
    assert (found.oracle_copies, share.status) == (pytest.approx(repeated / 2500), status)
    assert (share.value is None) == (found.ceilings[0].share.share is None) == (repeated == 300)
    assert ("12% of the oracle's patients are copies" in share.note) == (repeated == 300)
    assert f"{repeated / 2500:.0%}" in ceiling([found])


def test_an_oracle_that_is_real_data_leaves_the_share_not_estimable():
    nothing = {**WINNING, "oracle": WINNING[REAL_ONLY]}
    cells = trials(nothing)
    for cell in cells:  # the very same scores
        real_only, oracle = (cell.axes.approaches.index(name) for name in (REAL_ONLY, "oracle"))
        cell.held_out[oracle], cell.validation[oracle] = cell.held_out[real_only], cell.validation[real_only]
    found = summarise(cells)
    assert {one.share.share for one in found.ceilings} == {None}
    share = target(found, "share_of_the_ceiling")
    assert (share.status, share.value) == ("not estimable", None)
    assert "oracle" in share.note
    parity = target(found, "parity_where_the_oracle_reaches_it")
    assert parity.status == "not estimable"
    assert parity.note.endswith(": not asked for")


def test_the_share_of_the_ceiling_is_the_truth_of_the_latent_means():
    half_way = {REAL_ONLY: Approach(lift=-0.4), "fairsynth": Approach(lift=-0.2), "oracle": Approach(lift=0.0)}
    found = summarise(trials(half_way, seeds=12))
    real, mine, oracle = stats.norm.cdf(0.3 - np.array([0.4, 0.2, 0.0]))
    share = next(one.share for one in found.ceilings if (one.metric, one.threshold) == ("worst_tpr", "half"))
    assert share.share == pytest.approx((mine - real) / (oracle - real), abs=0.15)
    assert share.low < (mine - real) / (oracle - real) < share.high


def test_federation_is_compared_with_local_at_the_smallest_site_only():
    there = {**WINNING, "fairsynth_local": Approach(lift=-0.05, black_site={"big": -2.0})}  # local is bad at "big"
    found = next(
        one for one in summarise(trials(there)).federation if (one.metric, one.threshold) == ("worst_tpr", "half")
    )
    assert found.smallest_site == "small"
    assert abs(found.minus_local.mean) < 0.06
    assert found.minus_pooled.seeds == 5


def test_what_was_not_run_is_not_asked_for():
    less = {name: one for name, one in WINNING.items() if name not in ("fairsynth_local", "fairsynth_pooled")}
    found = summarise(trials(less, seeds=3))
    assert found.federation == ()
    for name, missing in (("above_local_at_the_smallest_site", "local"), ("near_pooled", "pooled")):
        asked = target(found, name)
        assert (asked.status, asked.note) == ("not estimable", f"fairsynth_{missing} was not run")
    alone = summarise(trials({"fairsynth": Approach()}, seeds=2))
    assert target(alone, "above_every_data_level_baseline").status == "not estimable"


def test_opposite_biases_at_two_sites_show_at_each_site_though_not_in_the_sum():
    opposite = Approach(lift=0.0, black_site={"big": 0.4, "small": -0.8})
    found = summarise(trials({"fairsynth": opposite}, seeds=3))
    here = [scope.result(approach="fairsynth", **AT) for scope in found.scopes]
    everywhere, big, small = (one.metrics["equal_opportunity_difference"].mean for one in here)
    assert everywhere < 0.06 < 0.1 < min(big, small)


def silenced(cells, approach, *, seeds, groups=(1, 2)):
    """`cells` in which `approach` flags nobody of `groups` on the first `seeds`."""
    found = [dataclasses.replace(cell, held_out=cell.held_out.copy()) for cell in cells]
    for cell in found[:seeds]:
        mine = cell.held_out[cell.axes.approaches.index(approach)]
        for group in groups:
            mine[..., group, :, 0], mine[..., group, :, 1:] = mine[..., group, :, :].sum(axis=-1), 0
    return found


def test_who_selects_no_protected_patient_is_not_counted_as_parity(cells):
    found = summarise(silenced(cells, "fairsynth", seeds=1))
    assert found.value("abs_log_di", approach="fairsynth", **AT).seeds == 4
    for name in ("parity_not_worse_than_real_only", "parity_where_the_oracle_reaches_it"):
        parity = target(found, name)
        assert (parity.status, parity.value) == ("missed", None)
        assert parity.note == "FairSynth selects no protected patient on a seed"


def test_parity_is_kept_where_real_data_alone_selects_no_protected_patient(cells):
    some = target(summarise(silenced(cells, "real_only", seeds=2)), "parity_not_worse_than_real_only")
    assert (some.status, some.note) == ("met", "real only selects no protected patient on 2 of 5 seeds")
    assert some.value < 0
    every = target(summarise(silenced(cells, "real_only", seeds=5)), "parity_not_worse_than_real_only")
    assert (every.status, every.value) == ("met", None)


def test_parity_is_not_estimable_where_real_data_alone_selects_nobody(cells):
    nobody = target(
        summarise(silenced(cells, "real_only", seeds=1, groups=(0, 1, 2))), "parity_not_worse_than_real_only"
    )
    assert (nobody.status, nobody.note) == ("not estimable", "defined on 4 of 5 seeds")
