"""The server's loop against toy sites."""

from __future__ import annotations

import json

import numpy as np
import pytest
from federation_toys import CODES, PLAIN, InProcess, ToySite, toy_changes, toy_plan, toy_sites
from masked_toys import masked_plan
from safetensors.numpy import load_file

from fairsynth.config import GeneratorConfig, ObjectiveConfig, TrainingConfig
from fairsynth.errors import CohortError, ConfigError, ProtocolError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.federation.aggregate import weights_sha256
from fairsynth.federation.agreement import check_size
from fairsynth.federation.journal import read
from fairsynth.federation.messages import Failed
from fairsynth.federation.plans import plan_sha256, reference_mask
from fairsynth.federation.rounds import run_study
from fairsynth.generator.checkpoint import load
from fairsynth.visits.cohort import shared_vocabulary


def rounds_of(root, arm):
    return [event for event in read(root / "journal.jsonl") if event["event"] == "round" and event["arm"] == arm]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("server")
    plan = toy_plan()
    sites = toy_sites(plan)
    events = []
    run_study(InProcess(sites), plan=plan, root=root, progress=events.append)
    return root, plan, sites, events


def test_a_study_leaves_every_artefact_that_the_report_reads(finished):
    root, plan, _, _ = finished
    assert {path.name for path in root.iterdir()} == {
        ".server.lock",
        "run.json",
        "plan.json",
        "journal.jsonl",
        "activity.json",
        "server.log",
        "enrolment.json",
        "rounds",
        "generator-plain",
        "generator-fairsynth",
        "audit",
    }
    enrolment = json.loads((root / "enrolment.json").read_text())
    assert enrolment["sites"]["site-a"]["cohort"][0] == [[40, 5], [10, 2]]
    assert enrolment["codes"] == ["DX//CCS//1", "DX//CCS//2", "RX//aspirin"]
    assert sorted(path.name for path in (root / "audit").glob("*.safetensors")) == [
        "site-a.safetensors",
        "site-b.safetensors",
    ]
    assert load_file(root / "audit" / "site-a.safetensors")["confusion"].shape == (4, 1, 2, 2, 2, 4)
    axes = json.loads((root / "audit" / "axes.json").read_text())
    assert not {"site", "changes"} & set(axes)
    assert axes["plan_sha256"] == plan_sha256(plan)
    told = json.loads((root / "audit" / "changes.json").read_text())
    assert told == {
        site: [change.model_dump(mode="json") for change in toy_changes(plan, counts(root, site))]
        for site in ("site-a", "site-b")
    }


def counts(root, site):
    return load_file(root / "audit" / f"{site}.safetensors")["confusion"]


def test_the_journal_tells_the_study_in_order_and_progress_hears_the_same(finished):
    root, _, _, heard = finished
    events = read(root / "journal.jsonl")
    assert [event["event"] for event in events] == [
        "study",
        "enrolled",
        "agreed",
        *["round"] * 6,
        "auditing",
        "audited",
        "finished",
    ]
    assert json.loads(json.dumps(heard)) == events


def test_each_arm_has_its_rounds_and_a_last_count_without_training(finished):
    root, _, sites, _ = finished
    for arm in ("plain", "fairsynth"):
        assert [line["round"] for line in rounds_of(root, arm)] == [0, 1, 2]
        last = rounds_of(root, arm)[-1]
        kept = load(root / f"generator-{arm}", kind=f"generator-{arm}")
        assert last["weights_sha256"] == weights_sha256(kept.weights)
    epochs = [json.loads(request.fields)["epochs"] for request in sites["site-a"].asked if request.kind == "train"]
    assert epochs == [1, 1, 0, 1, 1, 0]


def test_both_arms_start_from_the_same_model(finished):
    root, *_ = finished
    assert rounds_of(root, "plain")[0]["weights_sha256"] == rounds_of(root, "fairsynth")[0]["weights_sha256"]
    assert rounds_of(root, "plain")[1]["weights_sha256"] != rounds_of(root, "fairsynth")[1]["weights_sha256"]


def test_statistics_are_summed_over_sites(finished):
    root, *_ = finished
    soft = np.array(rounds_of(root, "plain")[0]["soft"])
    assert soft[:, 0].tolist() == [69, 30]  # 45 + 24 and 12 + 18
    assert soft[:, 1].tolist() == [138, 60]


def test_the_coefficients_of_a_round_come_from_the_counts_of_the_round_before(finished):
    root, plan, _, _ = finished
    plain, fair = rounds_of(root, "plain"), rounds_of(root, "fairsynth")
    expected = [
        coefficients(plan.objective, np.array(line["soft"]), reference=reference_mask(plan)).values.tolist()
        for line in (plain[0], fair[0])
    ]
    assert fair[0]["coefficients"] == expected[0]
    assert (fair[0]["strength"], plain[0]["strength"]) == (1, None)
    turned = (np.array(expected[0]) * np.array(expected[1])).sum() < 0
    assert fair[1]["strength"] == (0.5 if turned else 1)
    assert fair[1]["coefficients"] == (np.array(expected[1]) * fair[1]["strength"]).tolist()
    assert fair[0]["soft"] == plain[0]["soft"]
    assert not np.any([line["coefficients"] for line in plain])


