"""A site that comes out of a backup tells nothing a second time otherwise, and its budget forgets nothing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from governed_toys import site_of
from masked_toys import MaskedToySite, masked_plan, masked_sites
from resumed import Stopped, Stopping

from fairsynth.cli import main
from fairsynth.config import NoiseConfig, PrivacyConfig, TrainingConfig
from fairsynth.errors import FairSynthError, PolicyRefusal, ProtocolError, ReleaseBlocked, StateRestored
from fairsynth.federation import boundary
from fairsynth.federation.messages import EnrolRequest, Failed
from fairsynth.federation.noised.household import Household, limit_of
from fairsynth.federation.noised.releases import CELLS, VISITS, releases_of
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study
from fairsynth.governance import ledger
from fairsynth.governance.budget import Budget
from fairsynth.governance.policy import read_policy
from fairsynth.operations.backup import RELEASE_RUNS, backup
from fairsynth.operations.restore import restore, settle
from fairsynth.operations.site_status import site_status
from fairsynth.synthesis.release import runs

SUMS = np.array([40, 5, 10, 2])


def noised_plan(seed=7):
    return toy_plan(
        seed=seed,
        name=f"noised-{seed}",
        privacy=PrivacyConfig(
            profile="noise", epsilon=4.0, noise=NoiseConfig(counts_share=0.6, counted_every=2, steps=2)
        ),
        training=TrainingConfig(rounds=1, local_epochs=1, round_deadline_seconds=1),
    )


def enrolment(plan):
    return EnrolRequest(plan=plan).pack()


def household(root, plan):
    return Household.begin(root, plan, policy=read_policy(boundary.place_of(root).config))


def told(root, plan, label=CELLS):
    """What the site tells under a label: charged, drawn, and in the ledger with its epsilon."""
    gate = boundary.admit(root, enrolment(plan))
    before = budget(root).told() if (root / "budget.jsonl").exists() else 0.0
    values = household(root, plan).noised(label, SUMS, sensitivity=1.0)
    facts = ledger.Facts(event="released", study=gate.study, kind="enrolled", epsilon=budget(root).told() - before)
    with ledger.opened(root, identity=gate.identity) as book:
        book.append(facts, now=boundary._now())
    return values


def budget(root):
    return Budget(root, limit=limit_of(read_policy(boundary.place_of(root).config)))


@pytest.fixture
def site(tmp_path):
    """A site that takes part in a plan with noise, of which one release was told before the backup."""
    plan = noised_plan()
    made = site_of(tmp_path, plan)
    made.approve()
    told(made.root, plan)
    backup(made.root, tmp_path / "site.tar")
    return made


def restored(site, tmp_path):
    restore(tmp_path / "site.tar", tmp_path / "restored")
    return tmp_path / "restored"


def test_the_attack_is_real_where_a_folder_is_put_back_by_hand(site, tmp_path):
    """An older copy of the folder draws new noise for what was told, and its budget does not know of the first."""
    plan = site.toy.plan
    shutil.copytree(site.root, tmp_path / "old")
    first = told(site.root, plan, VISITS)
    again = [told(tmp_path / name, plan, VISITS) for name in ("old",)]
    assert not np.array_equal(first, again[0])
    assert budget(site.root).told() == budget(tmp_path / "old").told()  # each says: told once


def test_a_restored_site_draws_nothing_again_for_a_plan_that_the_backup_knew(site, tmp_path):
    plan = site.toy.plan
    told(site.root, plan, VISITS)  # after the backup
    root = restored(site, tmp_path)
    with pytest.raises(StateRestored, match="FS-407"):
        boundary.admit(root, enrolment(plan))
    with pytest.raises(StateRestored, match="another seed"):
        boundary.approve(root, plan, officer="Dr. A. Lee")
    settle(root, [], officer="Dr. A. Lee")
    with pytest.raises(StateRestored):
        boundary.admit(root, enrolment(plan))


def test_the_server_gets_the_code_and_nothing_else(site, tmp_path):
    root = restored(site, tmp_path)
    worked = []
    reply = boundary.answer(lambda: root, lambda: enrolment(site.toy.plan), lambda *_: worked.append(1), phase="enrol")
    assert Failed.unpack(reply).code == "FS-407"
    assert worked == []


def test_what_the_unfinished_study_may_have_told_is_charged_in_full(site, tmp_path):
    plan = site.toy.plan
    root = restored(site, tmp_path)
    charged = budget(root)
    assert {entry["label"] for entry in charged.entries()} == set(releases_of(plan).by_label)
    assert charged.told() == pytest.approx(charged.epsilon().tight)
    assert charged.told() > budget(site.root).told()
    entries = ledger.read(root)
    assert sum(entry.epsilon or 0.0 for entry in entries) == pytest.approx(charged.told())
    assert [entry.event for entry in entries][-2:] == ["restored", "restored"]
    assert ledger.find_fault(root) is None
    assert ledger.find_fault(root, expected=site.lines[-1].hash) is None  # it goes on from the backup's last line


def test_of_the_noise_that_was_drawn_nothing_is_in_the_backup(site, tmp_path):
    content = (tmp_path / "site.tar").read_bytes()
    assert (site.root / "drawn.key").read_bytes() not in content
    for line in (site.root / "drawn.jsonl").read_bytes().splitlines():
        assert line not in content
    root = restored(site, tmp_path)
    assert (root / "drawn.jsonl").read_bytes() == b""
    assert (root / "drawn.key").read_bytes() != (site.root / "drawn.key").read_bytes()


def test_a_plan_that_the_backup_did_not_know_waits_until_it_is_settled_and_is_charged_then(site, tmp_path):
    """Approved and begun after the backup: the site's folder cannot know, its officer can."""
    lost = noised_plan(seed=8)
    site.approve(lost)
    told(site.root, lost)
    root = restored(site, tmp_path)
    with pytest.raises(StateRestored, match="settle"):
        boundary.approve(root, lost, officer="Dr. A. Lee")
        boundary.admit(root, enrolment(lost))
    before = budget(root).told()
    assert settle(root, [lost], officer="Dr. A. Lee") == [lost.name]
    assert budget(root).told() > before
    with pytest.raises(StateRestored):
        boundary.admit(root, enrolment(lost))
    new = noised_plan(seed=9)
    boundary.approve(root, new, officer="Dr. A. Lee")
    boundary.admit(root, enrolment(new))
    assert sum(entry.epsilon or 0.0 for entry in ledger.read(root)) == pytest.approx(budget(root).told())


