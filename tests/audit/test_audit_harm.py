"""What FairSynth's patients changed at a site: means and limits of the same held-out patients under both approaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audit_toy import VOCABULARY, cohort, draw

from fairsynth.audit.evaluate import Evaluation
from fairsynth.audit.harm import Compared, site_changes
from fairsynth.audit.place import Site
from fairsynth.config import StudyPlan
from fairsynth.fairness.verdict import UNKNOWN, judge
from fairsynth.visits.records import Records

SEEDS, PREDICTORS = 4, ("transformer", "logistic_regression")
HELD_OUT = draw([[400, 100], [300, 60]], seed=3)


def site(*, minimum_positives: int = 10, favourable: str = "positive", held_out: Records = HELD_OUT) -> Site:
    plan = StudyPlan.model_validate(
        {
            "name": "toy",
            "seed": 7,
            "roster": ["site-a"],
            "quorum": 1,
            "task": {},
            "split": {},
            "groups": {"names": VOCABULARY.groups, "reference": VOCABULARY.groups[:1]},
            "vocabulary": {},
            "objective": {"target": "label", "favourable": favourable},
            "generator": {},
            "training": {},
            "augmentation": {},
            "privacy": {},
            "audit": {
                "predictors": PREDICTORS,
                "seeds": SEEDS,
                "bootstrap_replicates": 400,
                "minimum_positives": minimum_positives,
            },
        }
    )
    people = replace(cohort(draw([[50, 10], [50, 10]], seed=1)), held_out=held_out)
    return Site(root=Path("unused"), site="site-a", plan=plan, cohort=people)


def evaluations(hits: dict[int, float], *, alarms: float = 0.1, seed: int = 5) -> list[Evaluation]:
    """Models that flag a share `hits[g]` of a group's positives, and `alarms` of everybody else."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(SEEDS):
        chance = np.where(HELD_OUT.label == 1, [hits[group] for group in HELD_OUT.group], alarms)
        flagged = rng.random(len(HELD_OUT)) < chance
        found.append(
            Evaluation(
                confusion=np.zeros((2, 2, 4), dtype=np.int64),
                scores=np.zeros((2, 2, 200), dtype=np.int64),
                thresholds=np.array([0.5, 0.2]),
                single=np.where(flagged, 0.8, 0.3),  # all are flagged at 0.2
            )
        )
    return found


WORSE, BETTER = evaluations({0: 0.95, 1: 0.2}), evaluations({0: 0.95, 1: 0.6}, seed=6)
GAIN = {name: Compared(real_only=WORSE, fairsynth=BETTER) for name in PREDICTORS}


def test_a_gain_for_the_worst_group_is_seen_where_it_is_and_nowhere_else():
    changes = site_changes(site(), GAIN)
    assert [(one.predictor, one.threshold) for one in changes] == [
        (predictor, threshold) for predictor in PREDICTORS for threshold in ("half", "tuned")
    ]
    half, tuned = changes[:2]
    share = [
        np.mean([(each.single >= 0.5)[(HELD_OUT.label == 1) & (HELD_OUT.group == 1)].mean() for each in models])
        for models in (WORSE, BETTER)
    ]
    assert half.gain.mean == pytest.approx(share[1] - share[0])
    assert half.gain.low is not None
    assert 0.2 < half.gain.low < half.gain.mean < half.gain.high < 0.6
    assert judge(half.gain, half.f1, half.abs_log_di).decision == "augment"
    assert (tuned.gain.mean, tuned.f1.mean, tuned.abs_log_di.mean) == (0, 0, 0)  # both flag everybody


def test_limits_know_of_other_patients_not_of_seeds_alone():
    """Four models that agree about every patient would leave no doubt; the patients do."""
    same = {name: Compared(real_only=WORSE[:1] * SEEDS, fairsynth=BETTER[:1] * SEEDS) for name in PREDICTORS}
    gain = site_changes(site(), same)[0].gain
    assert gain.low is not None
    assert gain.high - gain.low > 0.1


def test_what_is_gone_from_one_side_is_lost_from_the_other():
    turned = {name: Compared(real_only=BETTER, fairsynth=WORSE) for name in PREDICTORS}
    forth, back = site_changes(site(), GAIN)[0].f1, site_changes(site(), turned)[0].f1
    assert back.mean == pytest.approx(-forth.mean)
    assert forth.low > 0 > back.high


@pytest.mark.parametrize("minimum_positives", [61, 101], ids=["one group left", "none left"])
def test_where_fewer_than_two_groups_can_be_judged_there_is_no_reason_to_augment(minimum_positives):
    one = site_changes(site(minimum_positives=minimum_positives), GAIN)[0]
    assert (one.gain.mean, one.gain.low, one.gain.seeds) == (None, None, 0)
    assert one.f1.mean is not None
    assert judge(one.gain, one.f1, one.abs_log_di).decision == "do not augment: the gain is within noise"


def test_parity_is_that_of_the_favour_that_the_plan_names():
    half, negative = (site_changes(site(favourable=favour), GAIN)[0] for favour in ("positive", "negative"))
    assert half.gain == negative.gain
    assert half.abs_log_di.mean != negative.abs_log_di.mean


def test_a_site_without_held_out_patients_knows_of_no_change():
    nobody = HELD_OUT.take(np.empty(0, dtype=np.int64))
    one = replace(WORSE[0], single=np.empty(0))
    blank = {name: Compared(real_only=[one] * SEEDS, fairsynth=[one] * SEEDS) for name in PREDICTORS}
    for change in site_changes(site(held_out=nobody), blank):
        assert (change.gain, change.f1, change.abs_log_di) == (UNKNOWN, UNKNOWN, UNKNOWN)


def test_the_same_site_gives_the_same_limits():
    assert site_changes(site(), GAIN) == site_changes(site(), GAIN)
