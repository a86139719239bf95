"""A masked study: the same results as a plain one, and nothing of one site for a server that plays by other rules."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from federation_toys import GROUPS, PLAIN, InProcess, ToySite, toy_plan, toy_sites
from masked_toys import masked_plan, masked_sites, signed_roster, summed

from fairsynth.config import AugmentationConfig, PrivacyConfig, TrainingConfig
from fairsynth.errors import CohortError, PolicyRefusal, ProtocolError
from fairsynth.federation.flower import decode, encode
from fairsynth.federation.journal import read
from fairsynth.federation.masking.masks import vector_sha256
from fairsynth.federation.masking.outbox import Outbox, Payload
from fairsynth.federation.masking.roster import write_roster
from fairsynth.federation.messages import (
    AgreeRequest,
    EnrolRequest,
    Envelope,
    JoinReply,
    JoinRequest,
    SealedReply,
    TrainReply,
    TrainRequest,
)
from fairsynth.federation.plans import ARMS, POOLED, plan_sha256
from fairsynth.federation.rounds import run_study
from fairsynth.generator import checkpoint
from fairsynth.governance.identity import create_identity

TAUGHT = {
    "training": TrainingConfig(rounds=2, local_epochs=1, round_deadline_seconds=1, primed=True),
    "augmentation": AugmentationConfig(synthetic_patients=10, candidates="taught"),
}


def run_masked(folder: Path, *, backwards: bool = False, sites: str = "abc", wrap=lambda sites: sites, **changes):
    """The server's folder, the journal and the sites of a masked study."""
    plan = masked_plan(sites, **changes)
    members = masked_sites(folder, plan, toy_sites(plan))
    run_study(InProcess(wrap(members), backwards=backwards), plan=plan, root=folder / "server")
    return folder / "server", read(folder / "server" / "journal.jsonl"), members


def run_plain(folder: Path, **changes):
    plan = toy_plan(roster=("site-a", "site-b", "site-c"), quorum=3, privacy=PLAIN, **changes)
    run_study(InProcess(toy_sites(plan)), plan=plan, root=folder)
    return folder, read(folder / "journal.jsonl")


def rounds(events, arm):
    return [event for event in events if event["event"] == "round" and event["arm"] == arm]


def weights(folder, arm):
    return checkpoint.load(folder / f"generator-{arm}", kind=f"generator-{arm}").weights


def test_a_masked_study_ends_with_the_results_of_a_plain_one(tmp_path):
    masked, told, _ = run_masked(tmp_path / "masked", **TAUGHT)
    plain, told_plain = run_plain(tmp_path / "plain", **TAUGHT)
    for arm in ARMS:
        mine, theirs = weights(masked, arm), weights(plain, arm)
        assert all(np.allclose(mine[name], theirs[name], rtol=0, atol=1e-6) for name in theirs)
        for one, other in zip(rounds(told, arm), rounds(told_plain, arm), strict=True):
            assert np.allclose(one["soft"], other["soft"], rtol=1e-6)
            assert one["hard"] == other["hard"]
            assert one["nll_train"] == pytest.approx(other["nll_train"], rel=1e-6)
    chosen, chosen_plain = (next(e for e in events if e["event"] == "planned") for events in (told, told_plain))
    assert chosen["selected"] == chosen_plain["selected"]
    assert chosen["tried"][0]["validation"] == chosen_plain["tried"][0]["validation"]


def test_the_order_of_arrival_changes_nothing_not_a_bit(tmp_path):
    first, told, _ = run_masked(tmp_path / "first")
    second, told_second, _ = run_masked(tmp_path / "second", backwards=True)
    for arm in ARMS:
        assert all(np.array_equal(weights(first, arm)[n], weights(second, arm)[n]) for n in weights(first, arm))
        assert [r["soft"] for r in rounds(told, arm)] == [r["soft"] for r in rounds(told_second, arm)]


