from __future__ import annotations

from dataclasses import dataclass, field, replace

import evidence_toys as toy
import numpy as np
import pytest

from fairsynth.augmentation.guided import Guidance
from fairsynth.augmentation.plan import equal_rates, members_of
from fairsynth.experiments.evidence.bench import Candidates
from fairsynth.experiments.evidence.chosen import Chooser, at_half, plan_quotas
from fairsynth.fairness.planning import SELECTED, Trial, moved_shares
from fairsynth.schemas import SiteId
from fairsynth.visits.records import Records

A, B, C = (SiteId(name) for name in "abc")
BENCH = toy.bench(real=60, seed=0)
QUOTAS = plan_quotas(BENCH, synthetic=60)


def candidates(*, each: int = 40) -> dict[SiteId, Candidates]:
    """Fresh patients of the toy process in the place of a generator's, with random scores."""
    found = {}
    for place, site in enumerate(BENCH.draw.sites):
        drawn = toy.people(np.arange(8 * each), seed=100 + place)
        rows = [np.flatnonzero(drawn.group == group)[:each] for group in range(2)]
        records = drawn.take(np.concatenate(rows))
        found[site] = Candidates(records=records, scores=np.random.default_rng(place).uniform(0.05, 0.95, 2 * each))
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned(Chooser):
    """A chooser whose plans lead to what `outcomes` says, by the mean share above the cut."""

    outcomes: dict = field(default_factory=dict)

    def try_plan(self, selected: np.ndarray) -> Trial:
        key = float(selected[0]) if np.ptp(selected) == 0 else "moved"
        validation, seen = self.outcomes[key]
        return Trial(selected=selected, validation=np.array(validation), seen=np.array(seen))


UNEVEN = [[60, 60, 40, 40], [10, 10, 90, 90]]
NEARER = [[60, 60, 40, 40], [50, 50, 50, 50]]


def confusion(*, tpr: tuple[float, float], false_alarms: int, positives: int = 100, negatives: int = 300):
    """(G, 4) TP, FP, FN, TN."""
    return [
        [round(positives * rate), false_alarms, positives - round(positives * rate), negatives - false_alarms]
        for rate in tpr
    ]


GOOD = confusion(tpr=(0.7, 0.5), false_alarms=40)
FAIRER = confusion(tpr=(0.61, 0.59), false_alarms=40)  # the same F1, the worst group better off
POOR = confusion(tpr=(0.95, 0.95), false_alarms=280)  # a better worst group, at too many false alarms


def run(outcomes, **changed):
    arguments = {"bench": BENCH, "predictor": None, "quotas": QUOTAS, "candidates": candidates(), "seed": 5}
    return Planned(**arguments, outcomes=outcomes, **changed).run()


def outcomes(*, moved=(GOOD, UNEVEN), seen=UNEVEN, **by_share):
    shares = dict(zip(("first", "second", "third"), SELECTED, strict=True))
    return {"moved": moved, **{share: (by_share.get(name, GOOD), seen) for name, share in shares.items()}}


# --- which plan is kept ----------------------------------------------------------------------------------------------


def test_of_plans_with_nearly_the_best_f1_the_one_with_the_best_worst_group_is_kept():
    chosen = run(outcomes(first=POOR, third=FAIRER))
    assert chosen.kept.selected.tolist() == [SELECTED[2]] * 2
    assert len(chosen.tried) == len(SELECTED) + 1


def test_the_best_f1_alone_decides_where_the_others_are_far_below():
    assert run(outcomes(first=POOR, second=POOR)).kept.selected[0] == SELECTED[2]


def test_the_first_of_equal_plans_is_kept():
    assert run(outcomes()).kept.selected[0] == SELECTED[0]


def test_cuts_of_groups_are_kept_if_disparate_impact_comes_nearer_to_1():
    kept = run(outcomes(moved=(GOOD, NEARER))).kept
    assert kept.selected[1] > kept.selected[0]
    assert np.array_equal(kept.seen, NEARER)


@pytest.mark.parametrize("moved", [(GOOD, UNEVEN), (POOR, NEARER)], ids=["no nearer", "too low an F1"])
def test_cuts_of_groups_are_not_kept_otherwise(moved):
    chosen = run(outcomes(moved=moved))
    assert chosen.kept.selected.tolist() == [SELECTED[0]] * 2
    assert chosen.tried[-1].selected[0] != chosen.tried[-1].selected[1]


def test_without_cuts_by_group_all_groups_share_theirs():
    chosen = run(outcomes(moved=(GOOD, NEARER)), cuts_by_group=False)
    assert len(chosen.tried) == len(SELECTED)
    assert np.ptp(chosen.kept.selected) == 0


def test_what_is_added_is_by_the_plan_that_was_kept():
    chosen = run(outcomes(third=FAIRER), cuts_by_group=False)
    again = Chooser(bench=BENCH, predictor=None, quotas=QUOTAS, candidates=candidates(), seed=5)
    for site, added in again.choose(Guidance(selected=chosen.kept.selected)).items():
        assert np.array_equal(chosen.added[site].codes, added.codes)
        assert np.array_equal(members_of(added.group, added.label, groups=2), QUOTAS[site])
    others = again.choose(Guidance(selected=chosen.tried[0].selected))
    assert any(not np.array_equal(chosen.added[site].codes, others[site].codes) for site in others)