def test_losses_are_per_visit_over_all_sites(finished):
    root, *_ = finished
    line = rounds_of(root, "plain")[0]
    assert line["nll_train"] == pytest.approx(1000 / (57 + 90 + 42 + 90))
    assert line["nll_validation"] == pytest.approx(80 / 40)


def test_the_order_of_arrival_changes_no_byte(finished, tmp_path):
    root, plan, *_ = finished
    run_study(InProcess(toy_sites(plan), backwards=True), plan=plan, root=tmp_path)
    for arm in ("plain", "fairsynth"):
        name = f"generator-{arm}/weights.safetensors"
        assert (root / name).read_bytes() == (tmp_path / name).read_bytes()
        assert [(a["soft"], a["weights_sha256"]) for a in rounds_of(root, arm)] == [
            (b["soft"], b["weights_sha256"]) for b in rounds_of(tmp_path, arm)
        ]


def test_without_a_fairness_weight_the_sites_get_coefficients_but_a_plain_arm_never_does(tmp_path):
    plan = toy_plan(objective=ObjectiveConfig(weight=0))
    sites = toy_sites(plan)
    run_study(InProcess(sites), plan=plan, root=tmp_path)
    for request in sites["site-b"].asked:
        if request.kind == "train" and json.loads(request.fields)["arm"] == "plain":
            assert not request.arrays["coefficients"].any()


def test_a_group_with_nobody_in_it_at_any_site_stops_the_study_before_training(tmp_path):
    plan = toy_plan()
    sites = {name: ToySite(name, [[30, 5], [0, 0]], plan) for name in plan.roster}
    with pytest.raises(CohortError, match=r"a group with nobody in it: groups\.names -> black"):
        run_study(InProcess(sites), plan=plan, root=tmp_path)
    assert not any(request.kind == "train" for request in sites["site-a"].asked)
    assert read(tmp_path / "journal.jsonl")[-1]["code"] == "FS-250"


def test_a_task_without_positives_stops_the_study(tmp_path):
    plan = toy_plan()
    sites = {name: ToySite(name, [[30, 0], [10, 0]], plan) for name in plan.roster}
    with pytest.raises(CohortError, match="a task without positives"):
        run_study(InProcess(sites), plan=plan, root=tmp_path)


def silent_from(round_number):
    """Gone from that training round on."""

    def poison(kind, envelope):
        gone = kind == "audit" or (kind == "train" and json.loads(envelope.fields)["round"] >= round_number)
        return None if gone else envelope

    return poison


def test_below_quorum_the_study_stops_and_names_the_site_and_its_code(tmp_path):
    plan = toy_plan()
    with pytest.raises(ProtocolError, match=r"site-b: FS-301 no reply in time") as caught:
        run_study(InProcess(toy_sites(plan, b=silent_from(1))), plan=plan, root=tmp_path)
    assert "train, arm plain, round 1" in str(caught.value)
    assert [event["event"] for event in read(tmp_path / "journal.jsonl")][-2:] == ["refused", "failed"]
    assert not (tmp_path / "generator-plain").exists()


def test_with_a_quorum_the_study_goes_on_without_the_missing_site_and_says_so(tmp_path):
    plan = toy_plan(roster=("site-a", "site-b", "site-c"))
    run_study(InProcess(toy_sites(plan, b=silent_from(1))), plan=plan, root=tmp_path)
    assert [line["sites"] for line in rounds_of(tmp_path, "plain")] == [
        ["site-a", "site-b", "site-c"],
        ["site-a", "site-c"],
        ["site-a", "site-c"],
    ]
    refused = [event for event in read(tmp_path / "journal.jsonl") if event["event"] == "refused"]
    assert {(event["site"], event["code"]) for event in refused} == {("site-b", "FS-301")}
    assert read(tmp_path / "journal.jsonl")[-1]["event"] == "finished"


@pytest.mark.parametrize(
    ("roster", "quorum", "told"),
    [(("site-a", "site-b", "site-c"), 2, "no study without site-b"), (("site-a", "site-b"), 2, "no study without")],
)
def test_without_a_site_that_must_be_there_the_study_stops_in_one_line_also_where_the_number_is_reached(
    roster, quorum, told, tmp_path
):
    plan = toy_plan(roster=roster, quorum=quorum, required=("site-b",))
    with pytest.raises(ProtocolError) as caught:
        run_study(InProcess(toy_sites(plan, b=silent_from(1))), plan=plan, root=tmp_path)
    (problem,) = caught.value.problems
    first, *_ = str(caught.value).splitlines()
    assert told in first
    assert first.endswith(
        "train, arm plain, round 1; site-b: FS-301 no reply in time (if its SuperNode is online, restart that)"
    )
    assert problem.expected == "all required sites: site-b"
    assert len(rounds_of(tmp_path, "plain")) == 1
    assert [event["event"] for event in read(tmp_path / "journal.jsonl")][-2:] == ["refused", "failed"]


