"""Readers of what others send, against bytes at random: only errors of our own, no hang, no memory taken on a promise.

`make test` reads 20,000 damaged inputs; `make fuzz` reads a million (FUZZ_INPUTS).
"""

from __future__ import annotations

import json
import os
import resource
import time
import tracemalloc

import numpy as np
import pytest
import yaml
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from poison_cases import STUDY

from fairsynth import artefacts, plain_json
from fairsynth.config import read_study
from fairsynth.errors import ArtefactError, ConfigError, FairSynthError, ProtocolError
from fairsynth.federation.flower import decode, encode
from fairsynth.federation.messages import (
    AgreeReply,
    AuditReply,
    EnrolReply,
    Envelope,
    FeedbackReply,
    TeachReply,
    TrainReply,
    named_site,
)
from fairsynth.generator.checkpoint import load

READERS = 5
INPUTS = 20_000
MODELS = {
    "enrol": EnrolReply,
    "agree": AgreeReply,
    "train": TrainReply,
    "teach": TeachReply,
    "feedback": FeedbackReply,
    "audit": AuditReply,
}
SLOWEST = 1.0  # seconds of one input
SPICE = (
    b"\x00",
    b"\xff",
    b"[",
    b"{",
    b'"',
    b"9" * 25,
    b"NaN",
    b"1e999",
    b"-",
    b"&a ",
    b"*a",
    b"!!python/",
    b"\n",
    b"\xc3",
)


def damaged(seed_bytes, draw):
    """Bytes with a few changes: flipped, cut, doubled, spiced, or replaced by numbers of eight bytes."""
    found = bytearray(seed_bytes)
    for _ in range(int(draw.integers(1, 5))):
        at = int(draw.integers(len(found) + 1))
        act = int(draw.integers(6))
        if act == 0 and at < len(found):
            found[at] ^= 1 << int(draw.integers(8))
        elif act == 1:
            del found[at : at + int(draw.integers(1, 20))]
        elif act == 2:
            found[at:at] = found[at : at + int(draw.integers(1, 200))]
        elif act == 3:
            found[at:at] = SPICE[int(draw.integers(len(SPICE)))]
        elif act == 4:
            found[:8] = int(draw.integers(1 << 62)).to_bytes(8, "little")
        else:
            found[at : at + 8] = bytes(draw.integers(256, size=8, dtype=np.uint8))
    return bytes(found)


def record(file=b"", kind="trained", fields="{}"):
    arrays = ArrayRecord({"safetensors": Array("uint8", (len(file),), "safetensors", file)})
    return RecordDict({"arrays": arrays, "body": ConfigRecord({"protocol": 2, "kind": kind, "fields": fields})})


def files():
    """The safetensors file of each honest reply."""
    return [encode(reply)["arrays"]["safetensors"].data for reply in STUDY.honest.values()]


def read_arrays(found, _):
    decode(record(found))


def read_fields(found, draw):
    kind = str(draw.choice(sorted(MODELS)))
    text = found.decode("utf-8", errors="replace")
    MODELS[kind].unpack(decode(record(files()[0][:0] or EMPTY, MODELS[kind].kind, text)))


def read_yaml(found, draw, *, folder):
    path = folder / "study.yaml"
    path.write_bytes(found)
    read_study(path)


def read_json(found, draw, *, folder):
    path = folder / artefacts.MANIFEST
    path.write_bytes(found)
    artefacts.read_manifest(folder, kind="cohort")


def read_text(found, _):
    plain_json.parse(found.decode("utf-8", errors="replace"), where="x", error=ProtocolError)


EXTREMES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e308, -1e308, 5e-324, 3e38, 1.0, -1.0, 2.0**63, 1e15)
WHOLE = (0, 1, -1, (1 << 63) - 1, -(1 << 63), 1 << 40, (1 << 40) + 1, 1 << 62)


def at_the_door(_, draw):
    """An honest reply with one array changed in some places to extreme numbers, at the server's door."""
    kind = str(draw.choice(sorted(STUDY.honest)))
    reply = STUDY.honest[kind]
    name = str(draw.choice(sorted(reply.arrays)))
    array = reply.arrays[name].copy()
    where = draw.integers(array.size, size=int(draw.integers(1, 4)))
    with np.errstate(over="ignore"):
        array.flat[where] = np.array(draw.choice(WHOLE if array.dtype == np.int64 else EXTREMES)).astype(array.dtype)
    STUDY.check(kind, reply.model_copy(update={"arrays": {**reply.arrays, name: array}}))


@pytest.mark.parametrize("seed", range(4))
def test_no_number_of_a_reply_upsets_the_door(seed):
    refused, slowest = run(at_the_door, [b""], number=250, seed=seed)
    assert refused > 100  # some change what they may be
    assert slowest < SLOWEST


def test_a_reply_that_cannot_be_read_names_no_site():
    for fields in ("", "[]", '{"site": NaN}', "[" * 10**5, '{"sites": 1}'):
        assert named_site(Envelope(kind="k", fields=fields)) == ""
    assert named_site(STUDY.honest["enrol"]) == "site-b"


EMPTY = encode(STUDY.honest["enrol"].model_copy(update={"arrays": {}}))["arrays"]["safetensors"].data


