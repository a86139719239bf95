"""Weights and moments in 16 bits: exact rounding, changes instead of weights, and a study that runs on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federation_real import Local, make_sites, real_plan
from federation_toys import InProcess, toy_plan, toy_sites
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairsynth.config import ObjectiveConfig, TrainingConfig
from fairsynth.errors import ProtocolError
from fairsynth.federation import site
from fairsynth.federation.journal import read
from fairsynth.federation.messages import FIRST, SECOND, WEIGHT, TrainRequest, weights_as
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study
from fairsynth.federation.wire import CHANGE, answer, answered, incoming, narrow, outgoing, widen
from fairsynth.generator.checkpoint import load

NARROW = TrainingConfig(rounds=2, local_epochs=1, round_deadline_seconds=300, wire="bfloat16")
FLOATS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, min_side=0), elements=st.floats(width=32, allow_nan=True))


@given(FLOATS)
def test_rounding_is_that_of_torch(values):
    ours, theirs = widen(narrow(values)), torch.from_numpy(values.copy()).bfloat16().float().numpy()
    assert ours.shape == values.shape
    np.testing.assert_array_equal(ours, theirs)


def test_a_number_keeps_eight_bits_over_the_whole_range():
    values = np.float32(10.0) ** np.arange(-37, 38, dtype=np.float32) * np.float32(1.2345)
    assert np.abs(widen(narrow(values)) / values - 1).max() <= 2**-8


def test_16_bits_halve_the_bytes_and_32_leave_every_bit():
    values = {"a": np.linspace(-1, 1, 50, dtype=np.float32)}
    whole, half = (outgoing(values, WEIGHT, wire=wire) for wire in ("float32", "bfloat16"))
    assert half["weight/a"].nbytes * 2 == whole["weight/a"].nbytes
    assert incoming(whole, WEIGHT, wire="float32")["a"].tobytes() == values["a"].tobytes()


def test_a_reply_errs_by_a_share_of_the_change_and_not_of_the_weight():
    sent = {"a": np.full(100, 3.0, dtype=np.float32)}
    received = incoming(outgoing(sent, WEIGHT, wire="bfloat16"), WEIGHT, wire="bfloat16")
    moved = np.linspace(1e-4, 1e-3, 100, dtype=np.float32)
    reply = answer({"a": received["a"] + moved}, received=received, wire="bfloat16")
    assert set(reply) == {"change/a"}
    found = answered(reply, sent=sent, wire="bfloat16")["a"] - sent["a"]
    assert np.abs(found - moved).max() < 1e-3 * 2**-8 + 3e-7
    assert np.abs(widen(narrow(sent["a"] + moved)) - sent["a"] - moved).max() > 1e-4  # what weights themselves would do


@pytest.mark.parametrize(("travels", "agreed"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_an_array_that_does_not_travel_as_agreed_is_refused_by_name(travels, agreed):
    arrays = outgoing({"a": np.ones(3, dtype=np.float32)}, WEIGHT, wire=travels)
    with pytest.raises(ProtocolError, match=rf"array travels as .*: weight/a[^$]*\({agreed}\)"):
        incoming(arrays, WEIGHT, wire=agreed)


# --- at the server's door --------------------------------------------------------------------------------------------


def train(change):
    """Changes the arrays of one site's training replies."""
    return lambda kind, envelope: change(envelope) if kind == "train" else envelope


def swapped(envelope, prefix, to):
    arrays = {name: to(array) if name.startswith(prefix) else array for name, array in envelope.arrays.items()}
    return envelope.model_copy(update={"arrays": arrays})


def renamed(envelope):
    arrays = {name.replace(CHANGE, WEIGHT): array for name, array in envelope.arrays.items()}
    return envelope.model_copy(update={"arrays": arrays})