def test_every_number_of_a_site_leaves_it_in_the_masked_vector_alone(tmp_path):
    _, _, members = run_masked(tmp_path, **TAUGHT)
    allowed = {"site", "plan_sha256", "of", "run", "epoch", "purpose", "schema_sha256", "said", "signature"}
    said = {"vocabulary_sha256", "arm", "round", "approaches", "predictors", "thresholds", "seeds"}
    for member in members.values():
        kinds = [reply.kind for reply in member.sent]
        assert kinds == ["joined"] + ["sealed"] * (len(kinds) - 1)
        for reply in member.sent[1:]:
            fields = json.loads(reply.fields)
            assert set(fields) == allowed
            assert set(fields["said"]) <= said
            assert [(name, array.dtype) for name, array in reply.arrays.items()] == [("masked", np.uint64)]


def test_neither_journal_nor_enrolment_nor_audit_knows_a_site_by_its_numbers(tmp_path):
    server, told, _ = run_masked(tmp_path)
    enrolment = json.loads((server / "enrolment.json").read_text(encoding="utf-8"))
    assert list(enrolment["sites"]) == [POOLED]
    assert enrolment["sites"][POOLED]["flow"] == {}
    assert [path.stem for path in (server / "audit").glob("*.safetensors")] == [POOLED]
    assert json.loads((server / "audit" / "changes.json").read_text(encoding="utf-8")) == {POOLED: []}
    (line,) = (event for event in told if event["event"] == "enrolled")
    assert list(line["sites"]) == [POOLED]


def test_the_codes_of_all_sites_are_known_and_not_whose_they_are(tmp_path):
    plan = masked_plan()
    toys = toy_sites(plan)
    toys["site-b"].codes = {"DX//CCS//1": 20, "RX//seldom": 11}
    members = masked_sites(tmp_path, plan, toys)
    for toy in toys.values():  # what the audit counts is by the shared vocabulary
        toy.audit = lambda request, audit=toy.audit, toy=toy: with_codes(audit, request, toy, number=4)
    run_study(InProcess(members), plan=plan, root=tmp_path / "server")
    enrolment = json.loads((tmp_path / "server" / "enrolment.json").read_text(encoding="utf-8"))
    assert enrolment["codes"] == ["DX//CCS//1", "DX//CCS//2", "RX//aspirin", "RX//seldom"]


def with_codes(audit, request, toy, *, number):
    toy.codes = dict.fromkeys(map(str, range(number)), 11)
    return audit(request)


# --- groups ----------------------------------------------------------------------------------------------------------


def test_a_group_of_too_few_sites_is_left_out_of_every_sum_and_said_to_be(tmp_path):
    plan = masked_plan(groups=type(toy_plan().groups)(names=(*GROUPS, "asian"), reference=("white",)))
    toys = toy_sites(plan)
    for letter, toy in toys.items():
        toy.members = [*toy.members, [30, 2] if letter != "site-c" else [0, 0]]
    members = masked_sites(tmp_path, plan, toys)
    run_study(InProcess(members), plan=plan, root=tmp_path / "server")
    told = read(tmp_path / "server" / "journal.jsonl")
    (line,) = (event for event in told if event["event"] == "groups")
    assert line["left_out"] == ["asian"]
    enrolment = json.loads((tmp_path / "server" / "enrolment.json").read_text(encoding="utf-8"))
    assert enrolment["left_out"] == ["asian"]
    assert np.array(enrolment["sites"][POOLED]["cohort"])[:, 2].sum() == 0
    for event in told:
        if event["event"] == "round":
            assert event["soft"][2] == [0, 0, 0, 0]
            assert event["coefficients"][2] == [0, 0]
    (enrolled,) = (event for event in told if event["event"] == "enrolled")
    assert enrolled["sites"][POOLED]["patients"] == 136 + 64  # they are patients all the same


