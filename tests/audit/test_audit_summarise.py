"""The summary of two sites' audit counts: hand-made patients, and laws over order and scopes."""

import json

import numpy as np
import pytest

from fairsynth.audit.summarise import summarise
from fairsynth.audit.summary import ALL_SITES, Axes, Summary
from fairsynth.config import StudyConfig
from fairsynth.errors import ArtefactError
from fairsynth.fairness.comparison import METRICS
from fairsynth.fairness.verdict import Bounds, SiteChange
from fairsynth.federation.messages import AuditReply

GROUPS = ("white", "black", "asian")
AXES = Axes(approaches=("real_only", "fairsynth"), predictors=("logistic_regression",), thresholds=("half",), seeds=2)

# (TP, FP, FN, TN) by group, for each approach and seed. Black: 12 positives at site a, 8 at site b; asian: 3 and 0.
SITE_A = [
    [[[12, 20, 8, 60], [3, 4, 9, 24], [1, 0, 2, 9]], [[10, 20, 10, 60], [6, 4, 6, 24], [1, 0, 2, 9]]],
    [[[14, 20, 6, 60], [9, 4, 3, 24], [1, 0, 2, 9]], [[14, 20, 6, 60], [9, 4, 3, 24], [1, 0, 2, 9]]],
]
SITE_B = [
    [[[6, 10, 6, 40], [2, 5, 6, 27], [0, 0, 0, 4]], [[6, 10, 6, 40], [4, 5, 4, 27], [0, 0, 0, 4]]],
    [[[7, 10, 5, 40], [6, 5, 2, 27], [0, 1, 0, 3]], [[8, 10, 4, 40], [6, 5, 2, 27], [0, 1, 0, 3]]],
]


def plan(**audit):
    return StudyConfig.model_validate(
        {
            "schema": "fairsynth.study/1",
            "name": "summary",
            "seed": 7,
            "sites": [{"site": name, "config": "c", "data": "d"} for name in ("site-a", "site-b", "site-c")],
            "groups": {"names": GROUPS, "reference": ["white"]},
            "audit": {"bootstrap_replicates": 200, **audit},
        }
    ).plan()


def reply(table, *, codes=(), totals=(400, 50, 500)):
    """Audit arrays of one site: true positives and false positives score 0.8, the others 0.3."""
    confusion = np.array(table, dtype=np.int64)[:, None, :, None]  # (A, P, K, H, G, 4)
    tp, fp, fn, tn = np.moveaxis(confusion[:, :, :, 0], -1, 0)  # each (A, P, K, G)
    scores = np.zeros((*tp.shape, 2, 200), dtype=np.int64)
    scores[..., 1, 160], scores[..., 1, 60], scores[..., 0, 160], scores[..., 0, 60] = tp, fn, fp, tn
    visits = np.array(codes or [[100, 40, 8], [10, 6, 1], [150, 40, 10]], dtype=np.int64)
    return {
        "confusion": confusion,
        "scores": scores,
        "synthetic": np.array([[[0, 0]] * 3, [[10, 20], [30, 40], [50, 60]]], dtype=np.int64),
        "code_visits": visits,
        "code_totals": np.array(totals, dtype=np.int64),
        "alone": scores[:2, 0, 0],
    }


def replies():
    return {"site-a": reply(SITE_A), "site-b": reply(SITE_B)}


def find(summary, scope, approach="real_only"):
    return summary.scope(scope).result(approach=approach, predictor="logistic_regression", threshold="half")


def test_means_and_sds_over_seeds_are_those_worked_by_hand():
    result = find(summarise(plan(), replies(), axes=AXES), "site-a")
    impact = [(7 + 1) / 52 / (32 / 100), (10 + 1) / 52 / (30 / 100)]
    assert result.metrics["disparate_impact"].mean == pytest.approx(np.mean(impact))
    assert result.metrics["disparate_impact"].sd == pytest.approx(np.std(impact, ddof=1))
    assert result.metrics["worst_tpr"].mean == pytest.approx((3 / 12 + 6 / 12) / 2)  # black; in seed 2 level with white
    assert result.worst_group == "black"
    scores = [2 * 16 / (2 * 16 + 24 + 19), 2 * 17 / (2 * 17 + 24 + 18)]
    assert result.metrics["f1"].mean == pytest.approx(np.mean(scores))
    assert result.metrics["ppv"].mean == pytest.approx((16 / 40 + 17 / 41) / 2)
    assert result.metrics["selection_rate"].mean == pytest.approx((40 + 41) / 2 / 152)


