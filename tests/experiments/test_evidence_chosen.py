from __future__ import annotations

from dataclasses import dataclass, field, replace

import evidence_toys as toy
import numpy as np
import pytest

from fairsynth.augmentation.guided import Guidance
from fairsynth.augmentation.plan import equal_rates, members_of
from fairsynth.experiments.evidence.bench import Candidates
from fairsynth.experiments.evidence.chosen import SELECTED, Chooser, Trial, at_half, plan_quotas
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

    def try_plan(self, guidance: Guidance) -> Trial:
        key = float(guidance.selected[0]) if np.ptp(guidance.selected) == 0 else "moved"
        validation, seen = self.outcomes[key]
        return Trial(guidance=guidance, validation=np.array(validation), seen=np.array(seen))


EVEN = [[50, 50, 50, 50], [50, 50, 50, 50]]  # both groups are selected alike
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
    shares = dict(zip(("first", "second", "third", "fourth"), SELECTED, strict=True))
    return {"moved": moved, **{share: (by_share.get(name, GOOD), seen) for name, share in shares.items()}}


# --- which plan is kept ----------------------------------------------------------------------------------------------


def test_of_plans_with_nearly_the_best_f1_the_one_with_the_best_worst_group_is_kept():
    chosen = run(outcomes(third=FAIRER, fourth=POOR))
    assert chosen.kept.guidance.selected.tolist() == [SELECTED[2]] * 2
    assert len(chosen.tried) == len(SELECTED) + 1


def test_the_best_f1_alone_decides_where_the_others_are_far_below():
    assert run(outcomes(first=POOR, second=POOR, fourth=POOR)).kept.guidance.selected[0] == SELECTED[2]


def test_the_first_of_equal_plans_is_kept():
    assert run(outcomes()).kept.guidance.selected[0] == SELECTED[0]


def test_cuts_of_groups_are_kept_if_disparate_impact_comes_nearer_to_1():
    kept = run(outcomes(moved=(GOOD, NEARER))).kept
    assert kept.guidance.selected[1] > kept.guidance.selected[0]
    assert np.array_equal(kept.seen, NEARER)


@pytest.mark.parametrize("moved", [(GOOD, UNEVEN), (POOR, NEARER)], ids=["no nearer", "too low an F1"])
def test_cuts_of_groups_are_not_kept_otherwise(moved):
    chosen = run(outcomes(moved=moved))
    assert chosen.kept.guidance.selected.tolist() == [SELECTED[0]] * 2
    assert chosen.tried[-1].guidance.selected[0] != chosen.tried[-1].guidance.selected[1]


def test_without_cuts_by_group_all_groups_share_theirs():
    chosen = run(outcomes(moved=(GOOD, NEARER)), cuts_by_group=False)
    assert len(chosen.tried) == len(SELECTED)
    assert np.ptp(chosen.kept.guidance.selected) == 0


def test_what_is_added_is_by_the_plan_that_was_kept():
    chosen = run(outcomes(third=FAIRER), cuts_by_group=False)
    again = Chooser(bench=BENCH, predictor=None, quotas=QUOTAS, candidates=candidates(), seed=5)
    for site, added in again.choose(chosen.kept.guidance).items():
        assert np.array_equal(chosen.added[site].codes, added.codes)
        assert np.array_equal(members_of(added.group, added.label, groups=2), QUOTAS[site])
    others = again.choose(chosen.tried[0].guidance)
    assert any(not np.array_equal(chosen.added[site].codes, others[site].codes) for site in others)


# --- moving the cuts -------------------------------------------------------------------------------------------------


def moved(seen, *, selected=(0.4, 0.4)) -> np.ndarray:
    chooser = Chooser(bench=BENCH, predictor=None, quotas=QUOTAS, candidates={}, seed=5)
    guidance = Guidance(selected=np.array(selected))
    return chooser.moved(Trial(guidance=guidance, validation=np.array(EVEN), seen=np.array(seen)))


def test_a_group_that_is_selected_less_gets_a_lower_cut():
    found = moved(UNEVEN)
    assert found[1] > 0.4 > found[0]


def test_groups_that_are_selected_alike_keep_their_cuts():
    assert moved(EVEN, selected=(0.3, 0.5)) == pytest.approx([0.3, 0.5])


def by_raw_rates(seen, *, share: float = 0.4) -> np.ndarray:
    """The shares whose odds differ from `share`'s as the groups' selection odds differ from everybody's."""
    seen = np.array(seen)
    rates, everyone = seen[:, :2].sum(axis=1) / seen.sum(axis=1), seen[:, :2].sum() / seen.sum()
    odds = share / (1 - share) * everyone / (1 - everyone) / (rates / (1 - rates))
    return odds / (1 + odds)


def test_the_odds_of_a_cut_move_by_as_much_as_the_odds_of_being_selected_differ():
    many = [[30_000, 30_000, 20_000, 20_000], [20_000, 20_000, 30_000, 30_000]]
    assert moved(many) == pytest.approx(by_raw_rates(many), abs=1e-3)


def test_a_group_of_few_patients_moves_less_than_its_own_counts_say():
    few = [[300, 300, 200, 200], [1, 1, 2, 2]]
    assert 0.4 < moved(few)[1] < by_raw_rates(few)[1] - 0.01


def test_shares_stay_inside_however_far_groups_are_apart():
    found = moved([[4000, 4000, 0, 0], [0, 0, 4000, 4000]], selected=(0.05, 0.95))
    assert found.tolist() == [0.02, 0.98]


def test_disparate_impact_that_is_not_defined_is_never_near():
    chooser = Chooser(bench=BENCH, predictor=None, quotas=QUOTAS, candidates={}, seed=5)
    nobody = Trial(guidance=Guidance(selected=np.full(2, 0.4)), validation=np.array(EVEN), seen=np.array(EVEN))
    assert chooser.distance(nobody) == pytest.approx(0)
    for seen in ([[0, 0, 9, 9], [5, 5, 5, 5]], [[5, 5, 5, 5], [0, 0, 9, 9]]):
        assert chooser.distance(replace(nobody, seen=np.array(seen))) == np.inf


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
    chooser.try_plan(Guidance(selected=np.full(2, 0.4)))
    assert predictor.saw == [len(BENCH.draw.cohorts[site].train) + int(QUOTAS[site].sum()) for site in BENCH.draw.sites]


def test_quotas_are_equal_rates_of_the_site_s_own_patients():
    for site, quota in QUOTAS.items():
        assert np.array_equal(quota, equal_rates(BENCH.members(site), budget=BENCH.budgets(60)[site]))


def test_a_score_of_one_half_is_a_positive_prediction():
    histogram = np.zeros((2, 2, 200), dtype=np.int64)
    histogram[0, 1, [99, 100]] = 3, 5
    histogram[0, 0, [0, 199]] = 7, 11
    assert at_half(histogram).tolist() == [[5, 11, 3, 7], [0, 0, 0, 0]]


def test_no_positive_at_all_is_an_f1_of_0_and_a_group_with_too_few_is_left_out():
    nobody = Trial(guidance=Guidance(selected=np.full(2, 0.4)), validation=np.zeros((2, 4), dtype=int), seen=None)
    assert nobody.f1 == 0
    assert nobody.worst_tpr(3) == 0
    few = replace(nobody, validation=np.array([[8, 1, 2, 9], [0, 1, 2, 9]]))
    assert few.worst_tpr(3) == pytest.approx(0.8)
    assert few.worst_tpr(2) == 0
    assert few.worst_tpr(30) == pytest.approx(8 / 12)