def test_a_study_goes_on_without_a_site_that_it_does_not_require(tmp_path):
    plan = toy_plan(roster=("site-a", "site-b", "site-c"), required=("site-a", "site-c"))
    run_study(InProcess(toy_sites(plan, b=silent_from(1))), plan=plan, root=tmp_path)
    first, *_, last = read(tmp_path / "journal.jsonl")
    assert first["required"] == ["site-a", "site-c"]
    assert last["event"] == "finished"


def test_several_sites_that_must_be_there_are_named_together(tmp_path):
    plan = toy_plan(roster=("site-a", "site-b", "site-c"), required=("site-a", "site-b"))
    sites = toy_sites(plan, a=silent_from(0), b=silent_from(0))
    with pytest.raises(
        ProtocolError, match=r"no study without site-a, site-b: train, .*site-a: .*; site-b: "
    ) as caught:
        run_study(InProcess(sites), plan=plan, root=tmp_path)
    assert len(caught.value.problems) == 1


def test_a_site_that_must_be_there_and_comes_back_lets_the_study_go_on(tmp_path):
    plan = toy_plan(roster=("site-a", "site-b", "site-c"), required=("site-b",))
    with pytest.raises(ProtocolError):
        run_study(InProcess(toy_sites(plan, b=silent_from(1))), plan=plan, root=tmp_path / "stopped")
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path / "stopped", resume=True)
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path / "whole")
    for arm in ("plain", "fairsynth"):
        weights = [
            load(tmp_path / run / f"generator-{arm}", kind=f"generator-{arm}").weights for run in ("stopped", "whole")
        ]
        assert weights_sha256(weights[0]) == weights_sha256(weights[1])


def test_a_site_that_drops_out_between_enrolment_and_agreement_is_left_out_of_the_totals(tmp_path):
    plan = toy_plan(roster=("site-a", "site-b", "site-c"))
    sites = toy_sites(plan, b=lambda kind, envelope: None if kind == "agree" else envelope)
    run_study(InProcess(sites), plan=plan, root=tmp_path)
    agreed = [json.loads(request.fields) for request in sites["site-a"].asked if request.kind == "agree"]
    assert [request["patients"] for request in agreed] == [57 + 42 + 37, 57 + 37]
    assert set(json.loads((tmp_path / "enrolment.json").read_text())["sites"]) == {"site-a", "site-c"}


def test_a_failure_code_of_a_site_is_told_but_other_text_in_its_place_is_not(tmp_path):
    plan = toy_plan()
    for code, told in (("FS-250", "FS-250"), ("CANARY patient 17", "FS-302")):
        failed = lambda kind, envelope, code=code: Failed(site="site-b", code=code).pack()  # noqa: E731
        with pytest.raises(ProtocolError, match=f"site-b: {told}") as caught:
            run_study(InProcess(toy_sites(plan, b=failed)), plan=plan, root=tmp_path / told)
        assert "CANARY" not in str(caught.value)
        assert "CANARY" not in (tmp_path / told / "journal.jsonl").read_text()


def test_codes_of_all_sites_are_united_and_the_commonest_kept(tmp_path):
    plan = toy_plan(vocabulary={"maximum_codes": 2})
    sites = toy_sites(plan)
    sites["site-b"].codes = {"DX//CCS//9": 35, "DX//CCS//2": 11}
    with pytest.raises(ProtocolError):  # the toy audit counts its own codes, and is refused for it
        run_study(InProcess(sites), plan=plan, root=tmp_path)
    assert json.loads((tmp_path / "enrolment.json").read_text())["codes"] == ["DX//CCS//2", "DX//CCS//9"]


LARGE = GeneratorConfig(embedding=1024, layers=8, heads=4, maximum_visits=4)  # 400 MB of weights


def test_a_generator_that_fits_no_message_is_refused_before_training(tmp_path):
    plan = toy_plan(generator=LARGE)
    sites = toy_sites(plan)
    with pytest.raises(
        ConfigError, match=r"choose a smaller generator, or, in a plain study, training\.wire: bfloat16"
    ):
        run_study(InProcess(sites), plan=plan, root=tmp_path)
    assert {request.kind for site in sites.values() for request in site.asked} == {"enrol", "agree"}
    assert read(tmp_path / "journal.jsonl")[-1]["event"] == "failed"


def test_numbers_of_16_bits_leave_room_for_a_larger_generator_and_masks_for_a_smaller_one():
    short = toy_plan(generator=LARGE, training=TrainingConfig(wire="bfloat16"))
    check_size(short, shared_vocabulary(CODES, plan=short))
    masked = masked_plan(generator=GeneratorConfig(embedding=1024, layers=4, heads=4))  # 200 MB of weights
    with pytest.raises(ConfigError, match="largest message"):
        check_size(masked, shared_vocabulary(CODES, plan=masked))
    plain = masked.model_copy(update={"privacy": PLAIN})
    check_size(plain, shared_vocabulary(CODES, plan=plain))