def test_a_study_without_two_groups_to_compare_ends_before_training(tmp_path):
    plan = masked_plan(privacy=PrivacyConfig(minimum_group=50))
    members = masked_sites(tmp_path, plan, toy_sites(plan))
    with pytest.raises(CohortError, match="too few groups"):
        run_study(InProcess(members), plan=plan, root=tmp_path / "server")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"roster": ("site-a", "site-b"), "quorum": 2, "privacy": PrivacyConfig()}, "name the `agreement`"),
        ({"privacy": PrivacyConfig(profile="plain"), "roster": ("a", "b", "c"), "quorum": 3}, "name the"),
        ({"privacy": PrivacyConfig(minimum_contributing=1), "roster": ("a", "b", "c"), "quorum": 3}, "agreement"),
        ({"privacy": PrivacyConfig(), "roster": ("a", "b", "c"), "quorum": 2}, "of all sites or of none"),
    ],
)
def test_a_plan_that_leaves_numbers_open_must_name_who_agreed(changes, match):
    with pytest.raises(ValueError, match=match):
        toy_plan(**changes)


# --- a server that plays by other rules ------------------------------------------------------------------------------


class Play:
    """A malicious server: speaks to one site by hand, up to the agree request."""

    def __init__(self, folder: Path, *, patients: int = 136) -> None:
        self.plan, self.patients = masked_plan(), patients
        self.members = masked_sites(folder, self.plan, toy_sites(self.plan))
        self.run = "12" * 32
        join = JoinRequest(plan=self.plan, run=self.run, epoch=0).pack()
        self.keys = tuple(JoinReply.unpack(one(join)).key for one in self.members.values())
        self.enrol = EnrolRequest(plan=self.plan, keys=self.keys).pack()
        self.one = self.members["site-a"]

    def through_agree(self):
        self.one(self.enrol)
        self.agree = AgreeRequest(
            plan_sha256=plan_sha256(self.plan), codes=tuple(self.one.toy.codes), patients=self.patients, visits=270
        ).pack({"members": np.zeros((2, 2), dtype=np.int64)})
        reply = self.one(self.agree)
        self.vocabulary = SealedReply.unpack(reply).said["vocabulary_sha256"]
        return self

    def train(self, *, change=0.0, round=0):
        from fairsynth.generator.model import initial_weights
        from fairsynth.visits.cohort import shared_vocabulary

        vocabulary = shared_vocabulary(tuple(self.one.toy.codes), plan=self.plan)
        weights = initial_weights(vocabulary, self.plan.generator, seed=1)
        body = TrainRequest(
            plan_sha256=plan_sha256(self.plan),
            vocabulary_sha256=self.vocabulary,
            arm="plain",
            round=round,
            epochs=1,
        )
        arrays = {f"weight/{name}": array + np.float32(change) for name, array in weights.items()}
        return body.pack({**arrays, "coefficients": np.zeros((2, 2))})


def same(one: Envelope, other: Envelope) -> bool:
    return one.fields == other.fields and all(np.array_equal(one.arrays[n], other.arrays[n]) for n in one.arrays)


def test_asked_the_same_again_a_site_sends_the_same_bytes_and_does_not_train_again(tmp_path):
    play = Play(tmp_path).through_agree()
    request = play.train()
    first = play.one(request)
    before = len(play.one.toy.asked)
    assert same(play.one(request), first)
    assert len(play.one.toy.asked) == before


def test_asked_another_thing_under_the_same_label_a_site_refuses(tmp_path):
    play = Play(tmp_path).through_agree()
    play.one(play.train())
    with pytest.raises(PolicyRefusal, match="second request under one label"):
        play.one(play.train(change=0.5))


def test_a_reply_that_is_no_longer_kept_is_made_anew_and_is_the_same_bytes(tmp_path):
    play = Play(tmp_path).through_agree()
    first = play.train()
    reply = play.one(first)
    play.one(play.train(round=1))
    trained = len(play.one.toy.asked)
    assert same(play.one(first), reply)
    assert len(play.one.toy.asked) == trained + 1
    assert len((play.one.root / "masking" / "outbox.jsonl").read_text(encoding="utf-8").splitlines()) == 4


