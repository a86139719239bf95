"""Envelope <-> Flower's RecordDict: the only module of the library that imports flwr.

In:  an `Envelope` or the content of a Flower message.   Out: the other.
Never: pickle; an array whose bytes do not fit its header; more bytes than the caps below.

A record holds one ArrayRecord, `arrays` (.npy bytes, exact dtypes), and one ConfigRecord, `body`, with `kind` and
`fields`.
"""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fairsynth.errors import ProtocolError
from fairsynth.federation.messages import Envelope
from fairsynth.schemas import Arrays

MESSAGE_TYPES = {"enrol": "query.enrol", "agree": "query.agree", "train": "train", "audit": "query.audit"}

MAXIMUM_ARRAYS = 4096
MAXIMUM_BYTES = 1 << 30  # of all arrays of one message
MAXIMUM_FIELDS = 16 << 20  # characters of JSON
DTYPES = frozenset({"float32", "float64", "int64"})

_ARRAYS = "arrays"
_BODY = "body"
_NPY = "numpy.ndarray"


def encode(envelope: Envelope) -> RecordDict:
    """`envelope` as the content of a Flower message. Raises ProtocolError when it is over a cap."""
    check_size(envelope)
    arrays = ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in envelope.arrays.items()})
    return RecordDict({_ARRAYS: arrays, _BODY: ConfigRecord({"kind": envelope.kind, "fields": envelope.fields})})


def decode(content: RecordDict) -> Envelope:
    """The envelope in `content`. Raises ProtocolError when it is not one of ours, is damaged or is over a cap."""
    arrays, body = content.get(_ARRAYS), content.get(_BODY)
    if set(content) != {_ARRAYS, _BODY} or not isinstance(arrays, ArrayRecord) or not isinstance(body, ConfigRecord):
        raise _unfit("records", f"one ArrayRecord {_ARRAYS!r} and one ConfigRecord {_BODY!r}")
    kind, fields = body.get("kind"), body.get("fields")
    if set(body) != {"kind", "fields"} or not isinstance(kind, str) or not isinstance(fields, str):
        raise _unfit("body", "two strings, `kind` and `fields`")
    _check_size(len(arrays), sum(len(array.data) for array in arrays.values()), len(fields))
    decoded: Arrays = {name: _array(array) for name, array in arrays.items()}
    return Envelope(kind=kind, fields=fields, arrays=decoded)


def check_size(envelope: Envelope) -> None:
    """Raise ProtocolError when `envelope` is over a cap."""
    _check_size(len(envelope.arrays), sum(array.nbytes for array in envelope.arrays.values()), len(envelope.fields))


def _array(array: Array) -> npt.NDArray[np.generic]:
    """The values of `array`, after its .npy header, its own account of itself and its length were found to agree."""
    if array.stype != _NPY or array.dtype not in DTYPES:
        raise _unfit("array type", f".npy with dtype {', '.join(sorted(DTYPES))}")
    stream = BytesIO(array.data)
    try:
        np.lib.format.read_magic(stream)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError:
        raise _unfit("array header", "a .npy header, version 1.0") from None
    payload = memoryview(array.data)[stream.tell() :]
    size = math.prod(shape)
    if fortran or str(dtype) != array.dtype or shape != tuple(array.shape) or size * dtype.itemsize != len(payload):
        raise _unfit("array length", "as many bytes, in C order, as its header says")
    return np.frombuffer(payload, dtype=dtype).reshape(shape).copy()


def _check_size(number: int, size: int, characters: int) -> None:
    if number > MAXIMUM_ARRAYS or size > MAXIMUM_BYTES + 256 * number or characters > MAXIMUM_FIELDS:
        raise ProtocolError.of(
            "message too large",
            where=f"{number} arrays, {size:,} bytes, {characters:,} characters",
            expected=f"at most {MAXIMUM_ARRAYS} arrays, {MAXIMUM_BYTES:,} bytes, {MAXIMUM_FIELDS:,} characters",
        )


def _unfit(where: str, expected: str) -> ProtocolError:
    return ProtocolError.of("message is damaged or not of FairSynth", where=where, expected=expected)
