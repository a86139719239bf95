"""The benchmark of a steered step, on a toy."""

from benchmarks.downstream import WITH_GRADIENT, ratios


def test_a_step_is_timed_for_every_predictor_with_a_gradient_beside_a_plain_one():
    found = ratios(tokens=60, patients=300, turns=2)
    assert set(found) == {"plain", *WITH_GRADIENT}
    assert found["plain"] == 1
    assert min(found.values()) > 0
