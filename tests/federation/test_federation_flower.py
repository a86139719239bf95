"""Envelope <-> Flower record."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from fairsynth.errors import ProtocolError
from fairsynth.federation import flower
from fairsynth.federation.flower import decode, encode
from fairsynth.federation.messages import Envelope

DTYPES = st.sampled_from([np.float32, np.float64, np.int64])


@given(
    DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))),
    st.text(max_size=40),
)
def test_an_envelope_comes_back_with_every_bit_dtype_and_shape(array, fields):
    envelope = Envelope(kind="train", fields=fields, arrays={"weight/x": array})
    back = decode(encode(envelope))
    assert (back.kind, back.fields) == ("train", fields)
    assert back.arrays["weight/x"].dtype == array.dtype
    assert back.arrays["weight/x"].shape == array.shape
    assert back.arrays["weight/x"].tobytes() == array.tobytes()


def test_arrays_come_back_sorted_by_name():
    arrays = {f"x{number}": np.zeros(1) for number in (3, 1, 4, 5, 9, 2, 6)}
    assert list(decode(encode(Envelope(kind="k", fields="", arrays=arrays))).arrays) == sorted(arrays)


def test_a_transposed_array_keeps_its_values():
    array = np.arange(6.0).reshape(2, 3).T
    assert np.array_equal(decode(encode(Envelope(kind="k", fields="", arrays={"x": array}))).arrays["x"], array)


def test_a_decoded_array_may_be_written_to():
    decode(encode(Envelope(kind="k", fields="", arrays={"x": np.zeros(3)}))).arrays["x"][0] = 1.0


FILE = save({"x": np.arange(6.0)})
HEADER = json.dumps({"x": {"dtype": "F64", "shape": [6], "data_offsets": [0, 48]}}, separators=(",", ":")).encode()


def record(file=FILE, body=None, *, stype="safetensors", name="safetensors", **more):
    body = ConfigRecord({"protocol": 2, "kind": "k", "fields": "{}"}) if body is None else body
    array = Array("uint8", (len(file),), stype, file)
    return RecordDict({"arrays": ArrayRecord({name: array}), "body": body, **more})


def with_header(change):
    """The file with a changed header, whose length is told right."""
    assert HEADER in FILE
    start = FILE.index(HEADER)
    header = change(HEADER)
    assert header != HEADER
    return len(header).to_bytes(8, "little") + header + FILE[start + len(HEADER) :].lstrip(b" ")


DAMAGE = {
    "cut short": FILE[:-3],
    "bytes too many": FILE + b"\0" * 8,
    "empty": b"",
    "no header": b"\0" * 200,
    "a header longer than the file": (1 << 40).to_bytes(8, "little") + FILE[8:],
    "another shape": with_header(lambda header: header.replace(b"[6]", b"[3]")),
    "bytes that overlap": with_header(lambda header: header.replace(b"[0,48]", b"[8,48]")),
    "a header that claims a terabyte": with_header(
        lambda header: header.replace(b"[6]", b"[137438953472]").replace(b"[0,48]", b"[0,1099511627776]")
    ),
    "a type that does not exist": with_header(lambda header: header.replace(b"F64", b"Q64")),
    "a type that numpy does not have": with_header(
        lambda header: header.replace(b"F64", b"BF16").replace(b"[6]", b"[24]")
    ),
    "booleans": save({"x": np.ones(3, dtype=bool)}),
    "half floats": save({"x": np.ones(3, dtype=np.float16)}),
    "not a file of arrays": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01x\x94K\x01s.",  # a pickle
}


def test_an_undamaged_record_of_the_same_making_is_read():
    assert np.array_equal(decode(record()).arrays["x"], np.arange(6.0))
    assert np.array_equal(decode(record(with_header(lambda header: header + b" "))).arrays["x"], np.arange(6.0))


@pytest.mark.parametrize("content", [record(stype="numpy.ndarray"), record(name="weights")])
def test_arrays_stored_in_another_way_are_refused(content):
    with pytest.raises(ProtocolError, match="damaged or not of FairSynth"):
        decode(content)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_array_is_refused(name):
    with pytest.raises(ProtocolError):
        decode(record(DAMAGE[name]))


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"arrays": ArrayRecord()}),
        RecordDict({"arrays": ArrayRecord(), "body": ConfigRecord({"kind": "k", "fields": "{}"})}),
        record(extra=MetricRecord({"leak": 2.0})),
        record(body=ConfigRecord({"protocol": 2, "kind": "k"})),
        record(body=ConfigRecord({"protocol": 2, "kind": "k", "fields": b"bytes"})),
        record(body=ConfigRecord({"protocol": 2, "kind": "k", "fields": "{}", "more": "text"})),
        record(body=ConfigRecord({"kind": "k", "fields": "{}"})),
        record(body=ConfigRecord({"protocol": 2, "kind": "k" * 65, "fields": "{}"})),
        RecordDict({"arrays": ConfigRecord(), "body": ConfigRecord({"kind": "k", "fields": "{}"})}),
    ],
)
def test_records_that_are_not_of_fairsynth_are_refused(content):
    with pytest.raises(ProtocolError, match="damaged or not of FairSynth"):
        decode(content)


@pytest.mark.parametrize("version", [0, 1, True, 1.5, "1"])
def test_a_message_of_another_version_is_refused_with_what_to_do(version):
    with pytest.raises(ProtocolError, match="another version of FairSynth") as caught:
        decode(record(body=ConfigRecord({"protocol": version, "kind": "k", "fields": "{}"})))
    assert "same version" in caught.value.problems[0].do


def test_messages_over_a_cap_are_refused_in_both_directions(monkeypatch):
    envelope = Envelope(kind="k", fields="{}", arrays={"x": np.zeros(1000)})
    content = encode(envelope)
    monkeypatch.setattr(flower, "MAXIMUM_BYTES", 4000)
    monkeypatch.setattr(flower, "MAXIMUM_ARRAYS", 1)
    for act in (lambda: encode(envelope), lambda: decode(content)):
        with pytest.raises(ProtocolError, match="message too large"):
            act()
    monkeypatch.setattr(flower, "MAXIMUM_FIELDS", 1)
    with pytest.raises(ProtocolError, match="message too large"):
        encode(Envelope(kind="k", fields="{}"))
