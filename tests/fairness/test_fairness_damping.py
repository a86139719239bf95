"""Steering that lets rates settle at parity although every slope is a round old."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairsynth.fairness.damping import Steering, steer

UP, DOWN = np.array([[0.5, 0.0], [-0.2, 0.0]]), np.array([[-0.4, 0.0], [0.1, 0.0]])


def test_the_first_round_is_steered_in_full():
    assert steer(UP, before=None).coefficients.tolist() == UP.tolist()


def test_coefficients_that_point_back_are_halved_and_those_that_do_not_recover():
    first = steer(UP, before=None)
    back = steer(DOWN, before=first)
    assert back.coefficients == pytest.approx(DOWN / 2)
    again = steer(UP, before=back)
    assert again.strength == pytest.approx(1 / 4)
    on = steer(UP, before=again)
    assert on.strength == pytest.approx(0.275)


def test_coefficients_that_never_turn_keep_their_full_strength():
    steering = steer(UP, before=None)
    for _ in range(50):
        steering = steer(UP, before=steering)
    assert steering.strength == 1


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_the_strength_stays_above_zero_and_at_most_one(ups):
    steering = None
    for up in ups:
        steering = steer(UP if up else DOWN, before=steering)
        assert 0 < steering.strength <= 1


def swing(*, damped: bool, rounds: int = 32) -> list[float]:
    """|1 - DI| by round, where a round moves DI by 0.03 along the slope of the model before it."""
    impact, measured, steering, losses = 0.9, 0.9, None, []
    for _ in range(rounds):
        slopes = np.array([[np.sign(measured - 1), 0.0]])
        steering = steer(slopes, before=steering) if damped else Steering(slopes=slopes)
        measured = impact
        impact -= 0.03 * steering.coefficients[0, 0]
        losses.append(abs(1 - impact))
    return losses


def test_rates_settle_at_parity_where_undamped_ones_swing_about_it():
    assert max(swing(damped=False)[-6:]) > 0.03
    assert max(swing(damped=True)[-6:]) < 0.01
