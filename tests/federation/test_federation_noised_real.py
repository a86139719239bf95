"""A study with noise of two real sites, whole, each behind its own policy, budget, approval and ledger."""

from __future__ import annotations

import json

import numpy as np
import pytest
from federation_real import Local, make_sites, real_plan

from fairsynth.config import NoiseConfig, PrivacyConfig, TrainingConfig, VocabularyConfig
from fairsynth.errors import NotApproved, PolicyRefusal, ProtocolError
from fairsynth.federation import boundary, site
from fairsynth.federation.journal import read
from fairsynth.federation.masking.local import sign_here
from fairsynth.federation.masking.session import alone
from fairsynth.federation.messages import EnrolRequest, SealedReply
from fairsynth.federation.noised.household import limit_of
from fairsynth.federation.noised.releases import CELLS, releases_of
from fairsynth.federation.noised.site import noised
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study
from fairsynth.federation.site_folder import read_site_folder
from fairsynth.governance import budget, ledger
from fairsynth.governance.budget import Budget
from fairsynth.governance.policy import read_policy
from fairsynth.report.build import build
from fairsynth.visits.cohort import load_cohort

EPSILON, ROUNDS = 10.0, 2


def noised_plan(**changes):
    """Small hospitals, so that epsilon is large and mostly for counts."""
    noise = NoiseConfig(counts_share=0.6, counted_every=2, batch_share=0.2, steps=2)
    return real_plan(
        privacy=PrivacyConfig(profile="noise", epsilon=EPSILON, noise=noise),
        training=TrainingConfig(rounds=ROUNDS, round_deadline_seconds=300),
        vocabulary=VocabularyConfig(minimum_patients=11, maximum_codes=120),
        **changes,
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Run twice under one approval."""
    root = tmp_path_factory.mktemp("noised")
    plan = noised_plan()
    folders = make_sites(root, plan, patients=900)
    sites = Local(folders)
    for server in ("server", "again"):
        sign_here(plan, folders, server=root / server)
        run_study(sites, plan=plan, root=root / server)
    return root, plan, folders


def told(root, event):
    return [line for line in read(root / "server" / "journal.jsonl") if line["event"] == event]


def budget_of(folder):
    return Budget(folder, limit=limit_of(read_policy(read_site_folder(folder).config)))


def test_it_ends_with_generators_and_without_results(study):
    root, _, _ = study
    assert told(root, "finished")
    assert (root / "server" / "generator-fairsynth" / "weights.safetensors").is_file()
    assert not (root / "server" / "audit").exists()
    assert told(root, "audited")[-1]["at_home"]


def test_each_site_has_its_own_results_at_home(study):
    for folder in study[2].values():
        assert (folder / "audit" / "counts.safetensors").is_file()
        assert (folder / "synthetic").is_dir()


def test_every_release_was_charged_once_and_all_of_them_come_to_the_epsilon_of_the_plan(study):
    _, plan, folders = study
    expected = releases_of(plan)
    for folder in folders.values():
        entries = budget_of(folder).entries()
        assert sorted(entry["label"] for entry in entries) == sorted(expected.by_label)
        assert budget_of(folder).epsilon().tight == pytest.approx(expected.epsilon().tight)
        assert budget_of(folder).epsilon().tight <= EPSILON


def test_the_ledger_adds_up_to_what_the_budget_was_charged(study):
    for folder in study[2].values():
        spent = sum(entry.epsilon or 0.0 for entry in ledger.read(folder))
        assert spent == pytest.approx(budget_of(folder).told())
        assert ledger.find_fault(folder) is None


def test_started_again_it_gives_the_same_bytes_and_costs_nothing(study):
    root, _, folders = study
    for arm in ("plain", "fairsynth"):
        name = f"generator-{arm}/weights.safetensors"
        assert (root / "server" / name).read_bytes() == (root / "again" / name).read_bytes()
    for folder in folders.values():
        assert [entry.event for entry in ledger.read(folder)].count("approved") == 1


def test_the_server_has_sums_of_noised_numbers_and_no_exact_one(study):
    root, plan, folders = study
    (entry,) = json.loads((root / "server" / "enrolment.json").read_text(encoding="utf-8"))["sites"].values()
    assert entry["mapped_share"] is None
    assert entry["flow"] == {}
    exact = sum(cells_of(folder, plan) for folder in folders.values())
    noised = np.array(entry["cohort"])
    assert noised.shape == exact.shape
    assert not np.array_equal(noised, exact)
    deviation = releases_of(plan).cells_deviation(sites=2)
    assert np.abs(noised - exact).max() < 6 * deviation
    for line in told(root, "round"):
        assert line["nll_train"] is line["nll_validation"] is line["hard"] is None
        assert (line["soft"] is not None) == (line["arm"] == "fairsynth" and line["round"] in (0, 2))


def cells_of(folder, plan):
    """(3, G, 2) exact patients of a site."""
    cohort, found = load_cohort(folder), np.zeros((3, len(plan.groups.names), 2), dtype=np.int64)
    for split, records in enumerate((cohort.train, cohort.validation, cohort.held_out)):
        np.add.at(found[split], (records.group, records.label), 1)
    return found


def test_the_report_tells_what_a_patient_was_charged(study):
    root, plan, _ = study
    page = build(root / "server", out=root / "report.html").read_text(encoding="utf-8")
    assert f"epsilon {releases_of(plan).epsilon().tight:.3g} and delta 1e-06 for one patient of one site" in page


def test_a_lost_budget_lets_nothing_leave(study, tmp_path):
    """It would forget what was told: a new one knows of less than the ledger."""
    _, plan, folders = study
    (folder, *_) = folders.values()
    kept = (folder / budget.NAME).read_bytes()
    (folder / budget.NAME).unlink()
    Budget.begin(folder, limit=limit_of(read_policy(read_site_folder(folder).config)))
    try:
        request = EnrolRequest(plan=plan).pack()
        gate = boundary.admit(folder, request)
        with pytest.raises(PolicyRefusal, match="knows of less"):
            gate.leave(sealed(plan, folder))
    finally:
        (folder / budget.NAME).write_bytes(kept)


def sealed(plan, folder):
    """A reply that the site's policy would let pass."""
    body = SealedReply(
        site=read_site_folder(folder).site,
        plan_sha256=plan_sha256(plan),
        of="audited_at_home",
        run="a" * 64,
        epoch=0,
        purpose="audit",
        schema_sha256="b" * 64,
        signature="c" * 128,
    )
    return body.pack({"masked": np.zeros(1, dtype=np.uint64)})


def test_another_study_finds_what_is_left_of_the_budget(study):
    """Epsilon 10 of 10 is spent: an officer may approve the next plan, and it is refused before it reads a table."""
    _, plan, folders = study
    (folder, *_) = folders.values()
    more = plan.model_copy(update={"seed": plan.seed + 1})
    before = budget_of(folder).entries()
    with alone(folder), pytest.raises(PolicyRefusal, match="exceed the site's privacy budget"):
        noised(folder, EnrolRequest(plan=more).pack(), site.enrol)
    assert budget_of(folder).entries() == before


def test_a_plan_beyond_the_policys_budget_cannot_be_approved(study):
    _, plan, folders = study
    (folder, *_) = folders.values()
    privacy = plan.privacy.model_copy(update={"epsilon": EPSILON + 1})
    with pytest.raises((PolicyRefusal, NotApproved), match="too much privacy"):
        boundary.approve(folder, plan.model_copy(update={"privacy": privacy}), officer="test")


def test_a_request_without_a_noised_reply_is_refused(study):
    _, _, folders = study
    (folder, *_) = folders.values()
    with pytest.raises(ProtocolError, match="without a noised reply"):
        noised(folder, EnrolRequest(plan=study[1]).pack().model_copy(update={"kind": "teach"}), site.enrol)


def test_what_is_told_twice_is_drawn_once(study):
    _, _, folders = study
    for folder in folders.values():
        lines = [json.loads(line) for line in (folder / "drawn.jsonl").read_text().splitlines()]
        labels = [line["entry"]["label"] for line in lines]
        assert len(labels) == len(set(labels))
        assert any(label.endswith(CELLS) for label in labels)
