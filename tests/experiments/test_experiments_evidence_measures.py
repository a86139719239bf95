"""Metrics of trials, against sklearn and fairlearn on the same rows, and on trials whose truth is known."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from evidence_stories import BLACK, SITES, WINNING, Approach, rows, target, trial, trials
from fairlearn.metrics import demographic_parity_ratio, true_positive_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, precision_score, roc_auc_score

from fairsynth.experiments.evidence.counted import confusion, gather, tuned_edges
from fairsynth.experiments.evidence.measures import auroc_within, measure
from fairsynth.experiments.evidence.roles import REAL_ONLY
from fairsynth.experiments.evidence.summary import summarise

AT = {"predictor": "transformer", "threshold": "half"}


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
    some = [{"big": (1600, 100, 60), "small": (800, number, 24)} for number in (16, 16, 20)]  # 29, 29, 30 of "black"
    found = summarise([trial(WINNING, seed=seed, patients=patients) for seed, patients in enumerate(some)])
    assert found.everywhere.insufficient == ("black", "tiny")
    row = next(row for row in found.everywhere.groups if row.group == "black")
    assert (row.patients, row.positives) == (116, 29)  # the fewest; the mean
    white = found.everywhere.result(approach="oracle", **AT).groups["tpr"]["white"]
    assert found.value("worst_tpr", approach="oracle", **AT).mean == pytest.approx(white.mean)


def test_more_seeds_do_not_drop_a_group_that_is_scarce_on_one():
    scarce = {"big": (1600, 100, 60), "small": (800, 16, 24)}  # 25 + 4 positives of "black"
    found = summarise([*trials(seeds=3), trial(WINNING, seed=9, patients=scarce)])
    assert found.everywhere.insufficient == ("tiny",)


def test_a_group_without_a_positive_on_a_seed_is_left_out_however_many_it_has_on_others():
    none = {"big": (1600, 2, 60), "small": (800, 0, 24)}  # a quarter of two, rounded down
    cells = [*trials(seeds=3), trial(WINNING, seed=9, patients=none)]
    assert cells[-1].held_out[0, 0, :, BLACK, 1].sum() == 0
    assert "black" in summarise(cells).everywhere.insufficient
