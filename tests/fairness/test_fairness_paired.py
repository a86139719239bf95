"""Paired comparisons over seeds, and over seeds and patients: against scipy, sklearn on drawn rows, and simulation."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from fairsynth.errors import CohortError
from fairsynth.fairness import paired_patients as pp
from fairsynth.fairness.metrics import auroc_error
from fairsynth.fairness.paired import best_baseline, ceiling_share, paired

# --- over seeds ------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_difference_matches_scipys_t_test():
    differences = np.array([0.031, 0.012, 0.044, -0.003, 0.026])
    found = paired(differences)
    oracle = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert (found.mean, found.sd) == pytest.approx((differences.mean(), differences.std(ddof=1)), abs=1e-12)
    assert found.excludes_zero == (stats.ttest_1samp(differences, 0).pvalue < 0.05)
    assert paired(differences - 0.02).excludes_zero is False


def test_an_undefined_seed_is_left_out_and_the_number_of_seeds_says_so():
    found = paired(np.array([0.1, np.nan, 0.2, np.inf, 0.15]))
    assert (found.seeds, found.mean) == (3, pytest.approx(0.15))
    assert found.low == pytest.approx(paired(np.array([0.1, 0.2, 0.15])).low)


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.1, 0.1]])
def test_without_variation_there_is_no_interval_rather_than_one_of_no_width(values):
    found = paired(np.array(values))
    assert (found.low, found.high, found.excludes_zero) == (None, None, False)
    assert found.seeds == len(values)


def test_the_interval_holds_the_true_difference_in_95_percent_of_samples():
    rng = np.random.default_rng(1)
    found = [paired(rng.normal(0.02, 0.03, 5)) for _ in range(1500)]
    assert np.mean([one.low <= 0.02 <= one.high for one in found]) == pytest.approx(0.95, abs=0.017)


# --- the oracle ------------------------------------------------------------------------------------------------------

REAL = np.array([0.50, 0.47, 0.53, 0.49, 0.51])
ORACLE = np.array([0.70, 0.69, 0.71, 0.72, 0.68])
METHOD = np.array([0.66, 0.62, 0.68, 0.64, 0.67])


def test_the_share_of_the_ceiling_is_the_ratio_of_mean_gains():
    found = ceiling_share(METHOD, real_only=REAL, oracle=ORACLE)
    assert found.share == pytest.approx((METHOD - REAL).mean() / (ORACLE - REAL).mean())
    assert found.low < found.share < found.high
    assert (found.seeds, found.reason) == (5, "")


def test_fiellers_limits_are_the_ratios_that_a_t_test_just_rejects():
    found = ceiling_share(METHOD, real_only=REAL, oracle=ORACLE)
    for ratio in (found.low, found.high):
        assert stats.ttest_1samp(METHOD - REAL - ratio * (ORACLE - REAL), 0).pvalue == pytest.approx(0.05, abs=1e-9)


def test_a_method_that_is_the_oracle_has_a_share_of_one_and_one_that_is_real_data_a_share_of_zero():
    assert ceiling_share(ORACLE, real_only=REAL, oracle=ORACLE).share == pytest.approx(1)
    nothing = ceiling_share(REAL, real_only=REAL, oracle=ORACLE)
    assert (nothing.share, nothing.low, nothing.high) == pytest.approx((0, 0, 0), abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 10), st.floats(-1, 1))
def test_the_share_has_neither_unit_nor_origin(scale, origin):
    given_, moved = ([METHOD, REAL, ORACLE], [origin + scale * values for values in (METHOD, REAL, ORACLE)])
    one, other = (ceiling_share(m, real_only=r, oracle=o) for m, r, o in (given_, moved))
    assert (other.share, other.low, other.high) == pytest.approx((one.share, one.low, one.high), rel=1e-6)


def test_where_lower_is_better_the_share_is_that_of_the_negated_numbers():
    up = ceiling_share(METHOD, real_only=REAL, oracle=ORACLE)
    down = ceiling_share(-METHOD, real_only=-REAL, oracle=-ORACLE, higher_is_better=False)
    assert down == up
    wrong_way = ceiling_share(-METHOD, real_only=-REAL, oracle=-ORACLE)
    assert (wrong_way.share, wrong_way.reason) == (None, "the oracle does worse than real data alone")


def test_there_is_no_share_of_a_gain_within_noise():
    noisy = REAL + np.array([0.1, -0.1, 0.05, -0.06, 0.02])
    found = ceiling_share(METHOD, real_only=REAL, oracle=noisy)
    assert (found.share, found.low, found.high) == (None, None, None)
    assert "holds 0" in found.reason
    assert ceiling_share(METHOD[:1], real_only=REAL[:1], oracle=ORACLE[:1]).share is None


def test_fiellers_interval_holds_the_true_share_in_95_percent_of_samples():
    rng = np.random.default_rng(2)
    held = []
    for _ in range(1500):
        real, own = rng.normal(0.5, 0.03, 5), rng.normal(0, 0.02, (2, 5))
        found = ceiling_share(real + 0.12 + own[0], real_only=real, oracle=real + 0.15 + own[1])
        held.append(found.share is not None and found.low <= 0.8 <= found.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.017)


# --- the best baseline -----------------------------------------------------------------------------------------------


def test_the_best_baseline_is_best_on_average_and_the_best_of_each_seed_beats_it():
    baselines = {"plain": np.array([0.5, 0.8, 0.2]), "copied": np.array([0.6, 0.5, 0.55])}
    found = best_baseline(baselines)
    assert found.name == "copied"
    assert found.each_seed.tolist() == [0.6, 0.8, 0.55]
    lowest = best_baseline(baselines, higher_is_better=False)
    assert (lowest.name, lowest.each_seed.tolist()) == ("plain", [0.5, 0.5, 0.2])


def test_a_baseline_that_is_undefined_on_a_seed_is_named_and_left_out():
    found = best_baseline({"broken": np.array([0.9, np.nan]), "whole": np.array([0.1, 0.2])})
    assert (found.name, found.left_out) == ("whole", ("broken",))
    assert best_baseline({"broken": np.array([np.nan])}) is None


def test_a_gain_over_the_best_of_several_equal_baselines_is_understated():
    rng = np.random.default_rng(3)
    gains, strict = [], []
    for _ in range(400):
        method, *others = rng.normal(0.5, 0.05, (6, 5))
        best = best_baseline({str(index): values for index, values in enumerate(others)})
        gains.append((method - best.values).mean())
        strict.append((method - best.each_seed).mean())
    assert np.mean(strict) < np.mean(gains) < -0.01  # the truth is 0


# --- over seeds and patients -----------------------------------------------------------------------------------------

NAMES = ("white", "black", "asian", "tiny")
REFERENCE = np.array([True, False, False, False])


def story(seed=5, *, patients=900, seeds=3, lift=0.0):
    """Held-out patients and two approaches' scores; the first scores the positives of "black" higher by `lift`."""
    rng = np.random.default_rng(seed)
    group = rng.choice(4, size=patients, p=[0.6, 0.25, 0.13, 0.02])
    label = (rng.random(patients) < 0.3).astype(np.int64)
    hardness = rng.normal(size=patients)  # of the patient, shared by all models
    latent = 1.4 * label - 0.9 + 0.8 * hardness + 0.4 * rng.normal(size=(2, seeds, patients))
    latent[0] += lift * ((group == 1) & (label == 1))
    first, second = (
        pp.Scores(scores=1 / (1 + np.exp(-one)), thresholds=np.linspace(0.45, 0.55, seeds)) for one in latent
    )
    held_out = pp.HeldOut(label=label, group=group, names=NAMES, reference=REFERENCE)
    return first, second, held_out


