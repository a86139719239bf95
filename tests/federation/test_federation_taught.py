"""Studies that begin primed and have a teacher: the server's side, against toy sites."""

from __future__ import annotations

import json

import numpy as np
import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from test_federation_validation import array, put

from fairsynth.config import AugmentationConfig, TrainingConfig
from fairsynth.errors import ProtocolError
from fairsynth.fairness.planning import SELECTED, Rule, Trial
from fairsynth.federation.journal import read
from fairsynth.federation.newton import STRENGTHS, log_loss, minimise, sums_of
from fairsynth.federation.plans import reference_mask
from fairsynth.federation.rounds import run_study
from fairsynth.federation.terms import columns, load_terms
from fairsynth.generator.model import initial_weights
from fairsynth.generator.priming import runs
from fairsynth.seeds import stream
from fairsynth.visits.cohort import shared_vocabulary

CODES = ("DX//CCS//1", "DX//CCS//2", "RX//aspirin")
TRIO = ("site-a", "site-b", "site-c")


def guided_plan(**changes):
    training = TrainingConfig(rounds=1, local_epochs=1, round_deadline_seconds=1, primed=True)
    augmentation = AugmentationConfig(synthetic_patients=10, candidates="taught")
    return toy_plan(**{"training": training, "augmentation": augmentation, **changes})


VOCABULARY = shared_vocabulary(CODES, plan=guided_plan())
SIZE = columns(VOCABULARY) + 1


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root, plan = tmp_path_factory.mktemp("server"), guided_plan()
    sites = toy_sites(plan)
    run_study(InProcess(sites), plan=plan, root=root)
    return root, plan, sites


def event(root, name):
    (found,) = (each for each in read(root / "journal.jsonl") if each["event"] == name)
    return found


def pooled(sites, split):
    """Rows and labels of all toy sites together."""
    parts = [site.patients(split, SIZE - 1) for site in sites.values()]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([label for _, label in parts])


def optimum(sites, strength):
    rows, label = pooled(sites, 0)
    start = np.zeros(SIZE)
    return minimise(lambda at: sums_of(rows, label, at), start=start, inverse_strength=strength).weights


def test_teach_and_feedback_come_between_training_and_audit_and_are_told(finished):
    root, _, sites = finished
    kinds = [request.kind for request in sites["site-a"].asked]
    taught, fed = kinds.count("teach"), kinds.count("feedback")
    assert kinds == ["enrol", "agree", *["train"] * 4, *["teach"] * taught, *["feedback"] * fed, "audit"]
    assert [each["event"] for each in read(root / "journal.jsonl")][-6:] == [
        "teaching",
        "taught",
        "planned",
        "auditing",
        "audited",
        "finished",
    ]
    assert event(root, "taught")["requests"] == taught <= 30
    assert fed == len(event(root, "planned")["tried"]) == len(SELECTED) + 1


def test_the_teacher_is_the_optimum_of_all_patients_at_the_strength_of_the_lowest_validation_loss(finished):
    root, plan, sites = finished
    line = event(root, "taught")
    losses = {strength: log_loss(*pooled(sites, 1), optimum(sites, strength)) for strength in STRENGTHS}
    assert line["validation"] == pytest.approx({str(key): loss for key, loss in losses.items()}, rel=1e-5)
    assert line["inverse_strength"] == min(losses, key=losses.__getitem__)
    guide = load_terms(root, plan=plan).guide
    assert guide.teacher == pytest.approx(optimum(sites, line["inverse_strength"]), abs=1e-5)


def test_the_guide_is_the_rules_choice_from_the_pooled_counts(finished):
    root, plan, sites = finished
    cohort = sum(site.cohort for site in sites.values())

    def attempt(selected):
        found = [
            site.feedback(site.asked[-2].model_copy(update={"arrays": {"selected": selected}}))
            for site in sites.values()
        ]
        return Trial(
            selected=selected,
            validation=sum(reply.arrays["validation"] for reply in found),
            seen=sum(reply.arrays["seen"] for reply in found),
        )

    rule = Rule(reference=reference_mask(plan), minimum_positives=plan.audit.minimum_positives)
    choice = rule.choose(attempt)
    line = event(root, "planned")
    assert line["selected"] == choice.kept.selected.tolist()
    assert [trial["seen"] for trial in line["tried"]] == [trial.seen.tolist() for trial in choice.tried]
    assert np.sum(line["tried"][0]["seen"]) == cohort[:2].sum()


def test_what_was_chosen_reaches_every_site_with_the_audit_request(finished):
    root, plan, sites = finished
    guide = load_terms(root, plan=plan).guide
    for site in sites.values():
        request = site.asked[-1]
        assert request.kind == "audit"
        assert request.arrays["teacher"].tobytes() == guide.teacher.tobytes()
        assert request.arrays["selected"].tolist() == guide.selected.tolist()


