"""How far one site can move the average: at most its clip times its share of the patients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from poison_cases import STUDY, scaled

from fairsynth.errors import ProtocolError
from fairsynth.federation.aggregate import average
from fairsynth.federation.bounds import STRIDE, distances, reach
from fairsynth.federation.messages import weights_of
from fairsynth.federation.norms import CLIP, CLIP_ARRAY, FACTOR, Norms, units
from fairsynth.federation.own_update import clipped_update

PATIENTS = {"site-a": 57, "site-b": 42, "site-c": 37}
TOTAL = sum(PATIENTS.values())
HONEST = weights_of(STUDY.honest["train"].arrays)


def moved_average(bad):
    """How far the average moves, L2, when `site-b` sends `bad` instead of its honest weights."""
    honest = average(dict.fromkeys(PATIENTS, HONEST), patients=PATIENTS)
    other = average({**dict.fromkeys(PATIENTS, HONEST), "site-b": bad}, patients=PATIENTS)
    return math.hypot(*distances(honest, other).values())


def a_thousand_times(update):
    return {name: STUDY.sent[name] + np.float32(1000) * (update[name] - STUDY.sent[name]) for name in update}


def test_a_site_that_scales_by_a_thousand_and_is_clipped_moves_the_average_by_its_share_of_two_clips_at_most():
    clip = math.hypot(*distances(STUDY.sent, HONEST).values())
    bad = clipped_update(a_thousand_times(HONEST), STUDY.sent, clip=clip).weights
    share = PATIENTS["site-b"] / TOTAL
    alone = {name: STUDY.sent[name] for name in HONEST}
    others_still = average({**dict.fromkeys(PATIENTS, alone), "site-b": bad}, patients=PATIENTS)
    assert math.hypot(*distances(STUDY.sent, others_still).values()) <= clip * share * (1 + 1e-5)
    turned = clipped_update(
        {name: STUDY.sent[name] - 1000 * (HONEST[name] - STUDY.sent[name]) for name in HONEST}, STUDY.sent, clip=clip
    ).weights
    assert moved_average(turned) <= 2 * clip * share * (1 + 1e-5)


def test_without_clip_or_door_the_same_site_would_move_it_a_thousand_times_as_far():
    clip = math.hypot(*distances(STUDY.sent, HONEST).values())
    assert moved_average(a_thousand_times(HONEST)) > 900 * clip * PATIENTS["site-b"] / TOTAL


def test_the_door_refuses_the_scaled_update_and_what_it_lets_through_lies_within_the_clip():
    with pytest.raises(ProtocolError, match="within what training can move"):
        STUDY.check("train", scaled(1000)(STUDY.honest["train"]))
    size = sum(array.size for array in STUDY.sent.values())
    largest = 0.0
    for factor in np.linspace(1, 8, 50):
        try:
            reply = STUDY.check("train", scaled(factor)(STUDY.honest["train"]))
        except ProtocolError:
            break
        largest = max(largest, math.hypot(*distances(STUDY.sent, reply.weights).values()))
    assert 0 < largest <= CLIP * STUDY.reach.unit * math.sqrt(size) * 1.01
    assert largest <= STUDY.reach.norm(STUDY.sent)


def test_the_limit_of_norms_follows_what_updates_usually_do_but_never_falls_below_the_clip():
    limit = reach(STUDY.plan, round_number=1, epochs=1, patients=42, visits=90)
    before = {"a": np.zeros(100, dtype=np.float32)}
    norms = Norms()

    def moved(by):
        return units(before, {"a": np.full(100, by * limit.unit, dtype=np.float32)}, limit=limit)

    assert norms.exceeded(moved(6.5)) == ["weights", "a"]
    for _ in range(9):
        norms.remember(moved(1.5))
    assert norms.limit("a") == norms.limit("weights") == pytest.approx(1.5 * FACTOR, rel=1e-3)
    assert norms.exceeded(moved(6.5)) == []
    for _ in range(300):
        norms.remember(moved(0))
    assert (norms.limit("weights"), norms.limit("a")) == (CLIP, CLIP_ARRAY)


def test_no_weight_of_an_accepted_update_is_farther_than_adams_stride():
    name = next(iter(HONEST))
    limit = STUDY.reach.of(name, STUDY.sent[name]).ravel()[0]
    assert limit == pytest.approx(STRIDE * 1.05 * STUDY.reach.unit, rel=0.02)
