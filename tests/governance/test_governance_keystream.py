import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from scipy import stats

from fairsynth.governance.keystream import Keystream


def test_numbers_are_the_keystream_of_chacha20():
    key = bytes(range(32))
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(80))
    expected = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") / 2**64 for i in range(10)]
    assert np.abs(Keystream(key).uniform(10) - expected).max() < 1e-15


def test_normal_numbers_are_standard_normal_and_independent():
    drawn = Keystream(bytes(32)).normal(100_000)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.02
    assert np.isfinite(drawn).all()


def test_the_same_key_gives_the_same_numbers_and_no_number_twice():
    first, second = Keystream(b"k" * 32), Keystream(b"k" * 32)
    start = first.uniform(5)
    assert np.array_equal(np.concatenate([start, first.uniform(5)]), second.uniform(10))


def test_other_keys_give_other_numbers():
    assert not np.isclose(Keystream(b"a" * 32).uniform(50), Keystream(b"b" * 32).uniform(50)).any()


def test_uniform_numbers_lie_inside_0_and_1():
    drawn = Keystream(b"u" * 32).uniform(100_000)
    assert 0 < drawn.min() < drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3
