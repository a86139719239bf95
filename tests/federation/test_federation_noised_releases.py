"""What a plan with noise costs one patient, and that a site charges it once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from federation_toys import toy_plan

from fairsynth.config import NoiseConfig, PrivacyConfig, TrainingConfig, read_yaml
from fairsynth.errors import ArtefactError, ConfigError, PolicyRefusal
from fairsynth.federation.noised.household import Household
from fairsynth.federation.noised.releases import CELLS, CODES, releases_of
from fairsynth.federation.noised.site import refuse_ranks
from fairsynth.federation.plans import counted_rounds
from fairsynth.governance import budget, drawn
from fairsynth.governance.budget import DpSgd, Gaussian, Thresholded, epsilon_of
from fairsynth.governance.policy import TEMPLATE, SitePolicy

SUMS = np.arange(6, dtype=np.int64)


def noised_plan(epsilon=3.0, *, rounds=4, **noise):
    return toy_plan(
        privacy=PrivacyConfig(profile="noise", epsilon=epsilon, noise=NoiseConfig(**noise)),
        training=TrainingConfig(rounds=rounds),
    )


def policy(epsilon=10.0, **changes):
    return read_yaml(TEMPLATE, SitePolicy).model_copy(update={"epsilon_budget": epsilon, **changes})


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_a_study_costs_what_its_plan_says_and_little_less(epsilon):
    plan = noised_plan(epsilon)
    releases = releases_of(plan)
    assert 0.95 * epsilon < releases.epsilon().tight <= epsilon
    whole = list(releases.by_label.values())
    trained = [one for one in whole if isinstance(one, DpSgd)]
    assert len(trained) == 2 * plan.training.rounds  # both arms are charged
    assert whole.count(Gaussian(ratio=releases.ratio)) == 3 + len(counted_rounds(plan))


def test_counts_alone_cost_their_share():
    plan = noised_plan(3.0, counts_share=0.25)
    counts = [one for one in releases_of(plan).by_label.values() if not isinstance(one, DpSgd)]
    assert epsilon_of(counts, delta=plan.privacy.delta).tight == pytest.approx(0.75, rel=0.05)


def test_a_smaller_epsilon_asks_for_more_noise_everywhere():
    strict, lax = (releases_of(noised_plan(epsilon)) for epsilon in (1.0, 8.0))
    assert strict.ratio > lax.ratio
    assert strict.training.noise_multiplier > lax.training.noise_multiplier


def test_the_chance_of_a_lone_code_is_taken_off_delta():
    alone = epsilon_of([Gaussian(ratio=4.0)], delta=1e-6).tight
    shown = epsilon_of([Thresholded(ratio=4.0, chance=9e-7)], delta=1e-6).tight
    assert shown > alone
    with pytest.raises(PolicyRefusal, match="delta is spent"):
        epsilon_of([Thresholded(ratio=4.0, chance=9e-7)] * 2, delta=1e-6)


def test_a_site_is_charged_once_and_tells_the_same_again(tmp_path):
    plan = noised_plan()
    home = Household.begin(tmp_path, plan, policy=policy())
    first = home.noised(CELLS, SUMS, sensitivity=1.0)
    again = Household.open(tmp_path, plan, policy=policy()).noised(CELLS, SUMS, sensitivity=1.0)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, SUMS)  # the chance of no noise at all is below 1e-6
    assert [entry["label"] for entry in home.budget.entries()] == [CELLS]
    key = home.key("train plain 0", given=b"request")
    assert key == home.key("train plain 0", given=b"request")
    Household.begin(tmp_path, plan, policy=policy())  # a study that starts again
    assert len(home.budget.entries()) == 2


def test_a_patient_who_came_in_between_makes_it_another_study(tmp_path):
    home = Household.begin(tmp_path, noised_plan(), policy=policy())
    home.noised(CELLS, SUMS, sensitivity=1.0)
    home.key("train plain 0", given=b"request")
    with pytest.raises(PolicyRefusal, match="another input"):
        home.noised(CELLS, SUMS + 1, sensitivity=1.0)
    with pytest.raises(PolicyRefusal, match="another input"):
        home.key("train plain 0", given=b"another model for the same round")


def test_another_question_is_refused_even_where_its_answer_is_the_same(tmp_path):
    """Whether it is would tell exact counts: that two codes, or two models, have equal ones."""
    home = Household.begin(tmp_path, noised_plan(), policy=policy())
    first = home.noised(CELLS, SUMS, sensitivity=1.0, asked="one vocabulary")
    assert np.array_equal(first, home.noised(CELLS, SUMS, sensitivity=1.0, asked="one vocabulary"))
    for asked in ("another vocabulary", ""):
        with pytest.raises(PolicyRefusal, match="another input"):
            home.noised(CELLS, SUMS, sensitivity=1.0, asked=asked)


def test_a_label_that_the_plan_does_not_have_is_nothing_that_may_be_told(tmp_path):
    home = Household.begin(tmp_path, noised_plan(), policy=policy())
    with pytest.raises(PolicyRefusal, match="the plan does not have"):
        home.noised("counts 1", SUMS, sensitivity=1.0)  # counted are rounds 0 and 4


def test_a_study_that_the_budget_has_no_room_for_is_refused_before_it_begins(tmp_path):
    Household.begin(tmp_path, noised_plan(6.0), policy=policy())
    for label in releases_of(noised_plan(6.0)).by_label:
        home = Household.open(tmp_path, noised_plan(6.0), policy=policy())
        home.key(label, given=b"") if label.startswith("train") else home.noised(label, SUMS, sensitivity=1.0)
    spent = home.budget.entries()
    with pytest.raises(PolicyRefusal, match="exceed the site's privacy budget"):
        Household.begin(tmp_path, noised_plan(9.0), policy=policy())
    assert home.budget.entries() == spent
    Household.begin(tmp_path, noised_plan(1.0), policy=policy())  # and there is room for a smaller one


def test_without_a_budget_in_the_policy_there_is_no_noise(tmp_path):
    with pytest.raises(PolicyRefusal, match="without a privacy budget"):
        Household.begin(tmp_path, noised_plan(), policy=policy(None))


@pytest.mark.parametrize("name", [budget.NAME, drawn.NAME])
def test_what_was_told_cannot_be_forgotten_by_losing_a_file(name, tmp_path):
    plan = noised_plan()
    Household.begin(tmp_path, plan, policy=policy()).noised(CELLS, SUMS, sensitivity=1.0)
    (tmp_path / name).unlink()
    with pytest.raises(ArtefactError, match="missing"):
        Household.begin(tmp_path, plan, policy=policy())


def test_the_site_keeps_the_noise_that_enrolment_settled(tmp_path):
    plan = noised_plan()
    with pytest.raises(ArtefactError, match="enrol first"):
        Household.open(tmp_path, plan, policy=policy())
    begun = Household.begin(tmp_path, plan, policy=policy()).releases
    opened = Household.open(tmp_path, plan, policy=policy()).releases
    assert (opened.ratio, opened.chance, opened.training) == (begun.ratio, begun.chance, begun.training)
    assert opened.by_label[CODES] == begun.codes
    with pytest.raises(ArtefactError, match="enrol first"):
        Household.open(tmp_path, noised_plan(rounds=5), policy=policy())
    Household.begin(tmp_path, noised_plan(rounds=5), policy=policy())
    assert Household.open(tmp_path, plan, policy=policy()).releases.ratio == begun.ratio  # each study keeps its own


def test_no_exact_sum_is_on_disk(tmp_path):
    home = Household.begin(tmp_path, noised_plan(), policy=policy())
    exact = np.array([7_777_771, 8_888_881], dtype=np.int64)
    told = home.noised(CELLS, exact, sensitivity=1e6)  # so wide that no digit but the first is left
    text = " ".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert all(str(value) in text for value in told.tolist())
    assert not [value for value in exact.tolist() if str(value) in text]


def test_a_commitment_tells_one_study_apart_and_hides_what_it_is_of(tmp_path):
    one = Household.begin(tmp_path, noised_plan(), policy=policy())
    assert one.commitment("a" * 64) == one.commitment("a" * 64) != one.commitment("b" * 64)
    other = Household.begin(tmp_path / "other", noised_plan(), policy=policy())
    assert other.commitment("a" * 64) != one.commitment("a" * 64)


def test_a_study_is_held_to_the_data_that_it_began_with(tmp_path):
    home = Household.begin(tmp_path, noised_plan(), policy=policy())
    home.hold_to("a" * 64)
    home.hold_to("a" * 64)
    with pytest.raises(PolicyRefusal, match="another input"):
        home.hold_to("b" * 64)


def test_another_delta_is_refused_since_the_ledger_would_no_longer_add_up(tmp_path):
    home = Household.begin(tmp_path, noised_plan(), policy=policy())
    home.noised(CELLS, SUMS, sensitivity=1.0)
    with pytest.raises(PolicyRefusal, match="delta is not that of the budget"):
        Household.begin(tmp_path, noised_plan(1.0), policy=policy(delta=1e-5))
    Household.begin(tmp_path, noised_plan(1.0), policy=policy(20.0))  # the budget itself may grow


@pytest.mark.parametrize(("source", "refused"), [("eicu", True), ("mimic3", False), ("pic", False)])
def test_a_source_that_numbers_its_patients_by_their_place_among_all_is_refused(source, refused, tmp_path):
    config = Path(__file__).resolve().parents[2] / "site_configs" / source
    (tmp_path / "site.json").write_text(json.dumps({"site": "a", "config": str(config), "data": "."}))
    if refused:
        with pytest.raises(ConfigError, match="place among all patients"):
            refuse_ranks(tmp_path)
    else:
        refuse_ranks(tmp_path)
