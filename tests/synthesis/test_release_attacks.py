"""The attacks themselves: each finds what was planted for it, and nothing in fresh draws."""

import numpy as np
import pytest

from benchmarks.gate_patients import VOCABULARY, Process
from fairsynth.config import FitConfig, GeneratorConfig
from fairsynth.generator.train import threads
from fairsynth.halo import HALO
from fairsynth.synthesis.release import attacks
from fairsynth.synthesis.release.model_attack import model_membership
from fairsynth.synthesis.release.profiles import profiles

PROCESS = Process(seed=7)
TRAIN, HELD_OUT, FRESH = (PROCESS.draw(600, seed=part) for part in range(3))


def seen(records):
    return profiles(records, vocabulary=VOCABULARY)


def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize(("synthetic", "leaks"), [(FRESH, False), (TRAIN, True)])
def test_nearest_neighbours_stand_out_on_the_side_of_members_only_where_they_were_copied(synthetic, leaks):
    found = attacks.adversary(seen(TRAIN), seen(HELD_OUT), seen(synthetic), rng=rng())
    assert (abs(found.difference) > 0.2) == leaks
    assert found.patients == 600
    if not leaks:
        assert abs(found.difference) < 3 * found.error


@pytest.mark.parametrize(("synthetic", "leaks"), [(FRESH, False), (TRAIN, True)])
def test_secret_codes_are_guessed_of_members_only_where_they_were_copied(synthetic, leaks):
    secrets = attacks.usual_secrets(seen(TRAIN), number=5, common_share=0.2, rare_support=11)
    found = attacks.attribute_inference(seen(TRAIN), seen(HELD_OUT), seen(synthetic), secrets=secrets, common_share=0.2)
    assert len(found) == 5
    assert all((one.p < 0.001) == leaks for one in found)
    support = np.asarray(seen(TRAIN).content.sum(axis=0)).ravel()
    assert [one.attack.total for one in found] == [int(support[code]) for code in secrets]


@pytest.mark.parametrize(("synthetic", "leaks"), [(FRESH, False), (TRAIN, True)])
def test_rare_synthetic_patients_point_at_members_only_where_they_were_copied(synthetic, leaks):
    found = attacks.singling_out(seen(TRAIN), seen(HELD_OUT), seen(synthetic), predicates=300, codes=3, rng=rng())
    assert (found.p < 0.001) == leaks
    assert found.attack.total == found.control.total <= 300


def test_usual_secrets_are_neither_rare_nor_common():
    members = seen(TRAIN)
    support = np.asarray(members.content.sum(axis=0)).ravel()
    secrets = attacks.usual_secrets(members, number=1000, common_share=0.1, rare_support=11)
    assert ((support[secrets] >= 11) & (support[secrets] < 60)).all()
    assert len(secrets) == int(((support >= 11) & (support < 60)).sum())


def test_a_generator_that_knows_its_patients_by_heart_tells_who_they_are_and_says_of_how_many():
    train, held_out = (PROCESS.draw(60, seed=part) for part in (10, 11))
    size = GeneratorConfig(embedding=32, layers=1, heads=2, maximum_visits=6)
    fitting = FitConfig(
        epochs=60, batch_size=20, warm_up_steps=5, weight_decay=0.0, patience=None, device="cpu", threads=1
    )
    model = HALO(size, fitting, seed=1).fit(train, vocabulary=VOCABULARY, validation=train)
    given = {"train": train, "held_out": held_out, "vocabulary": VOCABULARY, "share": 0.05, "rng": rng()}
    with threads(1):
        found = model_membership(model.model, **given)
    assert found.auc.value > 0.8
    assert (found.auc.members, found.auc.others) == (60, 60)
    assert found.top.ratio > 3
