"""Positive controls: what leaks is blocked, what is drawn afresh from the same process passes."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gate import MUST_FAIL, SETS, fails, halo, judged, rates, workers
from benchmarks.gate_patients import VOCABULARY, Process, planted
from fairsynth.synthesis.release.gates import Outcome
from fairsynth.synthesis.release.profiles import profiles
from fairsynth.synthesis.release.rules import ReleaseRules
from fairsynth.synthesis.release.verdict import SMALL_GROUPS, Evidence, examine, outside
from fairsynth.visits.records import Records

RULES = ReleaseRules()


def evidence(**changes):
    process = Process(seed=99)
    train, held_out, synthetic = (process.draw(1500, seed=part) for part in range(3))
    return replace(
        Evidence(train=train, held_out=held_out, synthetic=synthetic, vocabulary=VOCABULARY, seed=1), **changes
    )


def gate(verdict, name):
    return next(one for one in verdict.results if one.gate == name)


@pytest.fixture(scope="module")
def clean():
    return examine(evidence(), RULES)


def test_the_levels_of_all_gates_together_are_below_a_twentieth():
    assert sum(RULES.levels.model_dump().values()) <= 0.05


def test_fresh_draws_pass():
    assert sum(bool(fails(judged("clean", seed))) for seed in range(8)) == 0


@pytest.mark.parametrize("name", [name for name in MUST_FAIL if name in SETS])
def test_a_leak_is_blocked_at_every_seed(name):
    assert all(fails(judged(name, seed)) for seed in range(3))


def test_an_over_fitted_generator_is_blocked_though_its_patients_are_new_combinations():
    failed = fails(halo(0, by_heart=True, epochs=100))
    assert {"G3", "G5"} <= set(failed)


def test_the_auc_alone_would_let_half_a_per_cent_of_copies_pass():
    verdict = judged("copies 0.5 %", 0)
    assert gate(verdict, "G3").verdict is Outcome.passed
    assert gate(verdict, "G1").verdict is Outcome.failed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["copies 0.5 %", "near copies 1 %"])
def test_a_leak_is_blocked_in_95_of_100_seeds(name):
    with workers(2) as pool:
        assert rates(name, 100, pool=pool)["blocked"] >= 95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clean", "clean, small"])
def test_fresh_draws_pass_in_95_of_100_seeds(name):
    with workers(2) as pool:
        assert rates(name, 100, pool=pool)["blocked"] <= 5


def test_too_few_patients_are_inconclusive_and_block():
    process = Process(seed=5)
    few = {name: process.draw(700, seed=part) for part, name in enumerate(("train", "held_out", "synthetic"))}
    verdict = examine(evidence(**few), RULES)
    assert gate(verdict, "G0").verdict is Outcome.inconclusive
    assert verdict.outcome in (Outcome.inconclusive, Outcome.failed)
    assert outside(verdict).verdict == "FAIL"


def test_nobody_to_compare_with_is_inconclusive_not_a_crash():
    process = Process(seed=5)
    verdict = examine(evidence(held_out=process.draw(3, seed=8), synthetic=process.draw(4, seed=9)), RULES)
    assert gate(verdict, "G5").verdict is Outcome.inconclusive
    assert verdict.outcome is not Outcome.passed


def test_a_repeated_patient_whom_held_out_patients_share_is_no_copy(clean):
    train = evidence().train
    twin = train.take(np.array([_longest(train)]))
    shared = evidence(
        held_out=Records.concatenate([evidence().held_out, twin]),
        synthetic=Records.concatenate([evidence().synthetic, twin]),
    )
    assert gate(clean, "G1").verdict is Outcome.passed
    assert gate(examine(shared, RULES), "G1").verdict is Outcome.passed


def test_one_short_record_met_by_chance_proves_nothing_and_seven_do():
    base = evidence()
    sizes = profiles(base.train, vocabulary=VOCABULARY).sizes
    short = np.flatnonzero((sizes >= RULES.minimum_codes) & (sizes < RULES.unmistakable_codes))
    for number, outcome in ((1, Outcome.passed), (7, Outcome.failed)):
        copies = Records.concatenate([base.synthetic, base.train.take(short[:number])])
        assert gate(examine(replace(base, synthetic=copies), RULES), "G1").verdict is outcome


def test_one_copy_of_a_patient_whom_nobody_else_is_like_fails():
    train = evidence().train
    copy = train.take(np.array([_longest(train)]))
    verdict = examine(evidence(synthetic=Records.concatenate([evidence().synthetic, copy])), RULES)
    assert gate(verdict, "G1").verdict is Outcome.failed
    assert gate(verdict, "G1").numbers["unique_member_hits"] == 1


def test_a_code_of_ten_training_patients_fails_and_one_that_files_cannot_say_does_not():
    base = evidence()
    rare = VOCABULARY.codes.index("DX//119")
    holders = np.flatnonzero(np.bincount(base.train.visit_patient[_visits(base.train, rare)], minlength=1500))
    kept = np.setdiff1d(np.arange(1500), holders[10:])
    assert len(holders) >= 10
    few = replace(base, train=base.train.take(kept))
    assert gate(examine(few, RULES), "G8").verdict is Outcome.failed
    said = np.ones(len(VOCABULARY.codes), dtype=bool)
    said[rare] = False
    assert gate(examine(replace(few, writable=said), RULES), "G8").verdict is Outcome.passed


def _longest(records):
    return int(np.argmax(profiles(records, vocabulary=VOCABULARY).sizes))


def _visits(records, code):
    return np.repeat(np.arange(records.visits), np.diff(records.visit_offsets))[records.codes == code]


def test_a_planted_patient_that_comes_out_fails_and_none_planted_is_said():
    base = evidence()
    own = base.synthetic.codes[: base.synthetic.visit_offsets[1]]
    emitted = tuple(VOCABULARY.codes[code] for code in own if VOCABULARY.codes[code].startswith("DX"))
    never = tuple(f"DX//{number:03d}" for number in range(60))
    assert gate(examine(replace(base, canaries=(emitted,)), RULES), "G9").verdict is Outcome.failed
    assert gate(examine(replace(base, canaries=(never,)), RULES), "G9").verdict is Outcome.passed
    verdict = examine(base, RULES)
    assert gate(verdict, "G9").verdict is Outcome.not_run
    assert "G9 canaries" in verdict.not_run


def test_a_minority_whose_patients_are_copied_is_named():
    base = evidence()
    asian = base.train.take(np.flatnonzero(base.train.group == VOCABULARY.groups.index("asian")))
    verdict = examine(replace(base, synthetic=planted(base.synthetic, asian, share=0.02, seed=1)), RULES)
    named = [name for name, ones in verdict.groups.items() if any(one.verdict is Outcome.failed for one in ones)]
    assert named == [SMALL_GROUPS]  # fewer than 200 of them on either side
    assert gate(verdict, "G10").verdict is Outcome.failed


def test_wrong_files_fail(clean):
    assert gate(clean, "G11").verdict is Outcome.not_run
    assert gate(examine(evidence(problems=("3 cells",)), RULES), "G11").verdict is Outcome.failed
    assert gate(examine(evidence(problems=()), RULES), "G11").verdict is Outcome.passed


def test_the_same_evidence_gives_the_same_verdict(clean):
    assert examine(evidence(), RULES) == clean


def test_outside_learns_pass_or_fail_and_bands(clean):
    said = outside(clean).model_dump()
    assert said == {"verdict": "PASS", "members": "1,130 to 4,999", "others": "1,130 to 4,999"}


def test_a_secret_that_is_named_is_tested_beside_the_usual_ones(clean):
    verdict = examine(evidence(secrets=("DX//000",)), RULES)  # the commonest code
    assert gate(verdict, "G6").numbers["codes"] == gate(clean, "G6").numbers["codes"] + 1