def run(reader, seeds, *, number, seed):
    """`number` damaged inputs through `reader`: how many were refused, and the slowest, in seconds."""
    draw = np.random.default_rng(seed)
    refused, slowest = 0, 0.0
    for index in range(number):
        found = damaged(seeds[index % len(seeds)], draw)
        started = time.monotonic()
        try:
            reader(found, draw)
        except FairSynthError:
            refused += 1
        slowest = max(slowest, time.monotonic() - started)
    return refused, slowest


def readers(folder):
    study = yaml.safe_dump({"schema": "fairsynth.study/1", "name": "toy", "seed": 1, "sites": [{"site": "a"}]}).encode()
    manifest = {
        "schema": 1,
        "kind": "cohort",
        "code_version": "1",
        "inputs": {},
        "content": "0" * 64,
        "facts": {"n": 1},
    }
    texts = [reply.fields.encode() for reply in STUDY.honest.values()]
    return {
        "arrays of a message": (read_arrays, files()),
        "fields of a message": (read_fields, texts),
        "plain JSON": (read_text, texts),
        "a study file": (lambda found, draw: read_yaml(found, draw, folder=folder), [study]),
        "a manifest": (lambda found, draw: read_json(found, draw, folder=folder), [json.dumps(manifest).encode()]),
    }


@pytest.mark.parametrize(
    "name", ["arrays of a message", "fields of a message", "plain JSON", "a study file", "a manifest"]
)
def test_a_reader_answers_damage_with_errors_of_our_own_at_once(name, tmp_path):
    reader, seeds = readers(tmp_path)[name]
    refused, slowest = run(reader, seeds, number=INPUTS // READERS, seed=1)
    assert refused > INPUTS // READERS // 20
    assert slowest < SLOWEST


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["arrays of a message", "fields of a message", "plain JSON", "a study file", "a manifest"]
)
def test_a_million_damaged_inputs_crash_no_reader(name, tmp_path):
    reader, seeds = readers(tmp_path)[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    number = int(os.environ.get("FUZZ_INPUTS", "100000")) // READERS
    _, slowest = run(reader, seeds, number=number, seed=int(time.time()))
    assert slowest < SLOWEST
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def header(text, tail=b""):
    return len(text).to_bytes(8, "little") + text.encode() + tail


LIES = {
    "a header of a terabyte": (1 << 40).to_bytes(8, "little") + b"{}",
    "a header of 2^63": (1 << 63).to_bytes(8, "little") + b"{}",
    "a header of 90 MB that is there": header(" " * 90_000_000 + "{}"),
    "an array of a terabyte": header('{"x":{"dtype":"F64","shape":[137438953472],"data_offsets":[0,1099511627776]}}'),
    "a shape that overflows": header('{"x":{"dtype":"F64","shape":[4294967296,4294967296,8],"data_offsets":[0,0]}}'),
    "a shape of many axes": header(
        '{"x":{"dtype":"F64","shape":[' + "1," * 500 + '1],"data_offsets":[0,8]}}', b"\0" * 8
    ),
    "a million empty arrays": header(
        "{" + ",".join(f'"{i}":{{"dtype":"F64","shape":[0],"data_offsets":[0,0]}}' for i in range(30_000)) + "}"
    ),
    "the same array twice": header(
        '{"x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}',
        b"\0" * 8,
    ),
    "a name of a million characters": header(
        '{"' + "x" * 1_000_000 + '":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}', b"\0" * 8
    ),
    "a header that is no text": header("", b"") + b"\xff\xfe",
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused_without_the_memory_that_it_promises(name):
    content = record(LIES[name])
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        decode(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 1, "a": 2}', "[" * 10**6, "9" * 5000, "", "{", "[1,]"],
)
def test_text_that_is_not_plain_json_is_refused_by_the_door_it_came_through(text):
    for error in (ArtefactError, ProtocolError):
        with pytest.raises(error, match="JSON"):
            plain_json.parse(text, where="x", error=error)


def test_plain_json_reads_what_python_writes(tmp_path):
    value = {"a": [1, -2.5, None, True, "é\n"], "b": {"c": []}, "large": 2**53}
    assert plain_json.parse(json.dumps(value), where="x") == value
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert plain_json.read(tmp_path / "x.json") == value


def test_a_file_is_read_up_to_its_cap_and_no_further(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as handle:
        handle.truncate(1 << 40)  # a terabyte that takes no room
    with pytest.raises(ArtefactError, match="too large"):
        plain_json.read(path)


def test_an_empty_safetensors_file_is_no_generator(tmp_path):
    with artefacts.new(tmp_path, kind="generator-plain", inputs={}) as folder:
        (folder / "weights.safetensors").write_bytes(EMPTY)
        artefacts.write_json(
            folder / "vocabulary.json", {"codes": ["a"], "groups": ["g"], "ages": [], "phenotypes": []}
        )
        artefacts.write_json(folder / "config.json", STUDY.plan.generator.model_dump())
    with pytest.raises(ArtefactError, match="unknown or missing weight"):
        load(tmp_path / "generator-plain", kind="generator-plain")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: &x [1]\nb: *x\n", "alias"),
        ("a: &x [1]\n", "anchor"),
        ("seed: 1\nseed: 2\n", "duplicate key"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("a: " + "[" * 5000 + "\n", "YAML"),
        ("a: " + "x" * 70_000 + "\n", "too large"),
        ("a: 1\0\n", "not valid YAML"),
    ],
)
def test_yaml_that_could_be_more_than_it_shows_is_refused(text, match, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match):
        read_study(path)
