"""The site's boundary: what a server gets out of a site whose study is, or is not, approved."""

from __future__ import annotations

import ast
import json
import shutil

import numpy as np
import pytest
from federation_toys import InProcess, toy_plan
from governed_toys import OPEN, ROOT, site_of

from fairsynth.config import AugmentationConfig, TrainingConfig
from fairsynth.errors import ConfigError, FairSynthError, PolicyRefusal
from fairsynth.federation import boundary
from fairsynth.federation.messages import EnrolRequest, Envelope, Failed, TrainReply, TrainRequest
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study
from fairsynth.governance import ledger
from fairsynth.governance.approval import path_of
from fairsynth.governance.identity import PRIVATE
from fairsynth.governance.policy import TEMPLATE

CANARY = "patient 8812: ZZ9.CANARY"
OURS = "words of our own errors"  # they may be in the site's log, and leave as little


@pytest.fixture
def one(tmp_path):
    site = site_of(tmp_path, toy_plan())
    site.approve()
    return site


def enrolment(plan):
    return EnrolRequest(plan=plan).pack()


def training(plan, *, round=0):
    fields = {"arm": "plain", "round": round, "epochs": 0, "vocabulary_sha256": "0" * 64}
    request = TrainRequest(plan_sha256=plan_sha256(plan), **fields)
    return request.pack({"weight/a": np.ones((2, 2), dtype=np.float32)})


def code_of(envelope: Envelope) -> str:
    return Failed.unpack(envelope).code


STUDIES = {
    "float32": {},
    "bfloat16": {"training": TrainingConfig(rounds=2, round_deadline_seconds=1, wire="bfloat16")},
    "primed": {"training": TrainingConfig(rounds=2, round_deadline_seconds=1, primed=True)},
    "taught": {"augmentation": AugmentationConfig(synthetic_patients=10, candidates="taught")},
}


@pytest.mark.parametrize("case", STUDIES)
def test_every_reply_of_a_whole_study_is_on_the_shipped_allow_list_and_in_the_ledgers(case, tmp_path):
    plan = toy_plan(**STUDIES[case])
    sites = {name: site_of(tmp_path, plan, name=name) for name in plan.roster}
    for site in sites.values():
        site.approve()
    run_study(InProcess(sites), plan=plan, root=tmp_path / "server")
    for site in sites.values():
        kinds = {line.kind for line in site.lines if line.event == "released"}
        wanted = {"enrolled", "agreed", "trained", "audited"} | ({"taught", "fed_back"} if case == "taught" else set())
        assert kinds == wanted
        assert len(site.worked) == sum(line.event in ("released", "resent") for line in site.lines)
        assert {line.cohort for line in site.lines if line.event == "released"} == {"a" * 64}
        assert ledger.find_fault(site.root) is None
        assert not (site.root / "site.log").exists()


def test_the_same_study_again_sends_the_same_bytes_and_the_ledger_says_so(tmp_path):
    plan = toy_plan()
    sites = {name: site_of(tmp_path, plan, name=name) for name in plan.roster}
    for site in sites.values():
        site.approve()
    for number in range(2):
        run_study(InProcess(sites), plan=plan, root=tmp_path / f"server{number}")
    events = [line.event for line in sites["site-a"].lines]
    assert events.count("resent") == events.count("released") == (len(events) - 1) / 2


# --- approval --------------------------------------------------------------------------------------------------------


def test_without_an_approval_no_request_is_worked_on_and_a_code_says_so(tmp_path):
    plan = toy_plan()
    site = site_of(tmp_path, plan)
    other = toy_plan(name="other")
    site.approve(other)
    for request in (enrolment(plan), training(plan)):
        assert code_of(site.ask(request)) == "FS-402"
    assert site.worked == []
    assert "not approved" in site.log[0]["problems"][0]["what"]
    assert [(line.event, line.kind) for line in site.lines[1:]] == [("released", "failed")] * 2


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"quorum": 1}, {"required": ("site-a",)}, {"roster": ("site-a", "site-b", "site-c")}]
)
def test_a_changed_plan_is_refused_before_any_patient_is_looked_at(change, one):
    assert code_of(one.ask(enrolment(toy_plan(**change)))) == "FS-402"
    assert one.worked == []


def test_a_request_that_names_no_study_is_refused(one):
    for fields in ("{}", "[]", "no JSON", '{"plan_sha256": 5}', '{"plan_sha256": "../../identity.key"}'):
        assert code_of(one.ask(Envelope(kind="train", fields=fields))) == "FS-402"
    assert one.worked == []


