"""Envelope <-> Flower record."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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


def test_a_transposed_array_keeps_its_values():
    array = np.arange(6.0).reshape(2, 3).T
    assert np.array_equal(decode(encode(Envelope(kind="k", fields="", arrays={"x": array}))).arrays["x"], array)


def test_a_decoded_array_may_be_written_to():
    decode(encode(Envelope(kind="k", fields="", arrays={"x": np.zeros(3)}))).arrays["x"][0] = 1.0


def record(array=None, body=None, **more):
    body = ConfigRecord({"kind": "k", "fields": "{}"}) if body is None else body
    return RecordDict({"arrays": ArrayRecord({} if array is None else {"x": array}), "body": body, **more})


def npy(array):
    good = Array(array)
    return good.dtype, tuple(good.shape), good.stype, good.data


def damaged(**changes):
    dtype, shape, stype, data = npy(np.arange(6.0))
    values = {"dtype": dtype, "shape": shape, "stype": stype, "data": data, **changes}
    return Array(values["dtype"], values["shape"], values["stype"], values["data"])


DAMAGE = {
    "cut short": damaged(data=npy(np.arange(6.0))[3][:-3]),
    "bytes too many": damaged(data=npy(np.arange(6.0))[3] + b"\0" * 8),
    "empty": damaged(data=b""),
    "no header": damaged(data=b"\0" * 200),
    "another shape outside": damaged(shape=(3,)),
    "another dtype outside": damaged(dtype="float32"),
    "another way to store": damaged(stype="pickle"),
    "objects": Array("object", (1,), "numpy.ndarray", b"\x93NUMPY"),
    "booleans": Array(np.ones(3, dtype=bool)),
    "big-endian": Array(np.arange(3).astype(">i8")),
    "a header that claims a terabyte": damaged(
        shape=(1 << 37,), data=npy(np.arange(6.0))[3].replace(b"(6,), }" + b" " * 11, b"(137438953472,), }")
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_array_is_refused(name):
    with pytest.raises(ProtocolError):
        decode(record(DAMAGE[name]))


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"arrays": ArrayRecord()}),
        record(extra=MetricRecord({"leak": 2.0})),
        record(body=ConfigRecord({"kind": "k"})),
        record(body=ConfigRecord({"kind": "k", "fields": b"bytes"})),
        record(body=ConfigRecord({"kind": "k", "fields": "{}", "more": "text"})),
        RecordDict({"arrays": ConfigRecord(), "body": ConfigRecord({"kind": "k", "fields": "{}"})}),
    ],
)
def test_records_that_are_not_of_fairsynth_are_refused(content):
    with pytest.raises(ProtocolError, match="damaged or not of FairSynth"):
        decode(content)


def test_messages_over_a_cap_are_refused_in_both_directions(monkeypatch):
    envelope = Envelope(kind="k", fields="{}", arrays={"x": np.zeros(1000)})
    content = encode(envelope)
    monkeypatch.setattr(flower, "MAXIMUM_BYTES", 4000)
    for act in (lambda: encode(envelope), lambda: decode(content)):
        with pytest.raises(ProtocolError, match="message too large"):
            act()
    monkeypatch.setattr(flower, "MAXIMUM_FIELDS", 1)
    with pytest.raises(ProtocolError, match="message too large"):
        encode(Envelope(kind="k", fields="{}"))
