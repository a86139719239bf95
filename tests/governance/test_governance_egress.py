"""The one way out: what is on the site's allow-list leaves and is in the ledger; all else is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from governance_stories import COHORT, NOW, OPEN, Desk, a_plan, with_array, with_field

from fairsynth.config import AugmentationConfig, VocabularyConfig
from fairsynth.errors import EgressRefused, NotApproved, PolicyRefusal
from fairsynth.governance import approval, ledger

CANARY = "8812_zz9_canary"


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "site")


def without_field(outgoing, name):
    fields = json.loads(outgoing.text)
    del fields[name]
    return dataclasses.replace(outgoing, text=json.dumps(fields))


def spoilt(array, value):
    array = array.copy()
    array.flat[0] = value
    return array


COUNTS = np.ones((2, 4))
WEIGHT = np.ones((3, 2), dtype=np.float32)

CASES = {  # name -> (the message spoilt, the rule that it breaks)
    "a kind that no policy names": (lambda m: dataclasses.replace(m, kind="rows"), "a kind that may not leave"),
    "a field too many": (lambda m: with_field(m, name="x"), "no field beyond"),
    "a field too few": (lambda m: without_field(m, "bounded"), "trained.bounded"),
    "a field of another type": (lambda m: with_field(m, patients="57"), "a count from 1"),
    "a flag for a count": (lambda m: with_field(m, patients=True), "a count from 1"),
    "a count below its bound": (lambda m: with_field(m, patients=0), "a count from 1"),
    "a count above its bound": (lambda m: with_field(m, patients=10**12), "a count from 1"),
    "a number below its bound": (lambda m: with_field(m, nll_train=-1.0), "a number from 0"),
    "a number where a flag belongs": (lambda m: with_field(m, bounded=1), "a flag"),
    "null for a number": (lambda m: with_field(m, nll_train=None), "a number from 0"),
    "a word that is not one of two": (lambda m: with_field(m, arm=CANARY), "a word like plain"),
    "a word that only begins like one": (lambda m: with_field(m, arm="plain\n" + CANARY), "a word like plain"),
    "the name of another site": (lambda m: with_field(m, site="site-b"), "the site's own name"),
    "the plan of another study": (lambda m: with_field(m, plan_sha256="0" * 64), "the approved plan's hash"),
    "a list for an object": (lambda m: dataclasses.replace(m, text="[1, 2]"), "one JSON object"),
    "no JSON": (lambda m: dataclasses.replace(m, text=CANARY), "one JSON object"),
    "NaN in JSON": (lambda m: with_field(m, nll_train=float("nan")), "no NaN"),
    "a key twice in JSON": (lambda m: dataclasses.replace(m, text=m.text[:-1] + ', "arm": "plain"}'), "no key twice"),
    "an array too many": (lambda m: with_array(m, "rows", COUNTS), "no array beyond"),
    "an array of another type": (lambda m: with_array(m, "soft", COUNTS.astype(np.float32)), "type float64"),
    "text in an array": (lambda m: with_array(m, "soft", np.array([[CANARY] * 4] * 2)), "type float64"),
    "an object in an array": (lambda m: with_array(m, "soft", np.array([[None] * 4] * 2)), "type float64"),
    "one row a patient": (lambda m: with_array(m, "soft", np.ones((57, 4))), r"shape \(groups, 4\)"),
    "an axis too many": (lambda m: with_array(m, "soft", np.ones((2, 4, 1))), r"shape \(groups, 4\)"),
    "a scalar": (lambda m: with_array(m, "soft", np.float64(1)[()] * np.ones(())), r"shape \(groups, 4\)"),
    "a negative count": (lambda m: with_array(m, "soft", spoilt(COUNTS, -1)), "finite values from 0"),
    "NaN in an array": (lambda m: with_array(m, "soft", spoilt(COUNTS, np.nan)), "finite values from 0"),
    "infinity in an array": (lambda m: with_array(m, "weight/embed", spoilt(WEIGHT, np.inf)), "finite values"),
    "a weight out of bounds": (lambda m: with_array(m, "weight/embed", spoilt(WEIGHT, 1e7)), "finite values"),
    "bfloat16 infinity": (lambda m: with_array(m, "change/e", np.array([0x7F80], dtype=np.uint16)), "finite values"),
    "a plain array that is called masked": (
        lambda m: dataclasses.replace(m, masked=frozenset({"soft"})),
        "a masked array of type uint64",
    ),
    "a masked array that is not there": (lambda m: dataclasses.replace(m, masked=frozenset({"gone"})), "that is there"),
    "a message of another study than the approved": (
        lambda m: dataclasses.replace(m, study="0" * 64),
        "approved study",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_on_the_allow_list_is_refused_without_telling_it_and_without_a_line(case, desk):
    spoil, rule = CASES[case]
    before = len(desk.lines())
    with pytest.raises(EgressRefused, match=rule) as refused:
        desk.release(spoil(desk.trained()))
    assert CANARY not in str(refused.value)
    assert len(desk.lines()) == before


def test_an_allowed_message_leaves_and_the_ledger_says_what_when_to_which_study_and_how_much(desk):
    outgoing = desk.trained(epsilon=0.25)
    entry = desk.release(outgoing)
    assert desk.lines()[-1] == entry
    assert (entry.event, entry.kind, entry.study, entry.cohort) == ("released", "trained", desk.study, COHORT)
    assert (entry.time, entry.bytes, entry.sha256) == (NOW.isoformat(), outgoing.bytes, outgoing.sha256)
    assert entry.arrays == {"first/*": 6, "hard": 8, "soft": 8, "weight/*": 6}
    assert (entry.masked, entry.epsilon) == ((), 0.25)
    assert ledger.find_fault(desk.root) is None


def test_arrays_without_values_or_axes_leave_where_the_policy_has_no_shape_for_them(desk):
    empty, scalar = np.ones((0, 3), dtype=np.float32), np.array(0.5, dtype=np.float32)
    half = np.array(0x3F80, dtype=np.uint16)
    message = with_array(
        with_array(with_array(desk.trained(), "weight/a", empty), "weight/b", scalar), "change/c", half
    )
    entry = desk.release(message)
    assert (entry.arrays["weight/*"], entry.arrays["change/*"]) == (7, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "audited"},
        {"text": "{}"},
        {"arrays": {}},
        {"arrays": {"a": np.zeros((2, 3))}},
        {"arrays": {"a": np.zeros((3, 2), dtype=np.float32)}},
        {"arrays": {"b": np.zeros((3, 2))}},
        {"arrays": {"a": -np.zeros((3, 2))}},
    ],
)
def test_the_hash_of_a_message_is_of_its_kind_fields_and_every_arrays_name_type_shape_and_bits(change, desk):
    message = desk.message("trained", {"a": 1}, {"a": np.zeros((3, 2))})
    assert dataclasses.replace(message, label="other").sha256 == message.sha256
    assert dataclasses.replace(message, **change).sha256 != message.sha256


def test_all_that_is_wrong_with_a_message_is_told_at_once(desk):
    message = with_array(with_field(desk.trained(), arm="both", patients=-1), "rows", COUNTS)
    with pytest.raises(EgressRefused) as refused:
        desk.release(message)
    assert {problem.where for problem in refused.value.problems} == {
        "trained.arm",
        "trained.patients",
        "trained:rows",
    }


def test_a_name_that_could_be_a_value_is_not_told(desk):
    with pytest.raises(EgressRefused) as refused:
        desk.release(with_array(with_field(desk.trained(), **{"Patient 8812": 1}), "Patient 8812", COUNTS))
    assert "8812" not in str(refused.value)


# --- masks -----------------------------------------------------------------------------------------------------------


def test_by_the_default_policy_nothing_unmasked_leaves_but_public_fields(tmp_path):
    strict = Desk(tmp_path, policy={})
    with pytest.raises(EgressRefused) as refused:
        strict.release(strict.trained())
    told = {problem.where for problem in refused.value.problems}
    assert {"trained:soft", "trained:weight/embed", "trained.patients", "trained.nll_train"} <= told
    assert not {"trained.site", "trained.arm", "trained.round"} & told
    entry = strict.release(strict.masked())
    assert (entry.arrays, entry.masked) == ({"masked": 50}, ("masked",))


@pytest.mark.parametrize("values", [np.arange(50), -np.arange(50), np.full(50, 2**47 - 1), np.zeros(50)])
def test_plain_numbers_under_a_masked_name_are_refused(values, tmp_path):
    strict = Desk(tmp_path, policy={})
    plain = values.astype(np.int64).astype(np.uint64)
    with pytest.raises(EgressRefused, match="a mask on what is called masked"):
        strict.release(dataclasses.replace(strict.masked(), arrays={"masked": plain}))


def test_a_masked_name_whose_mask_was_not_made_is_refused_even_where_unmasked_records_may_leave(desk):
    with pytest.raises(EgressRefused, match="a mask: unmasked records"):
        desk.release(dataclasses.replace(desk.masked(), masked=frozenset()))


def test_two_different_masked_answers_to_one_request_do_not_both_leave(desk):
    first = desk.masked()
    desk.release(first)
    other = dataclasses.replace(first, arrays={"masked": first.arrays["masked"] + np.uint64(1)})
    with pytest.raises(EgressRefused, match="the same bytes under the same label"):
        desk.release(other)
    desk.release(dataclasses.replace(other, label="sealed_fed_back/1"))


@pytest.mark.parametrize("size", [4, 5, 50])
def test_masks_are_taken_for_masks(size, tmp_path):
    strict = Desk(tmp_path, policy={})
    draw = np.random.default_rng(size)
    for number in range(20):
        values = draw.integers(0, 2**64, size=size, dtype=np.uint64)
        strict.release(dataclasses.replace(strict.masked(label=f"fed_back/{number}"), arrays={"masked": values}))


# --- how often, how much ---------------------------------------------------------------------------------------------


def test_the_same_bytes_to_the_same_request_are_entered_as_sent_again_and_not_counted(tmp_path):
    desk = Desk(tmp_path, policy=OPEN | {"at_most: 500": "at_most: 1"})
    first = desk.release(desk.trained())
    again = desk.release(desk.trained())
    assert (again.event, again.resend_of) == ("resent", first.number)
    with pytest.raises(EgressRefused, match="at most 1 new messages"):
        desk.release(desk.trained(label="trained/1"))


def test_a_new_approval_counts_anew(tmp_path):
    desk = Desk(tmp_path, policy=OPEN | {"at_most: 500": "at_most: 1"})
    desk.release(desk.trained())
    desk.approve()
    desk.release(desk.trained(label="trained/1"))
    with pytest.raises(EgressRefused, match="at most 1 new messages"):
        desk.release(desk.trained(label="trained/2"))


def test_a_message_of_too_many_bytes_is_refused(tmp_path):
    desk = Desk(tmp_path, policy=OPEN | {"most_bytes: 1000000000": "most_bytes: 300"})
    with pytest.raises(EgressRefused, match="at most 300 bytes"):
        desk.release(desk.trained())


def test_too_many_bytes_in_one_study_are_refused(tmp_path):
    size = Desk(tmp_path / "other").trained().bytes
    desk = Desk(tmp_path / "site", policy=OPEN | {"study: 200000000000": f"study: {2 * size - 1}"})
    desk.release(desk.trained())
    with pytest.raises(EgressRefused, match="bytes in one study"):
        desk.release(desk.trained(label="trained/1"))


def test_the_privacy_budget_of_a_study_is_kept_across_approvals_and_sending_again_costs_nothing(tmp_path):
    desk = Desk(tmp_path, policy=OPEN | {"epsilon_budget: null": "epsilon_budget: 1.0"})
    desk.release(desk.trained(epsilon=0.6))
    desk.approve()
    desk.release(desk.trained(epsilon=0.4, label="trained/1"))
    desk.release(desk.trained(epsilon=0.4, label="trained/1"))
    with pytest.raises(EgressRefused, match="epsilon"):
        desk.release(desk.trained(epsilon=0.01, label="trained/2"))
    assert sum(entry.epsilon or 0 for entry in desk.lines()) == 1.0


def test_a_negative_privacy_loss_does_not_refill_the_budget(tmp_path):
    desk = Desk(tmp_path, policy=OPEN | {"epsilon_budget: null": "epsilon_budget: 1.0"})
    for loss in (-1.0, float("nan")):
        with pytest.raises(EgressRefused, match="epsilon"):
            desk.release(desk.trained(epsilon=loss))


# --- studies, cohorts, refusals --------------------------------------------------------------------------------------


def test_without_an_approval_only_a_refusal_leaves(desk):
    with pytest.raises(EgressRefused, match="no approved study"):
        desk.release(desk.trained(), approval=None)
    failed = desk.message("failed", {"site": "site-a", "code": "FS-402"}, {})
    assert desk.release(failed, approval=None).kind == "failed"


@pytest.mark.parametrize("code", ["FS-9999", "patient 8812", "FS-300 patient 8812", "", 300, None])
def test_a_refusal_holds_a_code_and_nothing_else(code, desk):
    with pytest.raises(EgressRefused, match=r"failed\.code"):
        desk.release(desk.message("failed", {"site": "site-a", "code": code}, {}), approval=None)


def test_a_release_of_other_events_than_the_first_is_refused(desk):
    desk.release(desk.trained())
    with pytest.raises(NotApproved, match="cohort"):
        desk.release(desk.trained(label="trained/1", cohort="d" * 64))


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        (a_plan(roster=("site-a", "site-b"), quorum=2), "a study of 2 sites"),
        (a_plan(quorum=2), "a study that goes on with 2 sites"),
        (a_plan(quorum=2, required=("site-a",)), "a study that goes on with 2 sites"),
        (a_plan(augmentation=AugmentationConfig(candidates="taught")), "a study with a teacher"),
        (a_plan(vocabulary=VocabularyConfig(minimum_patients=10)), "codes of too few patients"),
        (a_plan(roster=("site-b", "site-c", "site-d")), "a study without this site"),
    ],
)
def test_a_plan_that_the_policy_forbids_is_not_approved_by_anyone(plan, what, tmp_path):
    with pytest.raises(PolicyRefusal, match=what):
        Desk(tmp_path, plan=plan)
    assert not (tmp_path / "approvals").exists()


def test_a_plan_that_requires_a_site_by_name_is_approved_as_one_that_does_not_and_is_another_study(tmp_path):
    plain, named = a_plan(), a_plan(required=("site-a",))
    assert approval.plan_sha256(plain) != approval.plan_sha256(named)
    desk = Desk(tmp_path, plan=named)
    desk.release(desk.trained())


# --- crashes ---------------------------------------------------------------------------------------------------------

KILLED = """
    import os, signal, sys
    sys.path.insert(0, {stories!r})
    from pathlib import Path
    from governance_stories import Desk
    desk = Desk.__new__(Desk)
    from fairsynth.governance.approval import plan_sha256
    from fairsynth.governance.identity import load_identity
    from governance_stories import Place, a_plan
    root = Path({root!r})
    desk.root, desk.plan = root, a_plan()
    desk.place = Place(root=root, site="site-a", config=root / "config", data=root / "raw")
    desk.study, desk.identity = plan_sha256(desk.plan), load_identity(root)
    message, synced, real = desk.trained(), 0, os.fsync

    def fsync(descriptor):
        global synced
        if synced == {kill_at}:
            os.kill(os.getpid(), signal.SIGKILL)
        synced += 1
        real(descriptor)

    os.fsync = fsync
    desk.release(message)
    os.kill(os.getpid(), signal.SIGKILL)  # it was to be sent now