def test_the_budget_still_has_its_limit_after_a_restore(site, tmp_path):
    """Two plans of epsilon 4 are charged in full; a third does not fit into 10."""
    root = restored(site, tmp_path)
    settle(root, [noised_plan(seed=8)], officer="Dr. A. Lee")
    new = noised_plan(seed=9)
    policy = boundary.place_of(root).config / "policy.yaml"
    policy.write_text(policy.read_text().replace("epsilon_budget: 10", "epsilon_budget: 5"))
    boundary.approve(root, new, officer="Dr. A. Lee")
    with pytest.raises(PolicyRefusal, match="privacy budget"):
        household(root, new)


def test_a_second_restore_is_settled_anew(site, tmp_path):
    root = restored(site, tmp_path)
    settle(root, [], officer="Dr. A. Lee")
    assert site_status(root, supernode_port=1).settled
    backup(root, tmp_path / "second.tar")
    restore(tmp_path / "second.tar", tmp_path / "twice")
    assert not site_status(tmp_path / "twice", supernode_port=1).settled
    assert budget(tmp_path / "twice").told() == pytest.approx(budget(root).told())  # nothing is charged twice


def test_the_marks_cannot_be_taken_away_without_being_seen(site, tmp_path):
    root = restored(site, tmp_path)
    lines = (root / "ledger.jsonl").read_text().splitlines(keepends=True)
    (root / "ledger.jsonl").write_text("".join(lines[:-2]))
    reply = boundary.answer(lambda: root, lambda: enrolment(site.toy.plan), lambda *_: None, phase="enrol")
    assert Failed.unpack(reply).code == "FS-404"