def test_all_sites_is_the_sum_of_counts_and_not_the_mean_of_metrics():
    summary = summarise(plan(), replies(), axes=AXES)
    result = find(summary, ALL_SITES)
    assert result.metrics["worst_tpr"].mean == pytest.approx(np.mean([5 / 20, 10 / 20]))
    impact = [(14 + 1) / 96 / (48 / 162), (19 + 1) / 96 / (46 / 162)]
    assert result.metrics["disparate_impact"].mean == pytest.approx(np.mean(impact))
    assert [scope.scope for scope in summary.scopes] == [ALL_SITES, "site-a", "site-b"]
    assert summary.missing == ("site-c",)


def test_disparate_impact_compares_the_favourable_prediction():
    favourable = plan().objective.model_copy(update={"target": "label", "favourable": "negative"})
    result, plain = (
        find(summarise(one, replies(), axes=AXES), "site-a")
        for one in (plan().model_copy(update={"objective": favourable}), plan())
    )
    impact = [(52 - 8) / 52 / (68 / 100), (52 - 11) / 52 / (70 / 100)]
    assert result.metrics["disparate_impact"].mean == pytest.approx(np.mean(impact))
    unmoved = set(METRICS) - {"disparate_impact"}
    assert all(result.metrics[name] == plain.metrics[name] for name in unmoved)


def test_every_interval_holds_its_mean_and_has_a_width():
    summary = summarise(plan(), replies(), axes=AXES)
    for scope in summary.scopes:
        for result in scope.results:
            for name in METRICS:
                found = result.metrics[name]
                assert found.seeds == 2
                assert found.low < found.mean < found.high, (scope.scope, name)


def test_a_group_with_too_few_positives_is_insufficient_at_a_site_and_may_be_ok_for_all():
    summary = summarise(plan(), replies(), axes=AXES)
    assert summary.scope("site-b").insufficient == ("black", "asian")
    assert summary.scope(ALL_SITES).insufficient == ("asian",)
    assert find(summary, "site-b").worst_group == "white"
    assert find(summary, "site-b").metrics["worst_tpr"].mean == pytest.approx(0.5)


def test_small_cells_are_told_from_zero():
    rows = {row.group: row for row in summarise(plan(), replies(), axes=AXES).scope("site-b").groups}
    assert (rows["white"].patients, rows["white"].positives) == (62, 12)
    assert (rows["black"].patients, rows["black"].positives) == (40, "<11")
    assert (rows["asian"].patients, rows["asian"].positives) == ("<11", 0)
    assert [row.status for row in rows.values()] == ["ok", "INSUFFICIENT", "INSUFFICIENT"]


def test_rates_over_a_small_cell_are_not_given():
    groups = find(summarise(plan(), replies(), axes=AXES), "site-b").groups
    assert groups["black"].selection_rate.mean == pytest.approx((7 + 9) / 2 / 40)
    assert groups["black"].tpr.mean is None
    assert groups["black"].ppv.mean is None
    assert groups["black"].auroc.mean is None
    assert groups["black"].fpr.mean == pytest.approx(5 / 32)
    assert groups["asian"].selection_rate.mean is None
    assert groups["white"].tpr.mean == pytest.approx(0.5)
    shown = find(summarise(plan(minimum_cell=1), replies(), axes=AXES), "site-b").groups
    assert shown["black"].tpr.mean == pytest.approx((2 / 8 + 4 / 8) / 2)
    assert shown["asian"].tpr.mean is None  # no positive at all


def test_change_is_the_difference_from_the_first_approach_seed_by_seed():
    summary = summarise(plan(), replies(), axes=AXES)
    assert find(summary, ALL_SITES).change == {}
    change = find(summary, ALL_SITES, "fairsynth").change["worst_tpr"]
    per_seed = [21 / 32 - 5 / 20, 22 / 32 - 10 / 20]  # fairsynth's worst is white: 21/32, 22/32
    assert change.mean == pytest.approx(np.mean(per_seed))
    assert change.sd == pytest.approx(np.std(per_seed, ddof=1))
    assert change.low < change.mean < change.high


def test_a_model_that_finds_no_positive_has_an_honest_interval_for_its_worst_tpr():
    nothing = [[[0, 0, row[0] + row[2], row[1] + row[3]] for row in seed] for seed in SITE_A[0]]
    result = find(summarise(plan(), {"site-a": reply([nothing, nothing])}, axes=AXES), "site-a")
    assert result.metrics["worst_tpr"].mean == 0
    assert 0.1 < result.metrics["worst_tpr"].high < 0.3  # 0 of 20, or 0 of 12
    assert result.metrics["disparate_impact"].mean is None
    assert result.metrics["disparate_impact"].seeds == 0
    assert (result.metrics["f1"].mean, result.metrics["f1"].low) == (0, None)