POISON = {
    "changes in 32 bits": (lambda one: swapped(one, CHANGE, widen), "another shape or dtype"),
    "moments in 32 bits": (lambda one: swapped(one, SECOND, widen), "another shape or dtype"),
    "moments as integers": (lambda one: swapped(one, FIRST, lambda bits: bits.astype(np.int64)), "another shape"),
    "weights instead of changes": (renamed, "array missing"),
    "a change that is not a number": (
        lambda one: swapped(one, CHANGE, lambda bits: np.full_like(bits, 0x7FC0)),
        "not a finite number",
    ),
    "an infinite moment": (lambda one: swapped(one, FIRST, lambda bits: np.full_like(bits, 0x7F80)), "not a finite"),
    "a change of 1e30": (
        lambda one: swapped(one, CHANGE, lambda bits: narrow(np.full(bits.shape, 1e30, dtype=np.float32))),
        "within what training can move",
    ),
    "a negative second moment": (
        lambda one: swapped(one, SECOND, lambda bits: bits | np.uint16(0x8000)),
        "second moments",
    ),
}


@pytest.mark.parametrize("name", POISON)
def test_a_poisoned_16_bit_reply_is_refused_with_a_reason(name, tmp_path):
    change, expected = POISON[name]
    plan = toy_plan(roster=("site-a", "site-b", "site-c"), training=NARROW)
    sites = toy_sites(plan, b=train(lambda envelope: change(envelope) if _trains(envelope) else envelope))
    run_study(InProcess(sites), plan=plan, root=tmp_path)
    refused = [event for event in read(tmp_path / "journal.jsonl") if event["event"] == "refused"]
    assert {event["site"] for event in refused} == {"site-b"}
    assert all(expected in " ".join(event["problems"]) for event in refused)


def _trains(envelope):
    return any(name.startswith(CHANGE) for name in envelope.arrays)


def test_the_server_keeps_more_than_16_bits(tmp_path):
    plan = toy_plan(training=NARROW)
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path)
    kept = load(tmp_path / "generator-plain", kind="generator-plain").weights
    assert any((widen(narrow(array)) != array).any() for array in kept.values())
    whole = toy_plan(training=NARROW.model_copy(update={"wire": "float32"}))
    run_study(InProcess(toy_sites(whole)), plan=whole, root=tmp_path / "whole")
    same = load(tmp_path / "whole" / "generator-plain", kind="generator-plain").weights
    for name, array in kept.items():  # toy sites move by the learning rate, whatever they receive
        np.testing.assert_allclose(array, same[name], atol=5 * plan.training.learning_rate * 2**-8)


# --- at a real site --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    plan = real_plan(objective=ObjectiveConfig(weight=0), training=NARROW.model_copy(update={"rounds": 1}))
    transport = Local(make_sites(root, plan))
    run_study(transport, plan=plan, root=root / "server")
    return root, plan, transport


def test_a_study_runs_on_16_bits_and_its_replies_hold_no_weight(study):
    root, _, transport = study
    assert [event for event in read(root / "server" / "journal.jsonl") if event["event"] == "refused"] == []
    trained = [reply for reply in transport.replies if reply.kind == "trained" and _trains(reply)]
    assert len(trained) == 4  # two sites, two arms
    for reply in trained:
        assert not any(name.startswith(WEIGHT) for name in reply.arrays)
        wide = {name for name, array in reply.arrays.items() if array.dtype != np.uint16}
        assert wide == {"soft", "hard"}


def test_a_site_refuses_weights_in_32_bits_where_16_are_agreed(study):
    root, plan, _ = study
    generator = load(root / "server" / "generator-plain", kind="generator-plain")
    body = TrainRequest(
        plan_sha256=plan_sha256(plan),
        vocabulary_sha256=generator.vocabulary.sha256,
        arm="plain",
        round=0,
        epochs=1,
    )
    request = body.pack({**weights_as(generator.weights), "coefficients": np.zeros((5, 2))})
    with pytest.raises(ProtocolError, match=r"another shape or dtype: weight/.*\n.*uint16"):
        site.train(root / "site-a", request)