# --- cuts that each site plans ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Sited(Chooser):
    """A chooser whose plans lead, at each site, to what `outcomes` says; the site is put in mind of what it tried."""

    outcomes: dict = field(default_factory=dict)

    def try_at(self, site: SiteId, selected: np.ndarray) -> Trial:
        validation, seen = self.outcomes[site]["common" if np.ptp(selected) == 0 else "moved"]
        return Trial(selected=selected, validation=np.array(validation), seen=np.array(seen))


TURNED = UNEVEN[::-1]  # the other group is selected less


def sited(moved):
    """Two sites that are unfair in opposite directions, and a third that is fair."""
    found = {
        A: {"common": (GOOD, UNEVEN), "moved": moved},
        B: {"common": (GOOD, TURNED), "moved": moved},
        C: {"common": (GOOD, [NEARER[1], NEARER[1]]), "moved": moved},
    }
    return Sited(bench=BENCH, predictor=None, quotas=QUOTAS, candidates=candidates(), seed=5, outcomes=found)


def test_sites_that_are_unfair_in_opposite_directions_move_their_cuts_in_opposite_directions():
    chooser = sited((GOOD, [NEARER[1], NEARER[1]]))
    point = Trial(selected=np.full(2, 0.3), validation=np.array(GOOD), seen=np.add(UNEVEN, TURNED))
    north, south, fair = (chooser.cut_at(site, point) for site in (A, B, C))
    assert north[0] < 0.3 < north[1]
    assert south.tolist() == pytest.approx(north[::-1].tolist())
    assert fair.tolist() == [0.3, 0.3]
    assert moved_shares(point).tolist() == pytest.approx([0.3, 0.3])  # what all sites together would do


@pytest.mark.parametrize("moved", [(GOOD, UNEVEN), (POOR, NEARER)], ids=["no nearer", "too low an F1"])
def test_a_site_keeps_the_common_cut_where_its_own_gains_nothing(moved):
    point = Trial(selected=np.full(2, 0.3), validation=np.array(GOOD), seen=np.array(UNEVEN))
    assert sited(moved).cut_at(A, point).tolist() == [0.3, 0.3]


# --- what a plan is judged by ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByCode:
    """Scores from what training patients it was given; it writes down whom it saw."""

    saw: list

    def fit(self, train, *, vocabulary, settings, seed, weights=None):
        self.saw.append(len(train))
        return self

    def scores(self, records: Records) -> np.ndarray:
        return np.where(np.diff(records.visit_offsets)[records.patient_offsets[:-1]] > 11, 0.5, 0.499)


class Untouchable:
    """Held-out patients whom nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError(f"held-out patients were asked for {name}")

    def __len__(self):
        raise AssertionError("held-out patients were counted")


def sealed():
    cohorts = {site: replace(one, held_out=Untouchable()) for site, one in BENCH.draw.cohorts.items()}
    return replace(BENCH, draw=replace(BENCH.draw, cohorts=cohorts))


def test_plans_are_judged_by_training_and_validation_patients_and_held_out_ones_are_never_touched():
    predictor = ByCode([])
    chooser = Chooser(bench=sealed(), predictor=predictor, quotas=QUOTAS, candidates=small_candidates(), seed=5)
    chosen = chooser.run()
    assert len(predictor.saw) == 3 * (len(SELECTED) + 1)
    for part, counted in (("validation", [chosen.kept.validation]), ("train", [chosen.kept.seen])):
        people = [getattr(BENCH.draw.cohorts[site], part) for site in BENCH.draw.sites]
        if part == "train":  # seen are training and validation patients
            people += [BENCH.draw.cohorts[site].validation for site in BENCH.draw.sites]
        everybody = Records.concatenate(people)
        predicted = predictor.scores(everybody) >= 0.5
        expected = [
            [
                int(((everybody.group == group) & (everybody.label == label) & (predicted == said)).sum())
                for label, said in ((1, True), (0, True), (1, False), (0, False))
            ]
            for group in range(2)
        ]
        assert counted[0].tolist() == expected
        assert predicted.any()
        assert not predicted.all()


def small_candidates() -> dict[SiteId, Candidates]:
    """The site's own training patients over and over, in the vocabulary of the draw."""
    found = {}
    for site in BENCH.draw.sites:
        train = BENCH.draw.cohorts[site].train
        records = train.take(np.resize(np.arange(len(train)), 20 * len(train)))
        found[site] = Candidates(records=records, scores=np.random.default_rng(1).uniform(0.1, 0.9, len(records)))
    return found


def test_a_predictor_is_trained_on_real_and_added_patients_of_its_site():
    predictor = ByCode([])
    chooser = Chooser(bench=BENCH, predictor=predictor, quotas=QUOTAS, candidates=small_candidates(), seed=5)
    chooser.try_plan(np.full(2, 0.4))
    assert predictor.saw == [len(BENCH.draw.cohorts[site].train) + int(QUOTAS[site].sum()) for site in BENCH.draw.sites]


def test_quotas_are_equal_rates_of_the_site_s_own_patients():
    for site, quota in QUOTAS.items():
        assert np.array_equal(quota, equal_rates(BENCH.members(site), budget=BENCH.budgets(60)[site]))


def test_a_score_of_one_half_is_a_positive_prediction():
    histogram = np.zeros((2, 2, 200), dtype=np.int64)
    histogram[0, 1, [99, 100]] = 3, 5
    histogram[0, 0, [0, 199]] = 7, 11
    assert at_half(histogram).tolist() == [[5, 11, 3, 7], [0, 0, 0, 0]]