def test_a_label_stays_used_when_its_payload_is_gone(tmp_path):
    play = Play(tmp_path).through_agree()
    first = play.train()
    play.one(first)
    play.one(play.train(round=1))
    play.one.toy.members = [[41, 5], [10, 2]]  # another patient than before
    for _ in range(2):
        with pytest.raises(PolicyRefusal, match="another reply than before"):
            play.one(first)


def test_a_dropped_peer_is_seen_before_anything_is_masked(tmp_path):
    play = Play(tmp_path)
    with pytest.raises(ProtocolError, match="keys of other sites"):
        play.one(EnrolRequest(plan=play.plan, keys=play.keys[:-1]).pack())
    assert play.one.toy.asked == []


def test_an_exchanged_key_is_seen_before_anything_is_masked(tmp_path):
    play = Play(tmp_path)
    forged = play.keys[1].model_copy(update={"public_key": "34" * 32})
    with pytest.raises(ProtocolError, match="without a valid signature"):
        play.one(EnrolRequest(plan=play.plan, keys=(play.keys[0], forged, play.keys[2])).pack())
    assert play.one.toy.asked == []


def test_an_altered_roster_is_refused_at_the_site(tmp_path):
    plan = masked_plan()
    members = masked_sites(tmp_path, plan, toy_sites(plan))
    intruders = {site: create_identity(tmp_path / f"new-{site}") for site in plan.roster}
    write_roster(tmp_path / "site-a", signed_roster(plan, intruders))
    with pytest.raises(ProtocolError, match="another key for this site"):
        members["site-a"](JoinRequest(plan=plan, run="12" * 32, epoch=0).pack())


def test_a_roster_of_another_plan_and_another_epoch_are_refused_at_the_site(tmp_path):
    play = Play(tmp_path)
    other = masked_plan(seed=8)
    with pytest.raises(ProtocolError, match="another plan"):
        play.one(JoinRequest(plan=other, run="13" * 32, epoch=0).pack())
    with pytest.raises(PolicyRefusal, match="another epoch"):
        play.one(JoinRequest(plan=play.plan, run="13" * 32, epoch=1).pack())


def test_a_run_that_was_left_cannot_be_joined_again(tmp_path):
    play = Play(tmp_path)
    play.one(JoinRequest(plan=play.plan, run="13" * 32, epoch=0).pack())
    with pytest.raises(PolicyRefusal, match="a run that is over"):
        play.one(JoinRequest(plan=play.plan, run=play.run, epoch=0).pack())


def test_the_same_join_gives_the_same_key_and_another_run_another(tmp_path):
    play = Play(tmp_path)
    again = JoinReply.unpack(play.one(JoinRequest(plan=play.plan, run=play.run, epoch=0).pack())).key
    other = JoinReply.unpack(play.one(JoinRequest(plan=play.plan, run="13" * 32, epoch=0).pack())).key
    assert again == play.keys[0]
    assert other.public_key != again.public_key


def test_a_site_answers_nothing_of_a_masked_study_before_join_and_enrol(tmp_path):
    plan = masked_plan()
    members = masked_sites(tmp_path, plan, toy_sites(plan))
    with pytest.raises(ProtocolError, match="request before join"):
        members["site-a"](EnrolRequest(plan=plan).pack())


def test_a_key_that_others_can_read_is_not_used(tmp_path):
    play = Play(tmp_path)
    (play.one.root / "masking" / "epoch.key").chmod(0o644)
    with pytest.raises(PolicyRefusal, match="others can read"):
        play.one(play.enrol)


def test_two_requests_of_one_study_are_masked_with_other_masks(tmp_path):
    play = Play(tmp_path).through_agree()
    first, second = play.one(play.train()), play.one(play.train(round=1))
    length = len(first.arrays["masked"])
    difference = (first.arrays["masked"] - second.arrays["masked"]).view(np.int64)
    assert (np.abs(difference.astype(float)) > 1 << 40).sum() > 0.99 * length