def metrics_of_rows(scores, threshold, held_out, rows):
    """Metrics of the patients `rows`, by sklearn."""
    label, group, score = held_out.label[rows], held_out.group[rows], scores[rows]
    hard = (score >= threshold).astype(int)
    kept = [g for g in range(len(NAMES)) if held_out.sufficient[g]]
    ratio = hard[group > 0].mean() / hard[group == 0].mean()
    binned = np.floor(score * 200)
    return {
        "worst_tpr": min(recall_score(label[group == g], hard[group == g]) for g in kept),
        "lowest_group_auroc": min(roc_auc_score(label[group == g], binned[group == g]) for g in kept),
        "auroc": roc_auc_score(label, binned),
        "f1": f1_score(label, hard),
        "disparate_impact": ratio,
        "abs_log_di": abs(np.log(ratio)),
    }


def test_observed_differences_match_sklearn_on_the_rows_of_each_seed():
    first, second, held_out = story()
    found = pp.differences(first, second, held_out=held_out)
    everybody = np.arange(len(held_out.label))
    for seed in range(3):
        one, other = (
            metrics_of_rows(approach.scores[seed], approach.thresholds[seed], held_out, everybody)
            for approach in (first, second)
        )
        for name, value in one.items():
            assert found[name][seed] == pytest.approx(value - other[name], abs=1e-12), name


def test_a_replicate_is_the_metrics_of_the_patients_it_draws(monkeypatch):
    first, second, held_out = story(patients=400, seeds=1)
    drawn = []
    blocks = pp._multiplicities
    monkeypatch.setattr(pp, "_multiplicities", lambda *args: (drawn.append(one) or one for one in blocks(*args)))
    rng = np.random.default_rng(1)
    found = pp.redraw_differences(first, second, held_out=held_out, replicates=20, rng=rng)
    (times,) = drawn
    sizes = np.bincount(held_out.group, minlength=4)
    for replicate in range(20):
        rows = np.repeat(np.arange(400), times[replicate])
        assert (np.bincount(held_out.group[rows], minlength=4) == sizes).all()
        one, other = (
            metrics_of_rows(approach.scores[0], approach.thresholds[0], held_out, rows) for approach in (first, second)
        )
        for name, value in one.items():
            assert found[name][replicate] == pytest.approx(value - other[name], abs=1e-12), name