COHORTS = {
    "other groups": lambda site: (site.root / "config" / "groups.yaml").write_text("# other\n"),
    "another table": lambda site: (site.root / "raw" / "MORE.csv").write_text("ID\n"),
    "other events": lambda site: (setattr(site, "data", "b" * 64), site.write_events()),
}


@pytest.mark.parametrize("case", COHORTS)
def test_another_cohort_than_the_one_that_enrolled_is_refused(case, one):
    assert one.ask(enrolment(one.toy.plan)).kind == "enrolled"
    COHORTS[case](one)
    assert code_of(one.ask(training(one.toy.plan))) == "FS-402"
    assert one.worked == ["enrol"]
    assert "cohort" in one.log[-1]["problems"][0]["what"]


def test_a_second_enrolment_with_other_events_is_refused_and_with_the_same_it_is_sent_again(one):
    request = enrolment(one.toy.plan)
    first, again = one.ask(request), one.ask(request)
    assert (again.fields, again.arrays["members"].tobytes()) == (first.fields, first.arrays["members"].tobytes())
    one.data = "b" * 64
    assert code_of(one.ask(request)) == "FS-402"
    assert [line.event for line in one.lines] == ["approved", "released", "resent", "released"]
    assert one.lines[-1].kind == "failed"


def test_a_changed_policy_needs_another_approval(one):
    path = one.root / "config" / "policy.yaml"
    path.write_text(path.read_text().replace("at_most: 500", "at_most: 501"))
    assert code_of(one.ask(enrolment(one.toy.plan))) == "FS-402"
    one.approve()
    assert one.ask(enrolment(one.toy.plan)).kind == "enrolled"


def test_an_approval_of_another_site_is_none(tmp_path, one):
    other = site_of(tmp_path, one.toy.plan, name="site-b")
    other.approve()
    study = plan_sha256(one.toy.plan)
    shutil.copy(path_of(one.root, study), path_of(other.root, study))
    assert code_of(other.ask(enrolment(one.toy.plan))) == "FS-402"


def test_by_the_strict_policy_a_study_of_two_sites_is_not_approved(tmp_path):
    site = site_of(tmp_path, toy_plan(), policy=TEMPLATE.read_text())
    with pytest.raises(PolicyRefusal, match="a study of 2 sites"):
        site.approve()


# --- what a site needs before anything leaves ------------------------------------------------------------------------

BROKEN = {
    "no policy": (lambda root: (root / "config" / "policy.yaml").unlink(), "FS-401"),
    "an unknown key in the policy": (lambda root: _add(root / "config" / "policy.yaml", "more: 1\n"), "FS-100"),
    "no key": (lambda root: (root / PRIVATE).unlink(), "FS-405"),
    "a key that others can read": (lambda root: (root / PRIVATE).chmod(0o644), "FS-405"),
    "a SuperNode key that others can read": (lambda root: _provisioned(root, mode=0o640), "FS-405"),
    "an altered ledger": (lambda root: _replace(root / ledger.NAME, "Dr. A. Lee", "Dr. B. Lee"), "FS-404"),
    "a cut ledger": (lambda root: (root / ledger.NAME).write_text(""), "FS-404"),
    "a ledger that is gone": (lambda root: (root / ledger.NAME).unlink(), "FS-404"),
}


def _add(path, text):
    path.write_text(path.read_text() + text)


def _provisioned(root, *, mode):
    """As after a grant."""
    (root / "connection.json").write_text("{}")
    (root / "supernode.key").write_text("")
    (root / "supernode.key").chmod(mode)