# --- faults ----------------------------------------------------------------------------------------------------------


class Away:
    """Does not answer its `times` first requests of a kind."""

    def __init__(self, site, *, kind: str, times: int, after: bool = False) -> None:
        self.site, self.kind, self.times, self.after = site, kind, times, after

    def __call__(self, request):
        if request.kind != self.kind or self.times <= 0:
            return self.site(request)
        self.times -= 1
        if self.after:  # the answer is made, and lost on the way
            self.site(request)
        return None


@pytest.mark.parametrize(("kind", "after"), [("join", True), ("enrol", True), ("train", False), ("audit", True)])
def test_a_site_that_was_away_is_asked_again_and_the_results_are_the_same(kind, after, tmp_path):
    golden, _, _ = run_masked(tmp_path / "golden")
    away = lambda sites: {**sites, "site-b": Away(sites["site-b"], kind=kind, times=1, after=after)}  # noqa: E731
    server, told, _ = run_masked(tmp_path / "away", wrap=away)
    assert told[-1]["event"] == "finished"
    for arm in ARMS:
        assert all(np.array_equal(weights(server, arm)[n], weights(golden, arm)[n]) for n in weights(golden, arm))


def test_a_site_that_stays_away_ends_the_study_without_a_sum(tmp_path):
    plan = masked_plan()
    members = masked_sites(tmp_path, plan, toy_sites(plan))
    gone = {**members, "site-b": Away(members["site-b"], kind="train", times=99)}
    with pytest.raises(ProtocolError, match="of all or of none"):
        run_study(InProcess(gone), plan=plan, root=tmp_path / "server")
    assert not [event for event in read(tmp_path / "server" / "journal.jsonl") if event["event"] == "round"]


def damaged(reply: Envelope, what: str) -> Envelope:
    if reply.kind != "sealed":
        return reply
    body, arrays = SealedReply.unpack(reply), dict(reply.arrays)
    if what == "a flipped bit":
        arrays["masked"] = arrays["masked"] ^ np.uint64(1)
    if what == "a vector too short":
        arrays["masked"] = arrays["masked"][:-1]
    if what == "another dtype":
        arrays["masked"] = arrays["masked"].view(np.int64)
    if what == "an array more":
        arrays["soft"] = np.zeros((2, 4))
    changes = {
        "another purpose": {"purpose": "train|plain|9"},
        "another run": {"run": "00" * 32},
        "another epoch": {"epoch": 4},
        "another schema": {"schema_sha256": "00" * 32},
        "another kind": {"of": "audited"},
        "another site": {"site": "site-c"},
        "another plan": {"plan_sha256": "00" * 32},
        "a field more": {"said": {**body.said, "patients": 5}},
        "other words": {"said": dict.fromkeys(body.said, "x")},
        "another signature": {"signature": "00" * 64},
    }.get(what, {})
    return body.model_copy(update=changes).pack(arrays)


DAMAGE = [
    "a flipped bit",
    "a vector too short",
    "another dtype",
    "an array more",
    "another purpose",
    "another run",
    "another epoch",
    "another schema",
    "another kind",
    "another site",
    "another plan",
    "a field more",
    "other words",
    "another signature",
]


@pytest.mark.parametrize(("kind", "what"), [("train", what) for what in DAMAGE] + [("enrol", "a flipped bit")])
def test_a_damaged_masked_reply_is_refused_and_nothing_is_summed(kind, what, tmp_path):
    plan = masked_plan()
    members = masked_sites(tmp_path, plan, toy_sites(plan))
    site = members["site-b"]
    bad = lambda request: damaged(site(request), what) if request.kind == kind else site(request)  # noqa: E731
    with pytest.raises(ProtocolError):
        run_study(InProcess({**members, "site-b": bad}), plan=plan, root=tmp_path / "server")
    told = read(tmp_path / "server" / "journal.jsonl")
    assert [event["site"] for event in told if event["event"] == "refused"] == ["site-b"]
    done = {"enrol": "enrolled", "train": "round"}[kind]
    assert not [event for event in told if event["event"] == done]