def test_of_a_plain_study_the_approval_is_void_until_an_officer_renews_it(tmp_path):
    plan = toy_plan()
    made = site_of(tmp_path, plan)
    made.approve()
    backup(made.root, tmp_path / "site.tar")
    made.ask(enrolment(plan))
    root = restored(made, tmp_path)
    with pytest.raises(StateRestored, match="approve again"):
        boundary.admit(root, enrolment(plan))
    boundary.approve(root, plan, officer="Dr. A. Lee")
    boundary.admit(root, enrolment(plan))


def test_a_masked_site_out_of_a_backup_answers_no_label_a_second_time(tmp_path):
    """Its key of the run and its outbox are in no backup: the server that goes on gets nothing masked from it."""
    plan = masked_plan(training=TrainingConfig(rounds=4, local_epochs=1, round_deadline_seconds=1))
    sites = masked_sites(tmp_path, plan, toy_sites(plan))
    server = tmp_path / "server"
    with pytest.raises(Stopped):
        run_study(Stopping(InProcess(sites), number=4, answered=True), plan=plan, root=server)
    backup(tmp_path / "site-a", tmp_path / "site.tar")
    with pytest.raises(Stopped):
        run_study(Stopping(InProcess(sites), number=2, answered=True), plan=plan, root=server, resume=True)
    assert (tmp_path / "site-a" / "masking" / "outbox.jsonl").is_file()
    restore(tmp_path / "site.tar", tmp_path / "restored")
    assert not (tmp_path / "restored" / "masking").exists()
    shutil.copy(tmp_path / "site-a" / "shared.json", tmp_path / "restored")  # so that nothing else stops it
    back = MaskedToySite(tmp_path / "restored", sites["site-a"].toy)
    coded = Coded(back)
    with pytest.raises(ProtocolError):
        run_study(InProcess({**sites, "site-a": coded}), plan=plan, root=server, resume=True)
    assert coded.codes == {"FS-300"}
    assert back.sent == []


class Coded:
    """Answers with a code where the site raises, as its boundary does."""

    def __init__(self, site):
        self.site, self.codes = site, set()

    def __call__(self, request):
        try:
            return self.site(request)
        except FairSynthError as error:
            self.codes.add(error.code)
            return Failed(site="site-a", code=error.code).pack()


def test_a_generator_that_was_before_the_release_gate_is_not_tried_again(site, tmp_path):
    """Its runs since the backup are not known; a generator that comes later has its own."""
    runs.begin(site.root, generator="a" * 64, candidate="c" * 64)
    backup(site.root, tmp_path / "gate.tar")
    restore(tmp_path / "gate.tar", tmp_path / "new")
    with pytest.raises(ReleaseBlocked, match="restored from a backup"):
        runs.begin(tmp_path / "new", generator="a" * 64, candidate="d" * 64)
    assert runs.begin(tmp_path / "new", generator="b" * 64, candidate="d" * 64) == 1
    assert runs.begin(site.root, generator="a" * 64, candidate="d" * 64) == 2
    assert (runs.JOURNAL, runs.RESTORED) == (RELEASE_RUNS, "restored")


def test_settling_needs_a_restore_and_names_what_only_the_budget_knows(site, tmp_path):
    with pytest.raises(FairSynthError, match="nothing to settle"):
        settle(site.root, [], officer="Dr. A. Lee")
    (approval,) = (site.root / "approvals").glob("*.json")
    approval.unlink()
    backup(site.root, tmp_path / "without.tar")
    restore(tmp_path / "without.tar", tmp_path / "new")
    plan = site.toy.plan
    with pytest.raises(FairSynthError, match=plan_sha256(plan)[:12]):
        settle(tmp_path / "new", [], officer="Dr. A. Lee")
    assert settle(tmp_path / "new", [plan], officer="Dr. A. Lee") == [plan.name]


def test_it_is_told_on_the_command_line(site, tmp_path, capsys):
    plan = tmp_path / "lost.json"
    plan.write_text(noised_plan(seed=8).model_dump_json(by_alias=True))
    for arguments in (
        ["restore", str(tmp_path / "site.tar"), "--to", str(tmp_path / "new")],
        ["settle", str(tmp_path / "new"), "--officer", "Dr. A. Lin", "--plan", str(plan)],
        ["ledger", "show", str(tmp_path / "new")],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("fairsynth settle", "settled by Dr. A. Lin; charged in full: noised-8", "restored", "settled"):
        assert words in printed