def test_the_summary_is_the_same_in_any_order_of_sites_and_differs_by_seed():
    forward, backward = replies(), dict(reversed(replies().items()))
    first = summarise(plan(), forward, axes=AXES)
    assert first == summarise(plan(), backward, axes=AXES)
    other = summarise(plan().model_copy(update={"seed": 8}), forward, axes=AXES)
    assert find(first, ALL_SITES).metrics["f1"].mean == find(other, ALL_SITES).metrics["f1"].mean
    assert find(first, ALL_SITES).metrics["f1"].low != find(other, ALL_SITES).metrics["f1"].low


def test_one_more_approach_moves_no_number_of_the_others():
    three = Axes.model_validate({**AXES.model_dump(), "approaches": ("real_only", "fairsynth", "extra")})
    table = [*SITE_A, SITE_A[1]]
    arrays = {**reply(table), "synthetic": np.zeros((3, 3, 2), dtype=np.int64)}
    wide = summarise(plan(), {"site-a": arrays}, axes=three)
    narrow = summarise(plan(), {"site-a": reply(SITE_A)}, axes=AXES)
    for approach in AXES.approaches:
        assert find(wide, "site-a", approach) == find(narrow, "site-a", approach)


def test_the_summary_survives_json_without_nan():
    summary = summarise(plan(), replies(), axes=AXES)
    text = summary.model_dump_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert Summary.model_validate_json(text) == summary


def test_axes_are_read_from_a_reply_or_its_json():
    message = AuditReply(site="site-a", plan_sha256="0", changes=(), **AXES.model_dump())
    assert Axes.model_validate(message) == AXES
    assert Axes.model_validate_json(message.model_dump_json()) == AXES


def test_a_scope_or_axis_that_was_not_audited_is_not_found():
    summary = summarise(plan(), replies(), axes=AXES)
    with pytest.raises(KeyError):
        summary.scope("site-c")
    with pytest.raises(KeyError):
        find(summary, ALL_SITES, "oversampled")


def test_added_patients_are_listed_by_approach_group_and_label():
    added = summarise(plan(), replies(), axes=AXES).scope(ALL_SITES).added
    assert added["fairsynth"] == {"white": (20, 40), "black": (60, 80), "asian": (100, 120)}
    assert added["real_only"]["black"] == (0, 0)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def told(gain, *, f1=0.0):
    """What a site tells of one predictor at one threshold."""
    limits = [Bounds(mean=mean, low=mean - 0.01, high=mean + 0.01, seeds=2) for mean in (gain, f1, 0.0)]
    keys = {"predictor": "logistic_regression", "threshold": "half"}
    return SiteChange(**keys, gain=limits[0], f1=limits[1], abs_log_di=limits[2])


def test_each_site_has_the_verdict_of_what_it_told_and_all_sites_together_have_none():
    changes = {"site-a": [told(0.1)], "site-b": [told(0.1, f1=-0.05)]}
    summary = summarise(plan(), replies(), axes=AXES, changes=changes)
    (a,), (b,) = summary.scope("site-a").verdicts, summary.scope("site-b").verdicts
    assert (a.predictor, a.threshold) == ("logistic_regression", "half")
    assert (a.verdict.decision, b.verdict.decision) == ("augment", "do not augment: F1 falls")
    assert a.verdict.gain == told(0.1).gain
    assert summary.scope(ALL_SITES).verdicts == ()
    assert Summary.model_validate_json(summary.model_dump_json()) == summary


def test_a_site_that_told_nothing_has_no_verdict():
    summary = summarise(plan(), replies(), axes=AXES, changes={"site-b": [told(0.1)]})
    assert [len(scope.verdicts) for scope in summary.scopes] == [0, 0, 1]


# --- fidelity --------------------------------------------------------------------------------------------------------


def test_fidelity_is_the_coefficient_of_determination_against_equality():
    fidelity = summarise(plan(), {"site-a": reply(SITE_A)}, axes=AXES).scope("site-a").fidelity
    training, held_out, synthetic = (
        np.array([0.25, 0.1, 0.02]),
        np.array([0.2, 0.12, 0.02]),
        np.array([0.3, 0.08, 0.02]),
    )

    def determination(y, x):
        return 1 - np.sum((y - x) ** 2) / np.sum((y - y.mean()) ** 2)

    assert fidelity.r2 == pytest.approx(determination(held_out, synthetic))
    assert fidelity.r2_ceiling == pytest.approx(determination(held_out, training))
    assert fidelity.r2_training == pytest.approx(determination(training, synthetic))
    assert fidelity.r2_training_rare is None  # no code below 1 %
    assert fidelity.points == tuple(zip(training, held_out, synthetic, strict=True))
    assert fidelity.visits == (400, 50, 500)


