"""The whole poison corpus: every case is refused without a value repeated, and honest replies pass."""

from __future__ import annotations

import poison_cases
import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from poison_cases import CASES, KINDS, NUMBER, STUDY, TEXT

from fairsynth.config import AugmentationConfig, TrainingConfig
from fairsynth.errors import ProtocolError
from fairsynth.federation.journal import read
from fairsynth.federation.rounds import run_study

TRIO = ("site-a", "site-b", "site-c")


@pytest.mark.parametrize("name", CASES)
def test_a_poisoned_reply_is_refused_and_nothing_of_it_is_repeated(name):
    study, kind, poison = CASES[name]
    with pytest.raises(ProtocolError) as caught:
        study.check(kind, poison(study.honest[kind]))
    told = str(caught.value) + str(caught.value.args)
    assert TEXT not in told
    assert str(NUMBER) not in told
    assert len(told) < 20_000


@pytest.mark.parametrize("label", KINDS)
def test_the_honest_reply_that_the_cases_are_made_of_passes(label):
    study, kind, _ = KINDS[label]
    assert study.check(kind, study.honest[kind])


def test_the_corpus_has_cases_of_every_kind_and_no_case_is_the_honest_reply():
    assert len(CASES) >= 40
    for study, kind, poison in CASES.values():
        before, after = study.honest[kind], poison(study.honest[kind])
        same = before.fields == after.fields and before.kind == after.kind and set(before.arrays) == set(after.arrays)
        assert not same or any(
            before.arrays[name].dtype != array.dtype
            or before.arrays[name].shape != array.shape
            or before.arrays[name].tobytes() != array.tobytes()
            for name, array in after.arrays.items()
        )


def plan_of(**changes):
    training = TrainingConfig(rounds=1, local_epochs=1, primed=True, round_deadline_seconds=1)
    augmentation = AugmentationConfig(synthetic_patients=10, candidates="taught")
    return toy_plan(roster=TRIO, training=training, augmentation=augmentation, **changes)


def poisoned(kind):
    """A site that is honest until it is asked this, and then sends what is poison in every study."""
    return lambda asked, reply: poison_cases.fields(plan_sha256=TEXT)(reply) if asked == kind else reply


@pytest.mark.parametrize("kind", STUDY.honest)
def test_a_study_goes_on_without_a_poisoned_site_where_it_has_a_quorum(kind, tmp_path):
    plan = plan_of()
    run_study(InProcess(toy_sites(plan, b=poisoned(kind))), plan=plan, root=tmp_path)
    events = read(tmp_path / "journal.jsonl")
    assert events[-1]["event"] == "finished"
    assert {event["site"] for event in events if event["event"] == "refused"} == {"site-b"}
    assert TEXT not in (tmp_path / "journal.jsonl").read_text()


@pytest.mark.parametrize("kind", STUDY.honest)
def test_a_study_ends_with_one_error_where_it_has_no_quorum(kind, tmp_path):
    plan = plan_of(quorum=3)
    with pytest.raises(ProtocolError, match=r"2 of 3 sites: .*site-b: FS-302"):
        run_study(InProcess(toy_sites(plan, b=poisoned(kind))), plan=plan, root=tmp_path)
    assert read(tmp_path / "journal.jsonl")[-1]["event"] == "failed"
