"""What trials say, against sklearn, fairlearn and scipy on the same rows, and on trials whose truth is known."""

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
from evidence_stories import BLACK, GROUPS, PATIENTS, SITES, WINNING, Approach, rows, trial, trials
from fairlearn.metrics import demographic_parity_ratio, true_positive_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, precision_score, roc_auc_score

from fairsynth.errors import ArtefactError
from fairsynth.experiments.evidence.counted import confusion, gather, tuned_edges
from fairsynth.experiments.evidence.measures import auroc_within, measure
from fairsynth.experiments.evidence.roles import REAL_ONLY, fairness_weight, ordered, title
from fairsynth.experiments.evidence.summary import summarise

AT = {"predictor": "transformer", "threshold": "half"}


@pytest.fixture(scope="module")
def cells():
    return trials()


@pytest.fixture(scope="module")
def summary(cells):
    return summarise(cells)


def target(summary, name, *, threshold="half"):
    return next(one for one in summary.targets if (one.name, one.threshold) == (name, threshold))


# --- metrics against rows --------------------------------------------------------------------------------------------


def test_metrics_at_one_half_match_fairlearn_and_sklearn_on_the_rows(cells):
    found = measure(gather(cells))[0].overall
    for k, cell in enumerate(cells):
        a = cell.axes.approaches.index("cell_balanced")
        _, group, label, score = rows(WINNING["cell_balanced"], seed=cell.axes.seed, name="cell_balancedtransformer")
        hard = score >= 0.5
        ratio = hard[group > 0].mean() / hard[group == 0].mean()
        tpr = [true_positive_rate(label[group == g], hard[group == g]) for g in (0, 1)]
        assert found["disparate_impact", "half"][k, a, 0] == pytest.approx(ratio, abs=1e-12)
        assert found["abs_log_di", "half"][k, a, 0] == pytest.approx(abs(np.log(ratio)), abs=1e-12)
        assert found["worst_tpr", "half"][k, a, 0] == pytest.approx(min(tpr), abs=1e-12)
        assert found["f1", "half"][k, a, 0] == pytest.approx(f1_score(label, hard), abs=1e-12)
        assert found["ppv", "half"][k, a, 0] == pytest.approx(precision_score(label, hard), abs=1e-12)
        two = group < 2
        either_way = demographic_parity_ratio(label[two], hard[two], sensitive_features=group[two])
        rates = measure(gather(cells))[0].by_group["selection_rate", "half"][k, a, 0]
        assert min(rates[0] / rates[1], rates[1] / rates[0]) == pytest.approx(either_way, abs=1e-12)


def test_worst_tpr_and_lowest_auroc_are_those_of_the_binormal_truth():
    found = summarise(trials({"fairsynth": Approach(skill=0.5, lift=-0.4)}, seeds=8))
    worst = found.value("worst_tpr", approach="fairsynth", **AT)
    assert worst.mean == pytest.approx(stats.norm.cdf(0.5 - 0.4), abs=0.03)
    area = found.value("lowest_group_auroc", approach="fairsynth", predictor="transformer", threshold="none")
    assert area.mean == pytest.approx(stats.norm.cdf((2 * 0.5 - 0.4) / np.sqrt(2)), abs=0.03)
    assert found.everywhere.result(approach="fairsynth", **AT).worst_group == "black"


def test_auroc_within_sites_counts_pairs_of_one_site_only():
    rng = np.random.default_rng(3)
    site, label = rng.integers(0, 3, 400), (rng.random(400) < 0.3).astype(int)
    bins = np.clip((rng.normal(size=400) * 25 + 12 * label + 40 * site + 40).astype(int), 0, 199)  # sites apart
    histogram = np.zeros((3, 2, 200), dtype=np.int64)
    np.add.at(histogram, (site, label, bins), 1)
    pairs = [
        (bins[i] > bins[j]) + 0.5 * (bins[i] == bins[j])
        for i in np.flatnonzero(label == 1)
        for j in np.flatnonzero(label == 0)
        if site[i] == site[j]
    ]
    assert auroc_within(histogram) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert abs(auroc_within(histogram) - roc_auc_score(label, bins)) > 0.02
    assert auroc_within(histogram[:1]) == pytest.approx(roc_auc_score(label[site == 0], bins[site == 0]), abs=1e-12)


