import numpy as np
import pytest
import torch

from fairsynth.generator import philox
from fairsynth.generator.uniforms import _drawn_on, uniforms


@pytest.mark.parametrize("key", [0, 1, 2**32 - 1, 2**63 - 1, 0x5DEECE66D123456])
@pytest.mark.parametrize("first", [0, 5, 2**32 - 2, 2**40 + 3])
def test_philox_draws_what_numpy_draws(key, first):
    bits = np.random.Philox(key=key)
    bits.advance(first)
    expected = np.random.Generator(bits).random(24)
    drawn = philox.doubles(torch.tensor([[key]]), first + torch.arange(6)[None])
    np.testing.assert_array_equal(drawn.numpy()[0], expected)


def test_what_a_gpu_draws_is_what_numpy_draws():
    patients, visits = np.array([3, 4, 9, 5, 1]), np.array([1, 1, 2, 0, 2])
    expected = uniforms(7, 2, patients=patients, visits=visits, tokens=10)
    drawn = _drawn_on(torch.device("cpu"), 7, 2, patients=patients, visits=visits, tokens=10)
    np.testing.assert_array_equal(drawn.numpy(), expected)
