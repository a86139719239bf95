"""What a site checks of its own update, and how it cuts one that goes too far."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from federation_toys import toy_plan
from hypothesis import given
from hypothesis import strategies as st

from fairsynth.errors import ProtocolError
from fairsynth.federation.bounds import STRIDE, distances, reach
from fairsynth.federation.own_update import clipped_update, self_check, self_check_counts
from fairsynth.generator.base_rates import BIAS
from fairsynth.generator.train import Moments

PLAN = toy_plan()
LIMIT = reach(PLAN, round_number=0, epochs=1, patients=42, visits=90)
BEFORE = {"a": np.linspace(-1, 1, 50, dtype=np.float32), BIAS: np.zeros(7, dtype=np.float32)}
MOMENTS = Moments(
    first={name: np.full_like(array, 1e-3) for name, array in BEFORE.items()},
    second={name: np.full_like(array, 1e-5) for name, array in BEFORE.items()},
)


def moved(by):
    return {name: array + np.float32(by) for name, array in BEFORE.items()}


def told(**changes):
    arguments = {"before": BEFORE, "after": moved(1e-3), "moments": MOMENTS, **changes}
    with pytest.raises(ProtocolError) as caught:
        self_check(arguments["before"], arguments["after"], moments=arguments["moments"], limit=LIMIT)
    return [f"{one.where} {one.expected}" for one in caught.value.problems]


def test_an_honest_update_passes():
    self_check(BEFORE, moved(1e-3), moments=MOMENTS, limit=LIMIT)


def test_the_limit_is_adams_stride_times_steps_times_learning_rate():
    assert LIMIT.unit == 2 * PLAN.training.learning_rate  # 42 patients, 32 a step
    assert pytest.approx(7.27, abs=0.01) == STRIDE
    self_check(BEFORE, moved(7.2 * LIMIT.unit), moments=MOMENTS, limit=LIMIT)
    assert told(after=moved(8 * LIMIT.unit)) == [f"{name} within what training can move" for name in ("a", BIAS)]


def test_every_fault_of_an_own_update_is_told():
    assert told(after={**moved(1e-3), "a": np.full(50, np.nan, dtype=np.float32)}) == ["weights finite numbers"]
    assert told(after={"a": BEFORE["a"]}) == ["weights the names of what was received"]
    large = replace(MOMENTS, first={name: np.full_like(array, 0.5) for name, array in BEFORE.items()})
    assert told(moments=large) == [
        "first moments norm at most 1",
        "first moments at most what the second ones allow",
    ]
    negative = replace(MOMENTS, second={name: -array for name, array in MOMENTS.second.items()})
    assert "second moments from 0" in told(moments=negative)


def test_counts_that_contradict_each_other_do_not_leave():
    members = np.array([[20, 4], [15, 3]])
    sound = np.array([[24, 30, 25, 20], [18, 10, 9, 8]], dtype=float)
    self_check_counts({"soft": sound}, cells=500, members=members, plan=PLAN)
    with pytest.raises(ProtocolError, match="TP at most P") as caught:
        self_check_counts({"soft": sound + np.array([0, 0, 0, 40])}, cells=500, members=members, plan=PLAN)
    assert caught.value.problems[0].what == "own update breaks a rule"


def test_an_update_within_the_clip_stays_as_it_is():
    after = moved(1e-3)
    result = clipped_update(after, BEFORE, clip=1.0)
    assert result.weights is after
    assert not result.clipped


@given(st.floats(1e-3, 1e3), st.floats(1e-4, 1e2), st.integers(0, 50))
def test_a_clipped_update_keeps_its_direction_and_never_passes_the_clip(size, clip, seed):
    draw = np.random.default_rng(seed)
    after = {name: (array + size * draw.normal(size=array.shape)).astype(np.float32) for name, array in BEFORE.items()}
    result = clipped_update(after, BEFORE, clip=clip)
    distance = math.hypot(*distances(BEFORE, result.weights).values())
    assert distance <= clip
    if result.clipped:
        assert distance == pytest.approx(clip, rel=1e-2)
        wanted, found = (
            np.concatenate([(arrays[name] - BEFORE[name]).astype(np.float64) for name in BEFORE])
            for arrays in (after, result.weights)
        )
        assert wanted @ found / np.linalg.norm(wanted) / np.linalg.norm(found) > 0.999


def test_a_clip_at_the_limit_of_training_changes_no_update_that_training_can_make():
    edge = moved(STRIDE * LIMIT.unit)
    assert not clipped_update(edge, BEFORE, clip=LIMIT.norm(BEFORE)).clipped


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
def test_a_clip_that_is_none_is_refused(clip):
    with pytest.raises(ValueError, match="above 0"):
        clipped_update(moved(1.0), BEFORE, clip=clip)