def test_who_was_refused_and_says_nothing_more_stays_refused_for_that_reason(tmp_path):
    """Another site is missing, so that all without an accepted reply are asked once more."""
    plan = masked_plan()
    members = masked_sites(tmp_path, plan, toy_sites(plan))
    told = []

    def once(request):
        told.append(request.kind)
        return damaged(members["site-b"](request), "another kind") if told.count("enrol") == 1 else None

    silent = lambda request: None if request.kind == "enrol" else members["site-c"](request)  # noqa: E731
    bad = lambda request: once(request) if request.kind == "enrol" else members["site-b"](request)  # noqa: E731
    with pytest.raises(ProtocolError):
        run_study(InProcess({**members, "site-b": bad, "site-c": silent}), plan=plan, root=tmp_path / "server")
    events = read(tmp_path / "server" / "journal.jsonl")
    codes = {event["site"]: event["code"] for event in events if event["event"] == "refused"}
    assert codes == {"site-b": "FS-302", "site-c": "FS-301"}
    assert told == ["enrol", "enrol"]


def poisoned(field: str):
    def change(kind, envelope):
        if kind != "train":
            return envelope
        arrays = dict(envelope.arrays)
        if field == "hard":
            arrays["hard"] = arrays["hard"] + np.array([0, 0, 0, 1e9])  # TP above P
        body = TrainReply.unpack(envelope)
        if field == "patients":
            body = body.model_copy(update={"patients": body.patients - 1})
        return body.pack(arrays)

    return change


@pytest.mark.parametrize("field", ["hard", "patients"])
def test_a_sum_that_contradicts_itself_is_refused_whole(field, tmp_path):
    plan = masked_plan()
    members = masked_sites(tmp_path, plan, toy_sites(plan, b=poisoned(field)))
    with pytest.raises(ProtocolError, match="breaks a rule"):
        run_study(InProcess(members), plan=plan, root=tmp_path / "server")
    told = read(tmp_path / "server" / "journal.jsonl")
    assert [event["site"] for event in told if event["event"] == "refused"] == [POOLED]


@pytest.mark.parametrize("value", [np.nan, np.inf, 2000.0])
def test_a_weight_out_of_its_bounds_spoils_the_sum_and_tells_not_whose_it_was(value, tmp_path):
    def change(kind, envelope):
        if kind != "train":
            return envelope
        arrays = dict(envelope.arrays)
        name = next(name for name in arrays if name.startswith("weight/"))
        arrays[name] = np.full_like(arrays[name], value)
        return Envelope(kind=envelope.kind, fields=envelope.fields, arrays=arrays)

    plan = masked_plan()
    members = masked_sites(tmp_path, plan, toy_sites(plan, b=change))
    with pytest.raises(ProtocolError, match="out of their bounds"):
        run_study(InProcess(members), plan=plan, root=tmp_path / "server")
    told = read(tmp_path / "server" / "journal.jsonl")
    assert [event["site"] for event in told if event["event"] == "refused"] == [POOLED]
    assert [reply.kind for reply in members["site-b"].sent] == ["joined"] + ["sealed"] * 3


@pytest.mark.parametrize("patients", [1, 30, 136, 10**6])
def test_what_a_server_says_of_the_pooled_patients_moves_no_sites_answer(patients, tmp_path):
    play = Play(tmp_path, patients=patients).through_agree()
    assert SealedReply.unpack(play.one(play.train())).of == "trained"


