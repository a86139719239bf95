"""How a round's weights and moments travel: whole, or in 16 bits.

In:  float32 arrays, and the plan's `training.wire`.   Out: arrays of a message, and back.
Never: a 16-bit number in what is averaged, kept or trained.

`bfloat16` is the upper half of a float32: its range, 8 bits of precision. The range is why it is not float16: second
moments of gradients lie far below 6e-8, where float16 ends. It travels as uint16, because numpy has no such type.
Under it a site sends how its weights changed, not the weights: the error of a reply is then a share of the change, and
the server, which adds the changes to float32 weights, loses nothing from round to round (docs/federation.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fairsynth.config import Wire
from fairsynth.errors import Problem, ProtocolError
from fairsynth.federation.messages import WEIGHT, weights_as, weights_of
from fairsynth.schemas import Arrays

CHANGE = "change/"  # before the names of weights, in replies under bfloat16

DTYPES: dict[Wire, type[np.generic]] = {"float32": np.float32, "bfloat16": np.uint16}

Bits = npt.NDArray[np.uint16]
_HALF = np.uint32(16)
_NAN = np.uint16(0x7FC0)


def outgoing(values: Arrays, prefix: str, *, wire: Wire) -> Arrays:
    """Float32 arrays as they travel, `prefix` before each name."""
    whole = weights_as(values, prefix)
    return whole if wire == "float32" else {name: narrow(_float(array)) for name, array in whole.items()}


def incoming(arrays: Arrays, prefix: str, *, wire: Wire) -> Arrays:
    """The arrays under `prefix`, float32 again. Raises ProtocolError when one does not travel as agreed."""
    found, dtype = weights_of(arrays, prefix), DTYPES[wire]
    if problems := [
        Problem(what=f"array travels as {array.dtype}", where=f"{prefix}{name}", expected=f"{dtype.__name__} ({wire})")
        for name, array in sorted(found.items())
        if array.dtype != dtype
    ]:
        raise ProtocolError(problems)
    return found if wire == "float32" else {name: widen(bits) for name, bits in found.items()}


def narrow(values: npt.NDArray[np.float32]) -> Bits:
    """The nearest bfloat16 of each value, ties to even, as bits."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).reshape(np.shape(values))
    odd = (bits >> _HALF) & np.uint32(1)
    rounded = ((bits + (np.uint32(0x7FFF) + odd)) >> _HALF).astype(np.uint16)
    return np.where(np.isnan(values), _NAN, rounded)


def widen(bits: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """The float32 that each bfloat16 is."""
    return (np.asarray(bits).astype(np.uint32, order="C") << _HALF).view(np.float32)


def answer(after: Arrays, *, received: Arrays, wire: Wire) -> Arrays:
    """What a site sends of the weights `after` its training, which began at those `received`."""
    if wire == "float32":
        return outgoing(after, WEIGHT, wire=wire)
    return outgoing({name: _float(after[name]) - _float(received[name]) for name in after}, CHANGE, wire=wire)


def answered(arrays: Arrays, *, sent: Arrays, wire: Wire) -> Arrays:
    """The weights that a site's reply stands for; `sent` are the server's, before they were narrowed."""
    found = incoming(arrays, answer_prefix(wire), wire=wire)
    return found if wire == "float32" else {name: _float(sent[name]) + _float(change) for name, change in found.items()}


def answer_prefix(wire: Wire) -> str:
    """What stands before the names of weights in a reply."""
    return WEIGHT if wire == "float32" else CHANGE


def _float(array: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    return np.asarray(array, dtype=np.float32)