def test_a_groups_auroc_is_within_sites_too(cells):
    apart = Approach(black_site={"big": 3.0, "small": -3.0})  # positives of "black" are ranked by their site
    cell = trial({"fairsynth": apart}, seed=2)
    site, group, label, score = rows(apart, seed=2, name="fairsynthtransformer")
    bins = np.minimum((score * 200).astype(int), 199)
    areas, pairs = [], []
    for s in range(len(SITES)):
        here = (site == s) & (group == BLACK)
        areas.append(roc_auc_score(label[here], bins[here]))
        pairs.append(label[here].sum() * (1 - label[here]).sum())
    found = measure(gather([cell]))[0]
    assert found.by_group["auroc_within", "none"][0, 0, 0, BLACK] == pytest.approx(np.average(areas, weights=pairs))
    assert found.overall["lowest_group_auroc", "none"][0, 0, 0] == pytest.approx(
        min(np.average(areas, weights=pairs), found.by_group["auroc_within", "none"][0, 0, 0, 0])
    )
    in_one_list = roc_auc_score(label[group == BLACK], bins[group == BLACK])
    assert abs(in_one_list - np.average(areas, weights=pairs)) > 1e-3


def test_calibration_of_a_group_matches_the_rows(cells):
    _, group, label, score = rows(WINNING["oracle"], seed=0, name="oracletransformer")
    found = measure(gather(cells))[0]
    a = list(WINNING).index("oracle")
    black = group == BLACK
    middles = (np.floor(score * 200) + 0.5) / 200
    large = (middles[black] - label[black]).mean()
    assert found.by_group["calibration_in_the_large", "none"][0, a, 0, BLACK] == pytest.approx(large, abs=1e-12)
    assert found.overall["calibration_in_the_large", "none"][0, a, 0] == pytest.approx((middles - label).mean())
    tenths = np.minimum((middles * 10).astype(int), 9)
    parts = [np.abs((middles - label)[black & (tenths == tenth)].sum()) for tenth in range(10)]
    ece = found.by_group["expected_calibration_error", "none"][0, a, 0, BLACK]
    assert ece == pytest.approx(sum(parts) / black.sum(), abs=1e-12)


def test_a_site_without_a_pair_has_no_say_in_auroc_within_sites():
    histogram = np.zeros((2, 2, 200), dtype=np.int64)
    histogram[0, 0, 10] = histogram[0, 1, 20] = 1
    histogram[1, 0, 199] = 5  # no positive
    assert auroc_within(histogram) == 1.0
    assert np.isnan(auroc_within(histogram[1:]))


# --- the tuned threshold ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_the_tuned_edge_is_the_highest_of_best_f1_by_brute_force(seed, patients):
    rng = np.random.default_rng(seed)
    histogram = np.zeros((2, 200), dtype=np.int64)
    np.add.at(histogram, (rng.integers(0, 2, patients), rng.integers(0, 200, patients)), 1)
    edge = int(tuned_edges(histogram))
    if not histogram[1].sum():
        assert edge == -1
        return
    scores = {}
    for candidate in range(200):
        hits, alarms = int(histogram[1, candidate:].sum()), int(histogram[0, candidate:].sum())
        missed = int(histogram[1, :candidate].sum())
        scores[candidate] = Fraction(2 * hits, 2 * hits + alarms + missed)  # exact: a tie is a tie
    assert edge == max(candidate for candidate, score in scores.items() if score == max(scores.values()))


