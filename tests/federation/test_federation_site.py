"""What a real site does for each request, in this process."""

from __future__ import annotations

import json

import numpy as np
import pytest
from federation_real import Local, make_sites, real_plan

from fairsynth.config import ObjectiveConfig
from fairsynth.errors import CohortError, ProtocolError
from fairsynth.federation import incoming, site
from fairsynth.federation.guard import guarded
from fairsynth.federation.journal import read
from fairsynth.federation.messages import AgreeRequest, EnrolRequest, Failed, TrainRequest, weights_as
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study
from fairsynth.generator.base_rates import BIAS, base_rates
from fairsynth.generator.checkpoint import load
from fairsynth.generator.model import initial_weights
from fairsynth.visits.cohort import load_cohort


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    plan = real_plan(objective=ObjectiveConfig(weight=0))
    transport = Local(make_sites(root, plan))
    run_study(transport, plan=plan, root=root / "server")
    return root, plan, transport


def test_with_lambda_zero_both_arms_end_in_the_same_model_bit_for_bit(study):
    root, *_ = study
    models = [
        (root / "server" / f"generator-{arm}" / "weights.safetensors").read_bytes() for arm in ("plain", "fairsynth")
    ]
    assert models[0] == models[1]


def test_with_a_weight_the_arms_differ_and_the_plain_one_stays_as_it_was(study, tmp_path):
    root, plan, transport = study
    weighted = real_plan(objective=ObjectiveConfig(weight=5))
    run_study(Local(transport.folders), plan=weighted, root=tmp_path)
    name = "generator-plain/weights.safetensors"
    assert (tmp_path / name).read_bytes() == (root / "server" / name).read_bytes()
    fair = (tmp_path / "generator-fairsynth" / "weights.safetensors").read_bytes()
    assert fair != (tmp_path / name).read_bytes()
    run_study(Local(transport.folders), plan=plan, root=tmp_path / "back")  # leaves the sites as other tests expect


def test_the_sites_hold_nothing_against_the_protocol(study):
    root, *_ = study
    assert [event["event"] for event in read(root / "server" / "journal.jsonl") if event["event"] == "refused"] == []


ALLOWED = {
    "enrolled": {"members"},
    "agreed": {"cohort"},
    "trained": {"soft", "hard"},
    "audited": {"confusion", "scores", "synthetic", "code_visits", "code_totals", "alone"},
}


def test_replies_hold_the_arrays_of_the_protocol_and_none_with_an_axis_of_patients(study):
    root, plan, transport = study
    (enrolled,) = (event for event in read(root / "server" / "journal.jsonl") if event["event"] == "enrolled")
    patients = {site["patients"] for site in enrolled["sites"].values()}
    assert {reply.kind for reply in transport.replies} == set(ALLOWED)
    for reply in transport.replies:
        plain = {
            name: array for name, array in reply.arrays.items() if not name.startswith(("weight/", "first/", "second/"))
        }
        assert set(plain) == ALLOWED[reply.kind]
        assert not patients & {size for array in plain.values() for size in array.shape}
        if reply.kind == "enrolled":
            assert min(json.loads(reply.fields)["codes"].values()) >= plan.vocabulary.minimum_patients


def test_the_same_request_gets_the_same_bytes_again_whatever_happened_between(study):
    root, plan, _ = study
    request = train_request(root, plan)
    first = site.train(root / "site-a", request)
    site.train(root / "site-a", train_request(root, plan, round=1, epochs=0))
    again = site.train(root / "site-a", request)
    assert first.fields == again.fields
    assert all(first.arrays[name].tobytes() == again.arrays[name].tobytes() for name in first.arrays)


def test_without_epochs_a_site_sends_counts_and_no_weights(study):
    root, plan, _ = study
    reply = site.train(root / "site-b", train_request(root, plan, round=1, epochs=0))
    assert set(reply.arrays) == {"soft", "hard"}


