"""One approach's metrics and their intervals: do the intervals hold what they claim to hold?"""

import numpy as np
import pytest

from fairsynth.fairness import metrics
from fairsynth.fairness.comparison import METRICS, Judged, Rules, Values, change, group_rate, overall, redraw_scores
from fairsynth.fairness.intervals import bootstrap

MEMBERS = np.array([300, 120, 80, 60])
POSITIVES = 0.2
FALSE_ALARMS = 0.1
REFERENCE = np.array([True, False, False, False])


def judged(rng, *, tpr, seeds=1, confidence=0.95, replicates=200):
    """One approach on fresh patients whose groups have these true TPRs; scores follow the same two values."""
    tpr = np.array(tpr)
    cells = np.stack(
        [
            POSITIVES * tpr,
            np.full(4, (1 - POSITIVES) * FALSE_ALARMS),
            POSITIVES * (1 - tpr),
            np.full(4, (1 - POSITIVES) * (1 - FALSE_ALARMS)),
        ],
        axis=-1,
    )
    confusion = np.array([[rng.multinomial(n, p) for n, p in zip(MEMBERS, cells, strict=True)]] * seeds)
    histogram = np.zeros((seeds, 4, 2, metrics.SCORE_BINS), dtype=np.int64)
    histogram[..., 1, 160], histogram[..., 1, 60] = confusion[..., 0], confusion[..., 2]
    histogram[..., 0, 160], histogram[..., 0, 60] = confusion[..., 1], confusion[..., 3]
    rules = Rules(
        reference=REFERENCE,
        sufficient=metrics.sufficient(confusion[0], minimum_positives=10),
        confidence=confidence,
    )
    drawn = redraw_scores(histogram, replicates=replicates, rng=rng)
    return Judged(
        confusion=confusion,
        observed=Values.of(confusion, histogram, rules=rules),
        replicates=Values.of(bootstrap(confusion, replicates=replicates, rng=rng), drawn, rules=rules),
        rules=rules,
    )


def truth(tpr, sufficient):
    """The true values of the metrics for groups with these TPRs."""
    tpr = np.array(tpr)
    selected = POSITIVES * tpr + (1 - POSITIVES) * FALSE_ALARMS
    hits, chosen = (MEMBERS * POSITIVES * tpr).sum(), (MEMBERS * selected).sum()
    area = (1 + tpr - FALSE_ALARMS) / 2  # of a score with two values
    return {
        "disparate_impact": np.average(selected[1:], weights=MEMBERS[1:]) / selected[0],
        "worst_tpr": tpr[sufficient].min(),
        "lowest_group_auroc": area[sufficient].min(),
        "f1": 2 * hits / (chosen + MEMBERS.sum() * POSITIVES),
        "selection_rate": chosen / MEMBERS.sum(),
        "ppv": hits / chosen,
        "tpr": hits / (MEMBERS.sum() * POSITIVES),
    }


@pytest.mark.parametrize("tpr", [(0.6, 0.6, 0.6, 0.6), (0.6, 0.5, 0.6, 0.35)])
def test_intervals_hold_the_truth_as_often_as_they_say(tpr):
    rng, trials = np.random.default_rng(8), 120
    held = dict.fromkeys(truth(tpr, [True] * 4), 0)
    for _ in range(trials):
        sample = judged(rng, tpr=tpr, replicates=150)
        found = overall(sample)
        for name, value in truth(tpr, sample.rules.sufficient).items():
            held[name] += found[name].low <= value <= found[name].high
    shares = {name: count / trials for name, count in held.items()}
    assert min(shares.values()) >= 0.90, shares  # 0.95 less 2.5 standard errors of 120 trials


def test_percentiles_of_a_bootstrapped_minimum_would_not():
    rng, trials, held = np.random.default_rng(9), 100, 0
    for _ in range(trials):
        sample = judged(rng, tpr=(0.6,) * 4, replicates=150)
        low, high = np.quantile(sample.replicates.overall["worst_tpr"], [0.025, 0.975])
        held += low <= 0.6 <= high
    assert held / trials < 0.8


def test_a_model_that_finds_nobody_has_a_worst_tpr_of_zero_with_a_width():
    found = overall(judged(np.random.default_rng(10), tpr=(0, 0, 0, 0)))["worst_tpr"]
    assert (found.mean, found.low) == (0, pytest.approx(0, abs=1e-12))
    assert 0.02 < found.high < 0.4


def test_more_compared_groups_never_raise_the_lower_end():
    sample = judged(np.random.default_rng(11), tpr=(0.6, 0.5, 0.6, 0.4))
    lows = [group_rate(sample, "tpr", group=group).low for group in range(4)]
    found = overall(sample)["worst_tpr"]
    assert found.low == min(low for low, kept in zip(lows, sample.rules.sufficient, strict=True) if kept)


def test_the_worst_group_is_the_one_with_the_lowest_mean_rate():
    sample = judged(np.random.default_rng(12), tpr=(0.9, 0.9, 0.1, 0.9), seeds=3)
    assert sample.worst_group == 2
    assert sample.lowest_auroc_group == 2


def test_an_approach_does_not_differ_from_itself():
    sample = judged(np.random.default_rng(13), tpr=(0.6, 0.5, 0.6, 0.4), seeds=3)
    found = change(sample, since=sample)
    assert set(found) == set(METRICS)
    assert all(one.mean == 0 and one.low is None for one in found.values())


def test_a_large_gain_for_every_group_shows_as_a_change_that_excludes_zero():
    rng = np.random.default_rng(14)
    before = judged(rng, tpr=(0.3, 0.2, 0.2, 0.2), replicates=1000)
    after = judged(rng, tpr=(0.9, 0.9, 0.9, 0.9), replicates=1000)
    found = change(after, since=before)
    assert found["worst_tpr"].low > 0
    assert found["f1"].low > 0
