"""NumPy's Philox on any device, bit for bit: on a GPU, drawing on the CPU would take most of a sample's time.

In:  keys, counters.   Out: the doubles that `numpy.random.Generator(Philox)` draws there.
Never: a state.

Philox4x64-10 of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3"), in two's complement int64, whose
products and sums keep the lower 64 bits that unsigned numbers have.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_LOW = 0xFFFFFFFF
_MANTISSA = 53


def doubles(keys: Tensor, counters: Tensor) -> Tensor:
    """(n, 1) and (n, m) int64 -> (n, 4 m) float64 in [0, 1): the four words of each counter, in order.

    A key is NumPy's `Philox(key=key)` with 0 <= key < 2**63. Counter c is the block that follows `advance(c)`.
    """
    first, second = counters + 1, torch.zeros_like(counters)
    third, fourth = second, second
    key = [keys, torch.zeros_like(keys)]
    for _ in range(_ROUNDS):
        high, low = _product(_MULTIPLIERS[0], first)
        other_high, other_low = _product(_MULTIPLIERS[1], third)
        first, second, third, fourth = other_high ^ second ^ key[0], other_low, high ^ fourth ^ key[1], low
        key = [part + _signed(step) for part, step in zip(key, _WEYL, strict=True)]
    words = torch.stack([first, second, third, fourth], dim=2).flatten(1)
    return _shifted(words, 64 - _MANTISSA).double() * 2.0**-_MANTISSA


def _product(factor: int, values: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower 64 bits of unsigned products, by halves of 32 bits."""
    high, low = factor >> 32, factor & _LOW
    own_high, own_low = _shifted(values, 32), values & _LOW
    low_low, low_high, high_low = own_low * low, own_high * low, own_low * high
    middle = _shifted(low_low, 32) + (low_high & _LOW) + (high_low & _LOW)
    upper = own_high * high + _shifted(low_high, 32) + _shifted(high_low, 32) + (middle >> 32)
    return upper, values * _signed(factor)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifted right, with zeros coming in from the left."""
    return torch.bitwise_and(values >> bits, 2 ** (64 - bits) - 1)


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned word."""
    return word - 2**64 if word >= 2**63 else word