def test_a_sites_base_rates_do_not_travel_in_its_weights(study):
    root, plan, _ = study
    request = train_request(root, plan)
    reply = site.train(root / "site-a", request)
    cohort = load_cohort(root / "site-a")
    rates = base_rates(cohort.train, vocabulary=cohort.vocabulary)
    moved = reply.arrays[f"weight/{BIAS}"] - request.arrays[f"weight/{BIAS}"]
    steps = -(-len(cohort.train) // plan.training.batch_size)
    assert np.abs(rates).max() > 4  # most codes are rare
    assert 0 < np.abs(moved).max() < 3 * steps * plan.training.learning_rate  # Adam's steps, and nothing else


def train_request(root, plan, **changes):
    """A request of a study that begins, to sites that have forgotten the one before; or of a later round."""
    if not changes.get("round"):
        for name in plan.roster:
            incoming.forget(root / name)
    generator = load(root / "server" / "generator-plain", kind="generator-plain")
    fields = {"arm": "plain", "round": 0, "epochs": 1, "plan_sha256": plan_sha256(plan), **changes}
    fields = {"vocabulary_sha256": generator.vocabulary.sha256, **fields}
    begun = initial_weights(generator.vocabulary, plan.generator, seed=1)
    arrays = {**weights_as(begun), "coefficients": np.zeros((5, 2))}
    return TrainRequest(**fields).pack(arrays)


@pytest.mark.parametrize("name", ["plan_sha256", "vocabulary_sha256"])
def test_a_request_of_another_study_is_refused_by_the_site(study, name):
    root, plan, _ = study
    with pytest.raises(ProtocolError, match="request of another study"):
        site.train(root / "site-a", train_request(root, plan, **{name: "0" * 64}))


@pytest.mark.parametrize("values", [None, np.zeros((2, 2)), np.full((5, 2), np.nan), np.zeros((5, 2), np.float32)])
def test_coefficients_that_are_none_are_refused_by_the_site(study, values):
    root, plan, _ = study
    request = train_request(root, plan)
    request.arrays.pop("coefficients")
    if values is not None:
        request.arrays["coefficients"] = values
    with pytest.raises(ProtocolError, match="coefficients"):
        site.train(root / "site-a", request)


def test_weights_that_do_not_fit_are_refused_by_the_site(study):
    root, plan, _ = study
    request = train_request(root, plan)
    request.arrays.pop(next(name for name in request.arrays if name.startswith("weight/")))
    with pytest.raises(ProtocolError):
        site.train(root / "site-a", request)


def test_a_site_takes_no_part_in_a_study_that_does_not_name_it(study):
    root, *_ = study
    plan = real_plan(roster=("site-b", "site-c"))
    with pytest.raises(ProtocolError, match="not in the plan's roster"):
        site.enrol(root / "site-a", EnrolRequest(plan=plan).pack())


def test_agreeing_before_enrolling_is_answered_with_a_code(tmp_path):
    (tmp_path / "site.json").write_text(json.dumps({"site": "site-a", "config": "/c", "data": "/d"}))
    request = AgreeRequest(plan_sha256="0" * 64, codes=("a",), patients=1, visits=1).pack()
    reply = guarded(lambda: tmp_path, lambda root: site.agree(root, request), phase="agree")
    assert Failed.unpack(reply) == Failed(site="site-a", code="FS-600")


def test_a_group_that_no_site_has_ends_a_real_study_with_one_clear_error(study, tmp_path):
    _, plan, transport = study
    groups = plan.groups.model_copy(update={"names": (*plan.groups.names, "martian")})
    odd = plan.model_copy(update={"groups": groups})
    with pytest.raises(CohortError, match=r"a group with nobody in it: groups\.names -> martian"):
        run_study(Local(transport.folders), plan=odd, root=tmp_path)
    run_study(Local(transport.folders), plan=plan, root=tmp_path / "back")
