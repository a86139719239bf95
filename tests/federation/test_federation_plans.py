"""What a plan fixes for server and sites alike."""

import pytest
from federation_toys import toy_plan

from fairsynth.federation.plans import learning_rate

PLAN = toy_plan()


def test_the_learning_rate_falls_from_the_plans_rate_to_its_final_share():
    training = PLAN.training.model_copy(update={"rounds": 9, "learning_rate": 0.01, "final_learning_rate_share": 0.1})
    plan = PLAN.model_copy(update={"training": training})
    rates = [learning_rate(plan, round_number=number) for number in range(10)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[4] == pytest.approx(0.0055)
    assert rates[8] == rates[9] == pytest.approx(0.001)
    assert rates == sorted(rates, reverse=True)


def test_a_single_round_uses_the_plans_rate():
    plan = PLAN.model_copy(update={"training": PLAN.training.model_copy(update={"rounds": 1})})
    assert learning_rate(plan, round_number=0) == PLAN.training.learning_rate
