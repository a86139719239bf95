"""Values that only one site knows, and a search for them in everything that the server has."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping

import numpy as np


def encodings(value: float) -> dict[str, bytes]:
    """The ways in which a number could lie in a file, a message or memory."""
    whole = int(value)
    found = {
        "text of a real number": repr(float(value)).encode(),
        "float32": struct.pack("<f", value),
        "float64": struct.pack("<d", value),
    }
    found |= {"float32 big-endian": struct.pack(">f", value), "float64 big-endian": struct.pack(">d", value)}
    if whole == value:
        text = str(whole)
        found |= {
            "int32": struct.pack("<i", whole),
            "int64": struct.pack("<q", whole),
            "int32 big-endian": struct.pack(">i", whole),
            "int64 big-endian": struct.pack(">q", whole),
            "text": text.encode(),
            "text with commas": f"{whole:,}".encode(),
        }
        found |= {f"fixed point, {bits} bits": struct.pack("<q", whole << bits) for bits in (16, 20, 24)}
    return found


def patterns(values: Mapping[str, float], arrays: Mapping[str, np.ndarray] = {}) -> dict[str, bytes]:
    """Every encoding of every value, and the bytes of arrays, also in base64."""
    found = {f"{name} as {how}": code for name, value in values.items() for how, code in encodings(value).items()}
    for name, array in arrays.items():
        whole = np.ascontiguousarray(array).tobytes()
        found |= {f"{name} as bytes": whole, f"{name} as base64": base64.b64encode(whole[: len(whole) // 3 * 3])}
    return found


def hits(wanted: Mapping[str, bytes], places: Iterable[tuple[str, bytes] | tuple[str, bytes, bool]]) -> list[str]:
    """`pattern in place`, for each that is found.

    A place that is said to be of masked numbers is searched for patterns of more than four bytes alone: shorter ones
    lie in some megabytes of noise by chance, and its numbers have eight.
    """
    return [
        f"{name} in {place}"
        for place, content, *is_masked in places
        for name, code in wanted.items()
        if code in content and not (is_masked == [True] and len(code) <= 4)
    ]