def test_replicates_drawn_in_blocks_are_as_many_and_spread_alike(monkeypatch):
    first, second, held_out = story(patients=300, seeds=2)
    keys = {"held_out": held_out, "metric": "f1", "replicates": 400}
    whole = pp.paired_bootstrap(first, second, rng=np.random.default_rng(1), **keys)
    monkeypatch.setattr(pp, "_BLOCK", 300 * 7)
    parts = pp.paired_bootstrap(first, second, rng=np.random.default_rng(1), **keys)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.02)
    assert parts.mean == whole.mean
    assert parts.replicates == 400


def test_groups_with_too_few_positives_are_named_and_enter_no_minimum():
    first, second, held_out = story()
    assert held_out.sufficient.tolist() == [True, True, True, False]
    spoilt = first.scores.copy()
    spoilt[:, held_out.group == 3] = 0.0  # the tiny group is missed altogether
    draws = [
        pp.paired_bootstrap(
            pp.Scores(scores=scores, thresholds=first.thresholds),
            second,
            held_out=held_out,
            metric="worst_tpr",
            replicates=50,
            rng=np.random.default_rng(2),
        )
        for scores in (first.scores, spoilt)
    ]
    assert draws[0] == draws[1]
    assert draws[0].left_out == ("tiny",)


def test_an_approach_compared_with_itself_has_a_difference_of_zero_and_no_interval():
    first, _, held_out = story()
    found = pp.paired_bootstrap(
        first, first, held_out=held_out, metric="auroc", replicates=50, rng=np.random.default_rng(3)
    )
    assert (found.mean, found.low, found.high) == (0, None, None)


def test_pairing_by_patient_makes_the_interval_narrower():
    first, second, held_out = story(seeds=1)
    keys = {"held_out": held_out, "replicates": 300}
    together = pp.redraw_differences(first, second, rng=np.random.default_rng(4), **keys)
    flat = pp.Scores(scores=np.full_like(first.scores, 0.4), thresholds=first.thresholds)  # constant: AUROC 1/2
    apart = [
        pp.redraw_differences(one, flat, rng=np.random.default_rng(seed), **keys)["auroc"]
        for seed, one in ((5, first), (6, second))
    ]
    assert together["auroc"].std() < 0.7 * (apart[0] - apart[1]).std()


def test_the_interval_holds_a_true_difference_of_zero_about_as_often_as_it_says():
    held = []
    for trial in range(40):
        first, second, held_out = story(seed=100 + trial, patients=500)
        rng = np.random.default_rng(trial)
        drawn = pp.redraw_differences(first, second, held_out=held_out, replicates=200, rng=rng)
        limits = [np.quantile(drawn[name], [0.025, 0.975]) for name in ("worst_tpr", "f1", "abs_log_di", "auroc")]
        held.append([low <= 0 <= high for low, high in limits])
    assert (np.mean(held, axis=0) >= 0.85).all()


def test_binning_moves_the_auroc_by_no_more_than_the_stated_bound():
    first, _, held_out = story(patients=3000)
    exact = roc_auc_score(held_out.label, first.scores[0])
    cells = np.zeros((2, 200), dtype=np.int64)
    np.add.at(cells, (held_out.label, (first.scores[0] * 200).astype(int)), 1)
    flat = pp.Scores(scores=np.full_like(first.scores, 0.4), thresholds=first.thresholds)
    found = pp.differences(first, flat, held_out=held_out)["auroc"][0] + 0.5
    assert abs(found - exact) <= auroc_error(cells)


def test_twenty_thousand_patients_and_two_hundred_replicates_take_seconds():
    first, second, held_out = story(patients=20_000, seeds=2)
    begun = time.process_time()
    pp.paired_bootstrap(first, second, held_out=held_out, metric="auroc", replicates=200, rng=np.random.default_rng(0))
    assert time.process_time() - begun < 10


def test_scores_of_other_patients_or_seeds_are_refused():
    first, second, held_out = story()
    fewer = pp.Scores(scores=second.scores[:2], thresholds=second.thresholds[:2])
    with pytest.raises(CohortError, match="cannot be paired"):
        pp.differences(first, fewer, held_out=held_out)
    shorter = pp.Scores(scores=second.scores[:, :-1], thresholds=second.thresholds)
    with pytest.raises(CohortError, match="cannot be paired"):
        pp.differences(first, shorter, held_out=held_out)