"""


@pytest.mark.parametrize("kill_at", [0, 1, 2, 99])
def test_a_crash_at_any_write_leaves_a_sound_ledger_and_the_message_is_counted_once(kill_at, tmp_path):
    desk = Desk(tmp_path, policy=OPEN | {"at_most: 500": "at_most: 1"})
    script = KILLED.format(stories=str(Path(__file__).parent), root=str(tmp_path), kill_at=kill_at)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert ledger.find_fault(tmp_path) is None
    entry = desk.release(desk.trained())
    assert entry.event == ("resent" if len(desk.lines()) == 3 else "released")
    assert [line.event for line in desk.lines()].count("released") == 1
    assert ledger.find_fault(tmp_path) is None


def test_part_of_a_line_that_a_crash_left_is_kept_aside_and_told(desk):
    desk.release(desk.trained())
    path = desk.root / ledger.NAME
    with path.open("ab") as handle:
        handle.write(b'{"event":"relea')
    assert ledger.find_fault(desk.root) is None
    assert ledger.has_torn_line(desk.root)
    desk.release(desk.trained(label="trained/1"))
    assert [line.event for line in desk.lines()] == ["approved", "released", "repaired", "released"]
    assert (desk.root / "ledger.torn.1").read_bytes() == b'{"event":"relea'
    assert ledger.find_fault(desk.root) is None
    assert not ledger.has_torn_line(desk.root)
