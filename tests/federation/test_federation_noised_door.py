"""The server's door in a study with noise: noise passes, poison does not."""

from __future__ import annotations

import numpy as np
import pytest
from federation_toys import toy_plan

from fairsynth.config import NoiseConfig, PrivacyConfig, TrainingConfig
from fairsynth.errors import ProtocolError
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
    Envelope,
    NoisedAuditReply,
    NoisedTrainReply,
    PooledAgreeReply,
    PooledEnrolReply,
    TrainRequest,
    weights_as,
)
from fairsynth.federation.noised.door import NoisedDoor
from fairsynth.federation.plans import POOLED, plan_sha256
from fairsynth.generator.model import initial_weights
from fairsynth.governance.noise import UNIT
from fairsynth.visits.cohort import shared_vocabulary

PLAN = toy_plan(
    privacy=PrivacyConfig(profile="noise", noise=NoiseConfig(counted_every=2)), training=TrainingConfig(rounds=3)
)
SHA256 = plan_sha256(PLAN)
MEMBERS = np.array([[900, 120], [300, -4]], dtype=np.int64)  # noise may take a small cell below 0
COHORT = np.stack([MEMBERS, [[100, 12], [-7, 3]], [[90, 9], [40, 2]]]).astype(np.int64)
VOCABULARY = shared_vocabulary(("DX//CCS//1", "DX//CCS//2"), plan=PLAN)
SENT = initial_weights(VOCABULARY, PLAN.generator, seed=1)
DOOR = NoisedDoor(plan=PLAN)


def enrol(members=MEMBERS, **changes) -> Envelope:
    values = {
        "site": POOLED,
        "plan_sha256": SHA256,
        "data_sha256": "a" * 64,
        "codes": {"DX//CCS//1": 2000, "DX//CCS//2": 40},  # more than there are patients: noise
        "visits": 1,
        "flow": {},
        "unused": (0, -3),
    }
    return PooledEnrolReply(**{**values, **changes}).pack({"members": members})


def enrolled(**changes):
    return DOOR.enrolled(enrol(**changes), site=POOLED)


def agreed(cohort=COHORT, **changes):
    values = {"site": POOLED, "plan_sha256": SHA256, "vocabulary_sha256": VOCABULARY.sha256, "unused": (-3, 0, 0)}
    reply = PooledAgreeReply(**{**values, **changes}).pack({"cohort": cohort})
    return DOOR.agreed(reply, enrolled=enrolled(), vocabulary=VOCABULARY)


def asked(number=0, *, arm="fairsynth", epochs=1):
    return TrainRequest(plan_sha256=SHA256, vocabulary_sha256=VOCABULARY.sha256, arm=arm, round=number, epochs=epochs)


def trained(request, *, counts=None, moved=1e-4, arrays=None, **changes):
    """The door's word on a reply to `request`; `arrays` replace some of it, None removes."""
    found = {"counts": counts} if counts is not None else {}
    if request.epochs:
        found |= weights_as({name: array + np.float32(moved) for name, array in SENT.items()}, WEIGHT)
        for prefix in (FIRST, SECOND):
            found |= weights_as({name: np.full_like(array, 1e-6) for name, array in SENT.items()}, prefix)
    found = {name: array for name, array in {**found, **(arrays or {})}.items() if array is not None}
    values = {"site": POOLED, "plan_sha256": SHA256, "arm": request.arm, "round": request.round, "patients": 1313}
    reply = NoisedTrainReply(**{**values, **changes}).pack(found)
    return DOOR.noised(reply, asked=request, sent=SENT, site=agreed())


COUNTS = np.array([[500, 400, -3], [-20, 90, 10]], dtype=np.int64) * UNIT


def test_numbers_that_noise_made_impossible_pass():
    assert enrolled().patients == 1313
    assert agreed().cohort.shape == (3, 2, 2)
    assert trained(asked(), counts=COUNTS).counts[1, 0] == -20


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": MEMBERS.astype(np.float64)},
        {"members": MEMBERS[:1]},
        {"members": MEMBERS - 10_000},
        {"members": MEMBERS + (1 << 41)},
        {"codes": {}},
        {"codes": {"DX//CCS//1": 3}},
        {"codes": {"DX//\n": 2000}},
        {"flow": {"all": 3}},
        {"data_sha256": "z" * 64},
        {"site": "site-a"},
        {"plan_sha256": "b" * 64},
    ],
)
def test_an_enrolment_that_is_none_is_refused(wrong):
    with pytest.raises(ProtocolError):
        enrolled(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cohort": COHORT + 1},
        {"cohort": COHORT[:2]},
        {"mapped_share": 0.5},
        {"vocabulary_sha256": "b" * 64},
        {"unused": (0, 0, 0)},
    ],
)
def test_an_agreement_that_is_none_is_refused(wrong):
    with pytest.raises(ProtocolError):
        agreed(**wrong)


def test_counts_come_when_they_are_due_and_never_else():
    assert trained(asked(0), counts=COUNTS).counts is not None
    assert trained(asked(1)).counts is None
    assert trained(asked(0, arm="plain")).counts is None
    assert trained(asked(3, epochs=0), counts=COUNTS).moments is None
    for request in (asked(1), asked(0, arm="plain")):
        with pytest.raises(ProtocolError):
            trained(request, counts=COUNTS)
    with pytest.raises(ProtocolError):
        trained(asked(0))


NAME = next(iter(sorted(SENT)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"moved": 0.0},
        {"moved": 100.0},
        {"moved": np.nan},
        {"arrays": {f"{WEIGHT}{NAME}": None}},
        {"arrays": {f"{WEIGHT}{NAME}": SENT[NAME][:1]}},
        {"arrays": {f"{SECOND}{NAME}": np.full_like(SENT[NAME], -1.0)}},
        {"arrays": {f"{FIRST}{NAME}": np.full_like(SENT[NAME], 50.0)}},
        {"arrays": {"soft": np.zeros((2, 4))}},
        {"patients": 1312},
        {"round": 1},
        {"arm": "plain"},
        {"site": "site-b"},
    ],
)
def test_a_poisoned_update_is_refused(wrong):
    with pytest.raises(ProtocolError):
        trained(asked(0), counts=COUNTS, **wrong)


def test_of_the_audit_nothing_but_its_end_is_taken():
    reply = NoisedAuditReply(site=POOLED, plan_sha256=SHA256)
    assert DOOR.stayed(reply.pack(), site=agreed()).site == POOLED
    with pytest.raises(ProtocolError):
        DOOR.stayed(reply.pack({"confusion": np.zeros(3, dtype=np.int64)}), site=agreed())