def _replace(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("case", BROKEN)
def test_a_site_that_cannot_keep_its_rules_says_a_code_and_not_even_its_name(case, one):
    spoil, code = BROKEN[case]
    spoil(one.root)
    reply = one.ask(enrolment(one.toy.plan))
    assert Failed.unpack(reply) == Failed(site="unknown", code=code)
    assert one.worked == []


def test_a_site_with_a_grant_and_private_keys_answers(one):
    _provisioned(one.root, mode=0o600)
    assert one.ask(enrolment(one.toy.plan)).kind != Failed.kind


def test_a_site_without_a_policy_makes_no_key_and_approves_nothing(tmp_path):
    site = site_of(tmp_path, toy_plan())
    (site.root / "config" / "policy.yaml").unlink()
    with pytest.raises(PolicyRefusal, match="FS-401"):
        site.approve()
    assert not (site.root / PRIVATE).exists()


# --- a server whose app asks for more --------------------------------------------------------------------------------


def rows(root, request):
    """What a hypothetical app would like a handler to return: one row a patient."""
    return Envelope(kind="rows", fields='{"site": "site-a"}', arrays={"rows": np.ones((57, 9))})


def rows_among_counts(root, request):
    return _trained(arrays={"rows": np.ones((57, 9))})


def rows_for_counts(root, request):
    return _trained(arrays={"soft": np.ones((57, 4))})


def rows_as_a_weight(root, request):
    return _trained(arrays={"weight/rows": np.ones((57, 9))})


def text_for_a_word(root, request):
    return _trained(arm=CANARY)


def text_as_a_field(root, request):
    envelope = _trained()
    return envelope.model_copy(update={"fields": envelope.fields[:-1] + f', "note": "{CANARY}"' + "}"})


def text_as_a_code(root, request):
    return Envelope(kind="failed", fields=json.dumps({"site": "site-a", "code": CANARY}))


def text_as_an_error(root, request):
    raise KeyError(CANARY)


def text_as_an_error_of_ours(root, request):
    raise ConfigError.of(OURS, where="here")


def _trained(arrays=None, **changes):
    values = {"arm": "plain", "round": 0, "patients": 57, "nll_train": 1.0, "nll_validation": 1.0, "bounded": False}
    values |= {"site": "site-a", "plan_sha256": plan_sha256(toy_plan()), "cells_train": 90, "cells_validation": 9}
    return TrainReply(**values | changes).pack(arrays)


ASKED = {
    rows: "FS-403",
    rows_among_counts: "FS-403",
    rows_for_counts: "FS-403",
    rows_as_a_weight: "FS-403",
    text_for_a_word: "FS-403",
    text_as_a_field: "FS-403",
    text_as_a_code: "FS-403",
    text_as_an_error: "FS-900",
    text_as_an_error_of_ours: "FS-100",
}


@pytest.mark.parametrize("work", ASKED, ids=lambda work: work.__name__)
def test_an_app_that_wants_more_gets_a_code_and_no_more(work, one):
    reply = one.ask(training(one.toy.plan), work=work)
    assert Failed.unpack(reply) == Failed(site="site-a", code=ASKED[work])
    assert reply.arrays == {}
    kept = (one.root / ledger.NAME).read_text() + reply.fields
    assert "CANARY" not in kept
    assert OURS not in kept
    assert [line.kind for line in one.lines if line.event == "released"] == ["failed"]


def test_an_unforeseen_fault_at_the_exit_itself_leaves_as_a_code(one, monkeypatch):
    def fault(*_, **__):
        raise RuntimeError(CANARY)

    monkeypatch.setattr(boundary, "release", fault)
    reply = one.ask(enrolment(one.toy.plan))
    assert Failed.unpack(reply) == Failed(site="unknown", code="FS-900")


def test_a_folder_that_is_none_and_a_request_that_is_none_are_answered_with_codes(one, tmp_path):
    def raises():
        raise FairSynthError.of(OURS, where="there")

    request = enrolment(one.toy.plan)
    assert code_of(boundary.answer(raises, lambda: request, one.work, phase="enrol")) == "FS-000"
    assert code_of(boundary.answer(lambda: one.root, raises, one.work, phase="enrol")) == "FS-000"
    assert code_of(boundary.answer(lambda: tmp_path / "no", lambda: request, one.work, phase="enrol")) == "FS-600"


def test_refusals_end_in_the_ledger_after_which_a_site_gives_no_name(tmp_path):
    before, failed, after = OPEN.rpartition("  failed:")
    policy = before + failed + after.replace("at_most: 200", "at_most: 3")
    site = site_of(tmp_path, toy_plan(), policy=policy)
    site.approve()
    other = enrolment(toy_plan(name="other"))
    names = [Failed.unpack(site.ask(other)).site for _ in range(5)]
    assert names == ["site-a"] * 3 + ["unknown"] * 2
    assert len(site.lines) == 4


def test_the_clients_only_way_to_a_message_is_the_boundary():
    tree = ast.parse((ROOT / "client" / "session.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    messages = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Message"]
    assert len(messages) == 1
    (sent,) = messages[0].args
    assert ast.unparse(sent) == "encode(envelope)"
    (body,) = (node.body for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "answer")
    (made,) = (node for node in body if isinstance(node, ast.Assign))
    assert ast.unparse(made).startswith("envelope = boundary.answer(")
    app = (ROOT / "client" / "app.py").read_text(encoding="utf-8")
    assert "Message(" not in app
