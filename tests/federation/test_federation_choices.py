"""A whole small study with what a user may choose: crossed groups, a favourable outcome, several objectives."""

import pytest
from federation_real import Local, make_sites, real_plan

from fairsynth.config import GroupsConfig, ObjectiveConfig, ObjectiveTerm
from fairsynth.federation.journal import read
from fairsynth.federation.plans import ARMS
from fairsynth.federation.rounds import run_study
from fairsynth.generator.checkpoint import load
from fairsynth.visits.cohort import load_cohort
from fairsynth.visits.records import Records

PLAN = real_plan(
    groups=GroupsConfig.model_validate(
        {"names": ("white", "black", "hispanic", "asian", "other"), "reference": ("white:male",), "cross": "sex"}
    ),
    objective=ObjectiveConfig(
        target="label", favourable="negative", also=(ObjectiveTerm(name="equal_opportunity", share=0.5),)
    ),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    transport = Local(make_sites(root, PLAN))
    run_study(transport, plan=PLAN, root=root / "server")
    return root, transport


def test_every_site_answers_every_phase_in_crossed_groups(study):
    root, transport = study
    assert [event for event in read(root / "server" / "journal.jsonl") if event["event"] == "refused"] == []
    audits = [reply for reply in transport.replies if reply.kind == "audited"]
    assert [reply.arrays["confusion"].shape[-2] for reply in audits] == [10, 10]
    held_out = sum(reply.arrays["confusion"][0, 0, 0, 0].sum(axis=1) for reply in audits)
    assert (held_out[:2] >= 10).all()  # white patients of either sex


def test_the_fairness_term_moves_the_generator_of_crossed_groups(study):
    root, _ = study
    plain, fair = (load(root / "server" / f"generator-{arm}", kind=f"generator-{arm}").weights for arm in ARMS)
    assert any((plain[name] != fair[name]).any() for name in plain)


def test_synthetic_patients_are_of_the_sex_that_their_group_says(study):
    root, _ = study
    for name in PLAN.roster:
        vocabulary = load_cohort(root / name).vocabulary
        assert vocabulary.groups == PLAN.groups.names
        for arm in (*ARMS, "alike"):
            records = Records.load(root / name / "synthetic" / f"{arm}.safetensors")
            assert len(records) > 0
            for row in range(len(records)):
                said = records.context[slice(*records.context_offsets[row : row + 2])]
                sexes = [vocabulary.names[token] for token in said if token in columns(vocabulary.layout.sexes)]
                assert sexes == [f"SEX//{vocabulary.groups[records.group[row]].split(':')[1]}"]


def columns(block):
    return range(block.start, block.stop)
