"""A small real study that begins primed and has a teacher, against the same arithmetic without messages."""

from __future__ import annotations

import numpy as np
import pytest
from federation_real import Local, make_sites, real_plan

from fairsynth.audit.federated_logistic import federated_logistic
from fairsynth.audit.fitting import bag_of_tokens
from fairsynth.audit.site import audit_site
from fairsynth.audit.teacher import common_model
from fairsynth.config import AugmentationConfig, ObjectiveConfig, TrainingConfig
from fairsynth.errors import ArtefactError, ProtocolError
from fairsynth.experiments.evidence.training import generator
from fairsynth.experiments.generate import source_of_run
from fairsynth.experiments.study import Run
from fairsynth.federation import site_teaching
from fairsynth.federation.journal import read
from fairsynth.federation.messages import FeedbackRequest, TeachRequest, weights_as
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study
from fairsynth.federation.terms import Terms, columns, load_terms
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.checkpoint import load
from fairsynth.generator.model import weights_of
from fairsynth.generator.priming import runs
from fairsynth.visits.cohort import load_cohort
from fairsynth.visits.records import Records

PLAN = real_plan(
    objective=ObjectiveConfig(weight=0),
    training=TrainingConfig(rounds=2, local_epochs=1, batch_size=32, round_deadline_seconds=300, primed=True),
    augmentation=AugmentationConfig(synthetic_patients=12, candidates="taught", home_rounds=1),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    folders = make_sites(root / "sites", PLAN)
    transport = Local(folders)
    run_study(transport, plan=PLAN, root=root / "server")
    return root, transport, {name: load_cohort(folder) for name, folder in folders.items()}


def weights(root, arm="fairsynth"):
    return load(root / "server" / f"generator-{arm}", kind=f"generator-{arm}").weights


def event(root, name):
    (found,) = (each for each in read(root / "server" / "journal.jsonl") if each["event"] == name)
    return found


def requests(root, kind):
    """A request of that kind, as the server of this study would send it."""
    vocabulary = load(root / "server" / "generator-plain", kind="generator-plain").vocabulary
    names = {"plan_sha256": plan_sha256(PLAN), "vocabulary_sha256": vocabulary.sha256}
    terms = load_terms(root / "server", plan=PLAN)
    if kind == "teach":
        return TeachRequest(**names).pack({"weights": terms.guide.teacher})
    body = FeedbackRequest(**names, exclusive=terms.exclusive)
    return body.pack({**weights_as(weights(root)), **terms.guide.arrays()})


def test_the_sites_hold_nothing_against_the_protocol(study):
    root, transport, _ = study
    events = read(root / "server" / "journal.jsonl")
    assert [one for one in events if one["event"] == "refused"] == []
    assert {reply.kind for reply in transport.replies} == {
        "enrolled",
        "agreed",
        "trained",
        "taught",
        "fed_back",
        "audited",
    }


def test_primed_rounds_over_messages_end_in_the_weights_of_the_same_rounds_without_bit_for_bit(study):
    root, _, cohorts = study
    expected = generator(cohorts, plan=PLAN, seed=PLAN.seed)
    assert expected.nll[1] < expected.nll[0]  # so that its best round is the last, as the study's is
    found = weights(root, "plain")
    assert set(found) == set(expected.shared)
    assert all(found[name].tobytes() == expected.shared[name].tobytes() for name in found)


def test_sites_settle_which_runs_of_codes_no_visit_of_any_of_them_has_two_of(study):
    root, _, cohorts = study
    exclusive = load_terms(root / "server", plan=PLAN).exclusive
    everywhere = []
    for number, run in enumerate(runs(next(iter(cohorts.values())).vocabulary)):
        visits = [
            visit for one in cohorts.values() for visit in np.split(one.train.codes, one.train.visit_offsets[1:-1])
        ]
        if all(((visit >= run.start) & (visit < run.stop)).sum() < 2 for visit in visits):
            everywhere.append(number)
    assert list(exclusive) == everywhere != []


def test_a_run_of_codes_that_does_not_exist_is_refused_by_the_site(study):
    _, _, cohorts = study
    with pytest.raises(ProtocolError, match="no such run of codes"):
        Terms(exclusive=(10**6,)).rates(cohorts["site-a"], plan=PLAN)


def test_rates_at_home_are_the_base_rates_but_for_the_agreed_blocks_and_the_label_visit(study):
    root, _, cohorts = study
    terms, cohort = load_terms(root / "server", plan=PLAN), cohorts["site-a"]
    plain = base_rates(cohort.train, vocabulary=cohort.vocabulary)
    assert (Terms(exclusive=terms.exclusive).rates(cohort, plan=real_plan()) == plain).all()
    moved = np.flatnonzero(terms.rates(cohort, plan=PLAN) != plain)
    layout = cohort.vocabulary.layout
    allowed = {token for run in terms.exclusive for token in range(*runs(cohort.vocabulary)[run].indices(layout.size))}
    allowed |= {*range(layout.groups.start, layout.groups.stop), *range(layout.sexes.start, layout.ages.stop)}
    assert set(moved.tolist()) <= allowed
    assert len(moved) > 5


def test_generating_from_a_finished_run_uses_the_sites_primed_rates(study):
    root, _, cohorts = study
    source = source_of_run(Run(root=root), site="site-b", arm="plain")
    terms, cohort = load_terms(root / "server", plan=PLAN), cohorts["site-b"]
    expected = at_home(weights(root, "plain"), terms.rates(cohort, plan=PLAN))
    assert (weights_of(source.model)["head.output_bias"] == expected["head.output_bias"]).all()


def test_generating_from_the_fairness_optimised_generator_draws_from_what_the_site_settled_and_never_sent(study):
    root, transport, cohorts = study
    site = root / "sites" / "site-b"
    kept = load(site / "home", kind="home").weights
    found = weights_of(source_of_run(Run(root=root), site="site-b", arm="fairsynth").model)
    assert all((found[name] == array).all() for name, array in kept.items())
    common = at_home(weights(root), load_terms(root / "server", plan=PLAN).rates(cohorts["site-b"], plan=PLAN))
    assert any((common[name] != array).any() for name, array in kept.items())
    sent = {array.tobytes() for reply in transport.replies for array in reply.arrays.values()}
    assert not sent & {array.tobytes() for array in kept.values()}


def test_the_bag_of_tokens_is_as_wide_as_the_server_thinks(study):
    _, _, cohorts = study
    for cohort in cohorts.values():
        assert bag_of_tokens(cohort.train, vocabulary=cohort.vocabulary).shape[1] == columns(cohort.vocabulary)


def test_the_teacher_over_messages_is_the_one_without(study):
    root, _, cohorts = study
    vocabulary = cohorts["site-a"].vocabulary
    train = {name: one.train for name, one in cohorts.items()}
    validation = {name: one.validation for name, one in cohorts.items()}
    alone = common_model(train, validation=validation, vocabulary=vocabulary)
    strength = event(root, "taught")["inverse_strength"]
    assert strength == alone.inverse_strength
    expected = federated_logistic(train, vocabulary=vocabulary, inverse_strength=strength)
    found = load_terms(root / "server", plan=PLAN).guide.teacher
    assert found == pytest.approx(np.append(expected.weights, expected.bias), abs=1e-6)


def test_replies_hold_sums_without_an_axis_of_patients_and_the_same_bytes_each_time(study):
    root, transport, cohorts = study
    patients = {len(part) for one in cohorts.values() for part in (one.train, one.validation)}
    arrays = {
        "taught": {"gradient", "hessian"},
        "fed_back": {"validation", "seen"},
        "agreed": {"cohort", "occurs", "shared"},
    }
    for reply in transport.replies:
        if reply.kind in arrays:
            assert set(reply.arrays) == arrays[reply.kind]
            assert not patients & {size for array in reply.arrays.values() for size in array.shape}
    request = requests(root, "teach")
    first, again = (site_teaching.teach(root / "sites" / "site-a", request, bag=bag_of_tokens) for _ in range(2))
    assert first.fields == again.fields
    assert all(first.arrays[name].tobytes() == again.arrays[name].tobytes() for name in first.arrays)


@pytest.mark.parametrize(
    "kind, name, value",
    [
        ("teach", "weights", None),
        ("teach", "weights", np.zeros(3)),
        ("feedback", "teacher", np.zeros(3)),
        ("feedback", "selected", np.full(5, np.nan)),
        ("feedback", "selected", np.array([0.5, 0.5, 0.5, 0.5, 1.0])),
        ("feedback", "selected", np.full(5, 0.5, dtype=np.float32)),
    ],
)
def test_a_guide_that_is_none_is_refused_by_the_site(study, kind, name, value):
    root, *_ = study
    request = requests(root, kind)
    request.arrays.pop(name)
    if value is not None:
        request.arrays[name] = value
    folder = root / "sites" / "site-a"
    with pytest.raises(ProtocolError, match=name):
        if kind == "teach":
            site_teaching.teach(folder, request, bag=bag_of_tokens)
        else:
            site_teaching.feedback(folder, request, attempt=None)


def test_a_site_answers_neither_in_a_study_without_a_teacher(study, tmp_path):
    root, *_ = study
    plan = PLAN.model_copy(update={"augmentation": AugmentationConfig(synthetic_patients=12)})
    folder = tmp_path / "site"
    folder.mkdir()
    for name in ("site.json", "shared.json"):
        text = (root / "sites" / "site-a" / name).read_text()
        (folder / name).write_text(text.replace(plan_sha256(PLAN), plan_sha256(plan)))
    (folder / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    request = requests(root, "teach")
    request = request.model_copy(update={"fields": request.fields.replace(plan_sha256(PLAN), plan_sha256(plan))})
    with pytest.raises(ProtocolError, match="no teacher in this study"):
        site_teaching.teach(folder, request, bag=bag_of_tokens)


def test_the_audit_adds_the_patients_of_the_kept_trial_and_counts_the_same(study):
    root, transport, _ = study
    added = Records.load(root / "sites" / "site-a" / "synthetic" / "fairsynth.safetensors")
    assert len(added) == PLAN.augmentation.synthetic_patients
    audited = next(reply for reply in transport.replies if reply.kind == "audited")
    assert audited.arrays["synthetic"][3].sum() == PLAN.augmentation.synthetic_patients
    reply, arrays = audit_site(
        root / "sites" / "site-a",
        site="site-a",
        plan=PLAN,
        weights={arm: weights(root, arm) for arm in ("plain", "fairsynth")},
        terms=load_terms(root / "server", plan=PLAN),
    )
    assert all((arrays[name] == audited.arrays[name]).all() for name in arrays)
    assert reply.site == "site-a"


def test_terms_that_the_plan_asks_for_and_that_are_missing_are_an_error_and_others_are_none(tmp_path):
    nothing = load_terms(tmp_path, plan=real_plan())
    assert (nothing.exclusive, nothing.guide) == ((), None)
    with pytest.raises(ArtefactError, match="terms"):
        load_terms(tmp_path, plan=PLAN)