def test_the_tuned_threshold_is_one_for_all_sites_and_chosen_on_validation_patients_only(cells):
    row = gather(cells)
    edges = row.edges("tuned")
    assert edges.shape == row.held_out.shape[:3]
    np.testing.assert_array_equal(edges, tuned_edges(row.validation.sum(axis=(3, 4))))
    shuffled = dataclasses.replace(row, held_out=row.held_out[..., ::-1])
    np.testing.assert_array_equal(shuffled.edges("tuned"), edges)


def test_at_the_tuned_threshold_nothing_is_gained_by_shifting_every_score():
    shifted = {REAL_ONLY: Approach(overlook=0.6), "fairsynth": Approach()}
    found = summarise(trials(shifted, seeds=6))
    at_half = found.contrast("worst_tpr", predictor="transformer", threshold="half").against[REAL_ONLY]
    tuned = found.contrast("lowest_group_auroc", predictor="transformer", threshold="none").against[REAL_ONLY]
    assert at_half.mean > 0.15
    assert at_half.excludes_zero
    assert abs(tuned.mean) < 0.03


def test_no_validation_positive_leaves_the_tuned_threshold_undefined_and_one_half_as_it_is(cells):
    blind = [dataclasses.replace(cell, validation=np.zeros_like(cell.validation)) for cell in cells]
    found = summarise(blind)
    tuned = found.value("worst_tpr", approach="oracle", predictor="transformer", threshold="tuned")
    assert (tuned.mean, tuned.seeds) == (None, 0)
    assert found.value("worst_tpr", approach="oracle", **AT).seeds == 5
    assert target(found, "f1_kept", threshold="tuned").status == "not estimable"


def test_patients_from_the_edge_on_are_the_positive_ones():
    histogram = np.zeros((1, 2, 200), dtype=np.int64)
    histogram[0, 1, [99, 100]], histogram[0, 0, [98, 150]] = (1, 2), (4, 8)
    assert confusion(histogram, edges=np.array(100)).tolist() == [[2, 8, 1, 4]]
    assert confusion(histogram, edges=np.array(-1)).tolist() == [[0, 0, 0, 0]]


# --- groups with too few positives -----------------------------------------------------------------------------------


def test_a_group_with_too_few_positives_is_named_and_enters_no_minimum():
    few = {"fairsynth": Approach(), REAL_ONLY: Approach()}
    cells = trials(few)
    for cell in cells:  # nobody of "tiny" is found: as a member of the minimum it would be 0
        tiny = cell.held_out[:, :, :, 2]
        tiny[..., 1, 0], tiny[..., 1, 1:] = tiny[..., 1, :].sum(axis=-1), 0
    found = summarise(cells)
    assert found.everywhere.insufficient == ("tiny",)
    assert found.value("worst_tpr", approach="fairsynth", **AT).mean > 0.5
    assert found.everywhere.result(approach="fairsynth", **AT).groups["tpr"]["tiny"].mean == 0
    equal = found.value("equal_opportunity_difference", approach="fairsynth", **AT)
    assert equal.mean < 0.1
    counted = summarise(cells, minimum_positives=21)  # 15 + 6 positives
    assert counted.everywhere.insufficient == ()
    assert counted.value("worst_tpr", approach="fairsynth", **AT).mean == 0
    assert counted.value("equal_opportunity_difference", approach="fairsynth", **AT).mean > 0.5


def test_a_group_is_compared_on_every_seed_or_on_none():
    scarce = {"big": (1600, 100, 60), "small": (800, 16, 24)}  # 25 + 4 positives of "black"
    cells = [*trials(seeds=3), trial(WINNING, seed=9, patients=scarce)]
    found = summarise(cells)
    assert found.everywhere.insufficient == ("black", "tiny")
    row = next(row for row in found.everywhere.groups if row.group == "black")
    assert (row.patients, row.positives) == (116, 29)
    white = found.everywhere.result(approach="oracle", **AT).groups["tpr"]["white"]
    assert found.value("worst_tpr", approach="oracle", **AT).mean == pytest.approx(white.mean)


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