def test_over_all_sites_a_site_with_many_synthetic_visits_weighs_no_more_than_its_real_ones():
    small = reply(SITE_A, codes=[[90, 10, 20], [9, 1, 2], [900, 100, 200]], totals=(100, 10, 1000))
    large = reply(SITE_B, codes=[[200, 500, 100], [40, 100, 20], [20, 50, 10]], totals=(1000, 200, 100))
    fidelity = summarise(plan(), {"site-a": small, "site-b": large}, axes=AXES).scope(ALL_SITES).fidelity
    shares = np.array([290, 510, 120]) / 1100  # both sites' synthetic visits are as their training visits
    assert [point[2] for point in fidelity.points] == pytest.approx(shares, abs=1e-6)
    assert fidelity.r2_training == pytest.approx(1)
    assert fidelity.visits == (1100, 210, 1100)


def test_what_synthetic_patients_alone_teach_is_told_beside_what_real_ones_do():
    fidelity = summarise(plan(), {"site-a": reply(SITE_A)}, axes=AXES).scope("site-a").fidelity
    negatives, positives = 117, 35  # at site a; the second approach finds 24 of the positives, the first 16
    for area, found in ((fidelity.auroc_real, 16), (fidelity.auroc_synthetic, 24)):
        alarms = 24
        wins = found * (negatives - alarms) + (found * alarms + (positives - found) * (negatives - alarms)) / 2
        assert area == pytest.approx(wins / (negatives * positives))


def test_synthetic_visits_with_twice_the_codes_are_not_faithful_however_well_they_correlate():
    codes = [[100, 40, 8], [25, 10, 2], [400, 160, 32]]
    fidelity = summarise(plan(), {"site-a": reply(SITE_A, codes=codes, totals=(400, 100, 800))}, axes=AXES)
    assert fidelity.scope("site-a").fidelity.r2_ceiling == pytest.approx(1)
    assert fidelity.scope("site-a").fidelity.r2 < 0


def test_no_synthetic_visits_give_no_crash():
    codes = [[100, 40, 8], [10, 6, 1], [0, 0, 0]]
    summary = summarise(plan(), {"site-a": reply(SITE_A, codes=codes, totals=(400, 50, 0))}, axes=AXES)
    assert summary.scope("site-a").fidelity.visits == (400, 50, 0)
    assert summary.scope("site-a").fidelity.r2 is None
    assert summary.scope("site-a").fidelity.r2_ceiling is not None
    assert summary.scope("site-a").fidelity.points == ()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_no_reply_is_an_error():
    with pytest.raises(ArtefactError, match="no site replied"):
        summarise(plan(), {}, axes=AXES)


def test_every_misfit_is_named_at_once():
    good = replies()
    good["site-a"].pop("scores")
    good["site-b"]["confusion"] = good["site-b"]["confusion"][..., :2, :]
    with pytest.raises(ArtefactError) as caught:
        summarise(plan(), good, axes=AXES)
    assert "site site-a: scores" in str(caught.value)
    assert "site site-b: confusion" in str(caught.value)


def test_negative_counts_and_other_types_are_refused():
    for wrong in (np.full((2, 3, 2), -1), np.zeros((2, 3, 2))):
        arrays = {**reply(SITE_A), "synthetic": wrong}
        with pytest.raises(ArtefactError, match="synthetic"):
            summarise(plan(), {"site-a": arrays}, axes=AXES)


def test_approaches_judged_on_different_patients_are_refused():
    moved = [SITE_A[0], [SITE_A[1][0], [[14, 20, 6, 60], [9, 4, 3, 23], [1, 0, 2, 9]]]]
    with pytest.raises(ArtefactError, match="same held-out patients"):
        summarise(plan(), {"site-a": reply(moved)}, axes=AXES)


def test_sites_with_different_vocabularies_are_refused():
    other = reply(SITE_B, codes=[[1, 2], [1, 2], [1, 2]])
    with pytest.raises(ArtefactError, match="different vocabularies"):
        summarise(plan(), {"site-a": reply(SITE_A), "site-b": other}, axes=AXES)
