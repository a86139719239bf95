"""Envelope <-> Flower's RecordDict: the only module of the library that imports flwr.

In:  an `Envelope` or the content of a Flower message.   Out: the other.
Never: pickle; an array whose bytes do not fit its header; more bytes than the caps below.

A record holds one ArrayRecord, `arrays`, whose one Array is a safetensors file with all arrays of the message, and one
ConfigRecord, `body`, with `protocol`, `kind` and `fields`. One, because Flower stores and sends every Array as objects
of its own, each with requests of its own: 219 for a training message, which took 2.4 times as long
(docs/decisions/006).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fairsynth import plain_json
from fairsynth.errors import ProtocolError
from fairsynth.federation.messages import MAXIMUM_BYTES, Envelope
from fairsynth.federation.waiting import SLOWEST
from fairsynth.schemas import Arrays

MESSAGE_TYPES = {
    "join": "query.join",
    "enrol": "query.enrol",
    "agree": "query.agree",
    "train": "train",
    "teach": "query.teach",
    "feedback": "query.feedback",
    "audit": "query.audit",
}

PROTOCOL = 2  # raised with every change of a message; both sides must run the same

MAXIMUM_ARRAYS = 4096
MAXIMUM_FIELDS = 16 << 20  # characters of JSON
MAXIMUM_KIND = 64  # characters
MAXIMUM_NAME = 200  # characters of an array's name
MAXIMUM_HEADER = 1 << 20  # bytes of a safetensors header; its reader would take 100 MB
MAXIMUM_RANK = 8
DTYPES = frozenset({"float32", "float64", "int64", "uint16", "uint64"})  # uint16: bfloat16, see `wire`; uint64: masked

COLLECTED_SECONDS = 10.0  # that a message lives beyond the wait for its reply, at least
_WITHHELD = 3  # Flower's code: message unavailable

_ARRAYS = "arrays"
_BODY = "body"
_FILE = "safetensors"
_PREFIX = 8  # bytes of the header's length, before the header
_HEADER_BYTES = 256  # of a safetensors header, for each array


def encode(envelope: Envelope) -> RecordDict:
    """`envelope` as the content of a Flower message. Raises ProtocolError when it is over a cap."""
    check_size(envelope)
    # C order, as safetensors wants it; 0-dimensional arrays stay so
    file = save({name: np.asarray(array, order="C") for name, array in envelope.arrays.items()})
    arrays = ArrayRecord({_FILE: Array("uint8", (len(file),), _FILE, file)})
    body = ConfigRecord({"protocol": PROTOCOL, "kind": envelope.kind, "fields": envelope.fields})
    return RecordDict({_ARRAYS: arrays, _BODY: body})


def decode(content: RecordDict) -> Envelope:
    """The envelope in `content`. Raises ProtocolError when it is not one of ours, is damaged or is over a cap."""
    arrays, body = content.get(_ARRAYS), content.get(_BODY)
    if set(content) != {_ARRAYS, _BODY} or not isinstance(arrays, ArrayRecord) or not isinstance(body, ConfigRecord):
        raise _unfit("records", f"one ArrayRecord {_ARRAYS!r} and one ConfigRecord {_BODY!r}")
    kind, fields, protocol = (body.get(name) for name in ("kind", "fields", "protocol"))
    if set(body) != {"protocol", "kind", "fields"} or not isinstance(kind, str) or not isinstance(fields, str):
        raise _unfit("body", "a number, `protocol`, and two strings, `kind` and `fields`")
    if isinstance(protocol, bool) or protocol != PROTOCOL:
        raise ProtocolError.of(
            "message of another version of FairSynth",
            where="body -> protocol",
            expected=f"protocol {PROTOCOL}",
            do="install the same version at the server and at every site",
        )
    if len(kind) > MAXIMUM_KIND:
        raise _unfit("body", f"a kind of at most {MAXIMUM_KIND} characters")
    if set(arrays) != {_FILE} or arrays[_FILE].stype != _FILE:
        raise _unfit("arrays", f"one Array of type {_FILE!r}")
    file = arrays[_FILE].data
    _check_size(0, len(file), len(fields))
    envelope = Envelope(kind=kind, fields=fields, arrays=_load(file))
    check_size(envelope)
    return envelope


def request_of(message: Message) -> Envelope:
    """The request in a message to a site. Raises ProtocolError as `decode`, and where nobody waits for a reply now.

    A SuperLink hands out nothing after a message's life; a SuperNode does, of what it fetched in time while its
    SuperExec was away; and a message lives a little longer than its reply is waited for (`lifetime`).
    """
    told = message.metadata
    if told.created_at + told.ttl - COLLECTED_SECONDS < time.time():
        raise ProtocolError.of(
            "request that came to its work too late",
            where=told.message_type,
            expected="work that begins while the server waits",
            do="see whether the site's SuperExec was away, and its clock (fairsynth doctor)",
        )
    return decode(message.content)


def check_size(envelope: Envelope) -> None:
    """Raise ProtocolError when `envelope` is over a cap."""
    _check_size(len(envelope.arrays), sum(array.nbytes for array in envelope.arrays.values()), len(envelope.fields))


def size_of(message: Message) -> int:
    """Bytes of a message's arrays; 0 of an error."""
    return _bytes(message.content) if message.has_content() else 0