def test_two_requests_at_once_are_answered_one_after_the_other(tmp_path):
    play = Play(tmp_path).through_agree()
    inside, most = [], []
    train = play.one.toy.train

    def slow(request):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.2)
        inside.pop()
        return train(request)

    play.one.toy.train = slow
    requests = [play.train(), play.train(change=0.25)]
    answers = []

    def ask(request):
        try:
            answers.append(play.one(request))
        except PolicyRefusal as refusal:
            answers.append(refusal)

    threads = [threading.Thread(target=ask, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert sorted(type(answer).__name__ for answer in answers) == ["Envelope", "PolicyRefusal"]


# --- the outbox ------------------------------------------------------------------------------------------------------


def payload_of(text="one"):
    vector = np.arange(3, dtype=np.uint64)
    return Payload(fields=text, vector=vector, vector_sha256=vector_sha256(vector))


def kept(root, label="a", text="one", asked="1" * 64):
    Outbox(root).keep(label, payload_of(text), request_sha256=asked)


def test_the_outbox_keeps_one_payload_for_a_label(tmp_path):
    kept(tmp_path)
    again = Outbox(tmp_path).again("a", request_sha256="1" * 64)
    assert (again.fields, again.vector.tolist()) == ("one", [0, 1, 2])
    assert Outbox(tmp_path).again("b", request_sha256="1" * 64) is None
    with pytest.raises(PolicyRefusal, match="another reply than before"):
        kept(tmp_path, text="two")
    kept(tmp_path)
    assert len((tmp_path / "outbox.jsonl").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize("cut", [1, 2, 30, 80, 200])
def test_a_line_cut_short_by_a_crash_is_as_if_it_was_never_begun(cut, tmp_path):
    kept(tmp_path)
    kept(tmp_path, label="b")
    path = tmp_path / "outbox.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert Outbox(tmp_path).again("b", request_sha256="1" * 64) is None
    kept(tmp_path, label="b", text="new")
    assert Outbox(tmp_path).again("b", request_sha256="1" * 64).fields == "new"
    with pytest.raises(PolicyRefusal):
        Outbox(tmp_path).again("a", request_sha256="3" * 64)


def test_an_outbox_that_was_written_over_is_refused(tmp_path):
    kept(tmp_path)
    path = tmp_path / "outbox.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"label"', '"labul"'), encoding="utf-8")
    with pytest.raises(ProtocolError, match=r"damaged outbox: outbox.jsonl, line 1"):
        Outbox(tmp_path).again("a", request_sha256="1" * 64)


@pytest.mark.parametrize(
    "damage",
    [lambda whole: b"", lambda whole: whole[:-1], lambda whole: whole[:-8], lambda whole: b"x" + whole[1:]],
)
def test_a_payload_that_was_altered_is_not_sent(damage, tmp_path):
    kept(tmp_path)
    (path,) = (tmp_path / "outbox").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert Outbox(tmp_path).again("a", request_sha256="1" * 64) is None
    kept(tmp_path)
    assert path.read_bytes() == whole


def test_masked_messages_pass_through_flowers_records_whole(tmp_path):
    play = Play(tmp_path).through_agree()
    reply = play.one(play.train())
    assert same(decode(encode(reply)), reply)
    assert summed([reply.arrays["masked"]]).dtype == np.int64


@pytest.mark.slow
def test_fifty_sites_end_with_the_results_of_a_plain_study(tmp_path):
    roster = tuple(f"site-{number:02d}" for number in range(50))
    results = {}
    for name, privacy in (("masked", PrivacyConfig()), ("plain", PLAIN)):
        plan = toy_plan(roster=roster, quorum=50, privacy=privacy)
        toys = {site: ToySite(site, [[20 + i, 4], [10, 2 + i % 5]], plan) for i, site in enumerate(roster)}
        server = tmp_path / name / "server"
        members = masked_sites(tmp_path / name, plan, toys) if privacy.masked else toys
        run_study(InProcess(members), plan=plan, root=server)
        results[name] = weights(server, "fairsynth")
    assert all(np.allclose(results["masked"][n], results["plain"][n], rtol=0, atol=1e-6) for n in results["plain"])
