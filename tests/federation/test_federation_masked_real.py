"""A masked study of three real sites, each behind its own policy, approval and ledger."""

from __future__ import annotations

import json

import numpy as np
import pytest
from federation_real import Local, make_sites, real_plan

from fairsynth.config import AugmentationConfig, PrivacyConfig, TrainingConfig
from fairsynth.federation.journal import read
from fairsynth.federation.masking.local import sign_here
from fairsynth.federation.plans import POOLED
from fairsynth.federation.rounds import run_study
from fairsynth.governance import ledger
from fairsynth.report.build import build
from fairsynth.report.study import read_finished

SITES = ("site-a", "site-b", "site-c")
MINIMUM = 40


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Begun primed, with a teacher, and with groups that are too small; run twice, approved once."""
    root = tmp_path_factory.mktemp("masked")
    plan = real_plan(
        roster=SITES,
        quorum=3,
        privacy=PrivacyConfig(minimum_group=MINIMUM),
        training=TrainingConfig(rounds=1, local_epochs=1, batch_size=32, round_deadline_seconds=300, primed=True),
        augmentation=AugmentationConfig(synthetic_patients=40, candidates="taught"),
    )
    folders = make_sites(root, plan)
    sites = Local(folders)
    for server in ("server", "again"):
        sign_here(plan, folders, server=root / server)
        run_study(sites, plan=plan, root=root / server)
    return root, plan, folders


def test_it_ends_and_names_the_groups_that_it_left_out(study):
    root, _plan, _ = study
    told = read(root / "server" / "journal.jsonl")
    assert told[-1]["event"] == "finished"
    (groups,) = (event for event in told if event["event"] == "groups")
    assert groups["left_out"]
    assert "white" in groups["used"]
    build(root / "server", out=root / "report.html")
    page = (root / "report.html").read_text(encoding="utf-8")
    assert "Left out:" in page
    assert "arrived at its cohort" not in page  # nobody but a site knows its flow
    assert all(name in page for name in groups["left_out"])
    summary = read_finished(root / "server").summary
    assert [scope.scope for scope in summary.scopes] == ["all sites"]
    assert summary.missing == ()


def test_nothing_of_a_group_that_is_left_out_is_in_any_sum_that_the_server_keeps_or_sends(study):
    root, plan, _ = study
    told = read(root / "server" / "journal.jsonl")
    (groups,) = (event for event in told if event["event"] == "groups")
    places = [plan.groups.names.index(name) for name in groups["left_out"]]
    enrolment = json.loads((root / "server" / "enrolment.json").read_text(encoding="utf-8"))
    assert not np.array(enrolment["sites"][POOLED]["cohort"])[:, places].any()
    for event in told:
        for name in ("soft", "hard", "coefficients"):
            if name in event:
                assert not np.array(event[name])[places].any()
    guide = read_finished(root / "server").arrays[POOLED]
    assert not guide["confusion"][:, :, :, :, places].any()
    assert not guide["scores"][:, :, :, places].any()


def test_it_can_be_started_again_without_another_approval_and_gives_the_same_bytes(study):
    root, _, folders = study
    for arm in ("plain", "fairsynth"):
        name = f"generator-{arm}/weights.safetensors"
        assert (root / "server" / name).read_bytes() == (root / "again" / name).read_bytes()
    for folder in folders.values():
        lines = ledger.read(folder)
        assert [line.event for line in lines].count("approved") == 1
        assert [line.kind for line in lines].count("joined") == 2
        assert not [line for line in lines if line.kind == "failed"]
        assert len({line.label for line in lines if line.kind == "sealed_agreed"}) == 2
        assert ledger.find_fault(folder) is None
