"""Honest updates of real training pass the server's door, whatever the plan; the corpus of poison does not."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from benchmarks import poison
from benchmarks.honest_rounds import federations, replies
from fairsynth.federation.norms import ALL, CLIP, CLIP_ARRAY


def test_no_honest_update_of_150_is_refused():
    found = list(poison.honest(150, seed=11))
    for one in found:
        one.check()  # raises ProtocolError with the rule that is too strict
    assert len(found) == 150
    assert {one.asked.arm for one in found} == {"plain", "fairsynth"}
    assert {one.door.plan.training.wire for one in found} == {"float32", "bfloat16"}
    assert max(one.asked.round for one in found) == 2


def test_honest_updates_stay_below_the_clip_that_norms_begin_with():
    moved = [poison._units(one) for one in poison.honest(15, seed=12)]
    assert 0 < max(one[ALL] for one in moved) < CLIP * 0.8
    assert max(max(one.values()) for one in moved) < CLIP_ARRAY * 0.8


def test_requests_without_training_are_answered_with_counts_that_pass():
    (plan,) = federations(1, seed=13)
    counting = [one for one in replies(plan) if not one.asked.epochs]
    assert len(counting) == 2 * len(plan.roster)
    for one in counting:
        one.check()


@pytest.mark.slow
def test_all_poison_and_no_honest_update_of_10_000_is_refused():
    figures = asdict(poison.measure(10_000))
    assert figures["rejected"] == figures["cases"] >= 40
    assert (figures["honest"], figures["honest_rejected"]) == (10_000, 0)
