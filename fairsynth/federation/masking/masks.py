"""Masks that cancel: y_i = x_i + sum_{j>i} m_ij - sum_{j<i} m_ij mod 2^64 (Bonawitz et al. 2017, without self masks).

In:  a site's pair keys, a label, a vector of int64.   Out: uint64 of the same length.
Never: a random number of our own; two vectors under one label (`outbox` sees to that).

m_ij is the ChaCha20 keystream (RFC 8439) of a key that is used for one label and one pair only, which is why the nonce
may be zero: HKDF-Expand (RFC 5869) of the pair key, with the label as its info.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from fairsynth.errors import ProtocolError
from fairsynth.federation.masking.keys import KEY_BYTES, PairKeys
from fairsynth.federation.masking.roster import PROTOCOL
from fairsynth.schemas import IntArray

Masked = npt.NDArray[np.uint64]

_NONCE = bytes(16)  # counter and nonce
_WORD = np.dtype("<u8")
_BLOCK = 1 << 15  # words at a time: they stay in the processor's cache


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a vector is for. No two vectors may have the same one."""

    run: str
    epoch: int
    purpose: str  # such as `train|fairsynth|3`
    schema_sha256: str  # of `records.Schema`
    length: int

    @property
    def text(self) -> str:
        """The label in canonical form."""
        return f"{PROTOCOL}|mask|{self.run}|{self.epoch}|{self.purpose}|{self.schema_sha256}|{self.length}"


def masked(values: IntArray, keys: PairKeys, *, label: Label) -> Masked:
    """`values` (L,) as they may leave the site. Raises ProtocolError when the label is of another length."""
    return mask_in_place(np.array(values, dtype=np.int64), keys, label=label)


def mask_in_place(values: IntArray, keys: PairKeys, *, label: Label) -> Masked:
    """As `masked`, without a copy: `values` is the masked vector afterwards, and what is returned is a view of it."""
    if values.shape != (label.length,):
        raise ProtocolError.of("vector of another length", where="mask", expected=f"{label.length} numbers")
    total = values.view(np.uint64)
    for peer in sorted(keys.keys):
        _fold(total, keys.keys[peer], label=label, add=peer > keys.site)
    return total


def mask(key: bytes, *, label: Label) -> Masked:
    """The mask of one pair of sites, (L,), little-endian words of the keystream."""
    total = np.zeros(label.length, dtype=np.uint64)
    _fold(total, key, label=label, add=True)
    return total


class Total:
    """The sum mod 2^64 of masked vectors, folded one at a time; any order will do."""

    def __init__(self) -> None:
        self._sum: Masked | None = None

    def add(self, vector: Masked) -> None:
        """Fold in one site's vector."""
        self._sum = vector.copy() if self._sum is None else np.add(self._sum, vector, out=self._sum)

    def opened(self) -> IntArray:
        """The sum as two's complement; of all sites' vectors it is the sum of their values. Raises ProtocolError when
        nothing was added.
        """
        if self._sum is None:
            raise ProtocolError.of("nothing to add up", where="masked sum", expected="a vector of every site")
        return self._sum.view(np.int64)


def vector_sha256(values: npt.NDArray[np.generic]) -> str:
    """Hex SHA-256 of a vector's bytes."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _fold(total: Masked, key: bytes, *, label: Label, add: bool) -> None:
    """Add the mask of one pair to `total`, or subtract it, in place."""
    single = HKDFExpand(algorithm=hashes.SHA256(), length=KEY_BYTES, info=label.text.encode()).derive(key)
    stream = Cipher(ChaCha20(single, _NONCE), mode=None).encryptor()
    zeros, words = bytes(8 * min(_BLOCK, label.length)), bytearray(8 * min(_BLOCK, label.length))
    for start in range(0, label.length, _BLOCK):
        part = total[start : start + _BLOCK]
        size = 8 * len(part)
        stream.update_into(memoryview(zeros)[:size], memoryview(words)[:size])
        found = np.frombuffer(words, dtype=_WORD, count=len(part))
        (np.add if add else np.subtract)(part, found, out=part)