def test_a_trial_carries_the_fairness_optimised_generator_and_one_share_a_group(finished):
    _, _, sites = finished
    trials = [request for request in sites["site-b"].asked if request.kind == "feedback"]
    audit = sites["site-b"].asked[-1]
    for request in trials:
        for name, sent in request.arrays.items():
            if name.startswith("weight/"):
                assert sent.tobytes() == audit.arrays[f"fairsynth/{name}"].tobytes()
    assert [request.arrays["selected"].tolist() for request in trials[: len(SELECTED)]] == [
        [share] * 2 for share in SELECTED
    ]


def test_the_order_of_arrival_changes_no_byte_of_the_terms(finished, tmp_path):
    root, plan, _ = finished
    run_study(InProcess(toy_sites(plan), backwards=True), plan=plan, root=tmp_path)
    for name in ("terms/guide.safetensors", "terms/exclusive.json", "generator-fairsynth/weights.safetensors"):
        assert (root / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_primed_start_is_not_the_unprimed_one_and_exclusive_runs_travel_with_every_request(finished, tmp_path):
    _, plan, sites = finished
    first = next(request for request in sites["site-a"].asked if request.kind == "train")
    plain = initial_weights(VOCABULARY, plan.generator, seed=stream(plan.seed, "initial-weights"))
    assert any((first.arrays[f"weight/{name}"] != array).any() for name, array in plain.items())
    assert len(runs(VOCABULARY)) == 1  # the two diagnoses
    told_of = [json.loads(request.fields).get("exclusive") for request in sites["site-a"].asked]
    kinds = [request.kind for request in sites["site-a"].asked]
    assert {
        one for kind, one in zip(kinds, map(str, told_of), strict=True) if kind in ("train", "feedback", "audit")
    } == {"[0]"}
    unprimed = toy_plan()
    others = toy_sites(unprimed)
    run_study(InProcess(others), plan=unprimed, root=tmp_path)
    first = next(request for request in others["site-a"].asked if request.kind == "train")
    assert all(first.arrays[f"weight/{name}"].tobytes() == array.tobytes() for name, array in plain.items())
    assert not (tmp_path / "terms").exists()


def test_one_visit_at_one_site_with_two_codes_of_a_run_makes_the_run_not_exclusive(tmp_path):
    plan = guided_plan()
    sites = toy_sites(plan)
    sites["site-b"].together = 1
    run_study(InProcess(sites), plan=plan, root=tmp_path)
    assert load_terms(tmp_path, plan=plan).exclusive == ()


def leaves_at(kind, number):
    """Gone from that request of that kind on, and for it alone."""
    seen = []

    def poison(asked, envelope):
        if asked == kind:
            seen.append(asked)
        return None if asked == kind and len(seen) >= number else envelope

    return poison


@pytest.mark.parametrize("kind", ["teach", "feedback"])
def test_when_a_site_leaves_in_a_phase_the_others_begin_it_anew_and_the_result_is_theirs(kind, tmp_path):
    plan = guided_plan(roster=TRIO)
    sites = toy_sites(plan, b=leaves_at(kind, 3))
    run_study(InProcess(sites), plan=plan, root=tmp_path / "left")
    told_sites = event(tmp_path / "left", {"teach": "taught", "feedback": "planned"}[kind])["sites"]
    assert told_sites == ["site-a", "site-c"]
    assert read(tmp_path / "left" / "journal.jsonl")[-1]["event"] == "finished"
    guide = load_terms(tmp_path / "left", plan=plan).guide
    if kind == "teach":
        stayed = {name: sites[name] for name in told_sites}
        strength = event(tmp_path / "left", "taught")["inverse_strength"]
        assert guide.teacher == pytest.approx(optimum(stayed, strength), abs=1e-5)
    else:
        seen = np.array(event(tmp_path / "left", "planned")["tried"][0]["seen"])
        assert seen.sum() == sum(sites[name].cohort[:2].sum() for name in told_sites)


def test_below_quorum_a_phase_ends_the_study_and_names_the_site(tmp_path):
    plan = guided_plan()
    with pytest.raises(ProtocolError, match="site-b: FS-301 no reply in time"):
        run_study(InProcess(toy_sites(plan, b=leaves_at("teach", 2))), plan=plan, root=tmp_path)


def test_a_damaged_sum_is_refused_and_the_others_teach_without_that_site(tmp_path):
    bad = array("teach", "hessian", put(-1.0))
    run_study(InProcess(toy_sites(plan := guided_plan(roster=TRIO), b=bad)), plan=plan, root=tmp_path)
    refused = event(tmp_path, "refused")
    assert (refused["site"], refused["code"], refused["phase"]) == ("site-b", "FS-302", "teach, request 1")
    assert event(tmp_path, "taught")["sites"] == ["site-a", "site-c"]
    assert event(tmp_path, "planned")["sites"] == list(TRIO)  # it is asked again in the next phase
