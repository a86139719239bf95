"""Random numbers for a long computation that no one can guess, and that the site can repeat.

In:  a secret key of 32 bytes (`drawn.Drawn.secret`).   Out: uniform and standard normal numbers, in order.
Never: a seed of fewer bits (torch's CPU generator uses 32 of its seed, which can be searched); the same key twice for
different data.

Bits are the keystream of ChaCha20 (RFC 8439) under a key used once, so that a zero nonce is safe. Normal numbers are
float64, by the inverse of their distribution; unlike `noise` they are not exact, and the last bits of a noised float
may tell more than the analysis says (Mironov 2012).
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from scipy.special import ndtri

from fairsynth.schemas import FloatArray

_BITS = 52  # so that half a step below 1 is a float64 too


class Keystream:
    """Numbers from one key, each given once."""

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def uniform(self, number: int) -> FloatArray:
        """(number,) from (0, 1), never 0 or 1."""
        bits = np.frombuffer(self._encryptor.update(bytes(8 * number)), dtype="<u8") >> np.uint64(64 - _BITS)
        return np.asarray((bits + 0.5) / 2.0**_BITS, dtype=np.float64)

    def normal(self, number: int) -> FloatArray:
        """(number,) from the standard normal distribution."""
        return np.asarray(ndtri(self.uniform(number)), dtype=np.float64)