def lifetime(timeout: float, contents: Collection[RecordDict], *, sites: int) -> float:
    """Seconds that a request lives whose replies are waited for so long: theirs ends with it, so there is time to fetch
    and fold those that came at the end. A reply of training may be three times as large as its request.
    """
    return timeout + COLLECTED_SECONDS + 3 * sites * max(map(_bytes, contents), default=0) / SLOWEST


def withheld(messages: Iterable[Message]) -> bool:
    """Whether one of them says that a reply was announced and never handed over."""
    return any(one.has_error() and one.error.code == _WITHHELD for one in messages)


def _bytes(content: RecordDict) -> int:
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


def _load(file: bytes) -> Arrays:
    """The arrays of a safetensors file, sorted by name; its reader copies them and checks the header."""
    if len(file) < _PREFIX or int.from_bytes(file[:_PREFIX], "little") > min(MAXIMUM_HEADER, len(file) - _PREFIX):
        raise _unfit("arrays", "a header that is within the file, and not too large")
    header = _header(file)
    if header.count("{") > MAXIMUM_ARRAYS + 2:  # itself, its metadata, and one for each array
        raise _unfit("arrays", f"at most {MAXIMUM_ARRAYS} arrays")
    plain_json.parse(header, where="arrays -> header", error=ProtocolError)
    try:
        arrays: Arrays = load(file)
    except (SafetensorError, KeyError, TypeError, ValueError):  # KeyError: a type that numpy does not have
        raise _unfit("arrays", "a sound safetensors file") from None
    if not {str(array.dtype) for array in arrays.values()} <= DTYPES:
        raise _unfit("array type", f"one of {', '.join(sorted(DTYPES))}")
    if any(len(name) > MAXIMUM_NAME or array.ndim > MAXIMUM_RANK for name, array in arrays.items()):
        raise _unfit("arrays", f"names of at most {MAXIMUM_NAME} characters, at most {MAXIMUM_RANK} axes")
    return {name: arrays[name] for name in sorted(arrays)}  # the reader's own order differs from call to call


def _header(file: bytes) -> str:
    """The JSON before the arrays. Raises ProtocolError when it is not text."""
    try:
        return file[_PREFIX : _PREFIX + int.from_bytes(file[:_PREFIX], "little")].decode("utf-8")
    except UnicodeDecodeError:
        raise _unfit("arrays", "a header in UTF-8") from None


def _check_size(number: int, size: int, characters: int) -> None:
    if number > MAXIMUM_ARRAYS or size > MAXIMUM_BYTES + _HEADER_BYTES * MAXIMUM_ARRAYS or characters > MAXIMUM_FIELDS:
        raise ProtocolError.of(
            "message too large",
            where=f"{number} arrays, {size:,} bytes, {characters:,} characters",
            expected=f"at most {MAXIMUM_ARRAYS} arrays, {MAXIMUM_BYTES:,} bytes, {MAXIMUM_FIELDS:,} characters",
        )


def _unfit(where: str, expected: str) -> ProtocolError:
    return ProtocolError.of("message is damaged or not of FairSynth", where=where, expected=expected)
