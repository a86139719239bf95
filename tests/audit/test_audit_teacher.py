from __future__ import annotations

from dataclasses import dataclass, replace

import audit_toy as toy
import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from fairsynth import seeds
from fairsynth.audit.features import blind
from fairsynth.audit.federated_predictor import BySize, federated
from fairsynth.audit.fitting import FitSettings, bag_of_tokens
from fairsynth.audit.teacher import Teacher, TeacherSettings, teach
from fairsynth.errors import CohortError
from fairsynth.schemas import SiteId
from fairsynth.visits.records import Records

A, B, C = (SiteId(name) for name in "abc")
TRAIN = {A: toy.draw([[60, 20], [10, 4]], seed=1), B: toy.draw([[20, 6], [40, 14]], seed=2)}
TRAIN[C] = toy.draw([[10, 0], [20, 0]], seed=3)  # no positive patient
VALIDATION = {A: toy.draw([[30, 9], [9, 3]], seed=4), B: toy.draw([[9, 2], [20, 7]], seed=5)}
VALIDATION[C] = toy.draw([[5, 0], [9, 1]], seed=6)
FRESH = toy.draw([[40, 10], [40, 10]], seed=7)
STRENGTHS = (1.0, 0.1, 0.01, 0.001)


def taught(*, train=TRAIN, validation=VALIDATION, seed: int = 3, **chosen) -> Teacher:
    return teach(
        train,
        validation=validation,
        vocabulary=toy.VOCABULARY,
        settings=TeacherSettings(**{"transformers": 0, "strengths": STRENGTHS, **chosen}),
        threads=1,
        seed=seed,
    )


def pooled_losses(*, train=TRAIN, validation=VALIDATION) -> dict[float, float]:
    """Of scikit-learn's models of all sites' patients, on all sites' validation patients."""
    everybody, judges = (Records.concatenate(list(part.values())) for part in (train, validation))
    rows, seen = (bag_of_tokens(records, vocabulary=toy.VOCABULARY) for records in (everybody, judges))
    models = {
        strength: LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(rows, everybody.label)
        for strength in STRENGTHS
    }
    return {strength: log_loss(judges.label, model.predict_proba(seen)) for strength, model in models.items()}


@pytest.mark.parametrize("signal", [0.12, 0.2, 0.9])
def test_the_penalty_is_the_one_with_the_least_log_loss_on_everybody_s_validation_patients(signal):
    train = {site: toy.draw([[40, 10], [40, 10]], seed=20 + k, signal=signal) for k, site in enumerate((A, B))}
    validation = {site: toy.draw([[90, 20], [90, 20]], seed=30 + k, signal=signal) for k, site in enumerate((A, B))}
    losses = pooled_losses(train=train, validation=validation)
    assert taught(train=train, validation=validation).inverse_strength == min(losses, key=losses.__getitem__)


def test_the_choice_of_the_penalty_is_not_the_same_for_every_signal():
    strengths = set()
    for signal in (0.12, 0.9):
        train = {A: toy.draw([[40, 10], [40, 10]], seed=20, signal=signal)}
        validation = {A: toy.draw([[90, 20], [90, 20]], seed=30, signal=signal)}
        strengths.add(taught(train=train, validation=validation).inverse_strength)
    assert len(strengths) == 2


@dataclass(frozen=True)
class Says:
    """The same log-odds of everybody."""

    log_odds: float

    def scores(self, records: Records) -> np.ndarray:
        return np.full(len(records), expit(self.log_odds))


def test_the_score_is_the_weighted_mean_of_the_members_log_odds():
    teacher = Teacher(members=(Says(-2.0), Says(1.0), Says(4.0)), shares=(0.5, 0.25, 0.25), inverse_strength=1.0)
    np.testing.assert_allclose(logit(teacher.scores(FRESH)), -2 / 2 + 1 / 4 + 4 / 4)


def test_a_member_that_is_certain_does_not_silence_the_others():
    teacher = Teacher(members=(Says(-1.0), Says(1000.0)), shares=(0.5, 0.5), inverse_strength=1.0)
    assert np.isfinite(logit(teacher.scores(FRESH))).all()
    assert teacher.scores(FRESH)[0] < 1


def test_half_is_the_logistic_regression_and_half_the_mean_of_the_networks():
    teacher = taught(transformers=2, rounds=1, seed=9)
    assert teacher.shares == (0.5, 0.25, 0.25)
    logistic = teacher.members[0].scores(FRESH)
    networks = [
        federated(
            TRAIN,
            vocabulary=toy.VOCABULARY,
            settings=FitSettings(epochs=1, threads=1),
            seed=seeds.stream(9, "teacher", number),
            rounds=1,
            weighting=BySize(),
        ).scores(FRESH)
        for number in range(2)
    ]
    assert not np.allclose(*networks)
    expected = logit(logistic) / 2 + (logit(networks[0]) + logit(networks[1])) / 4
    np.testing.assert_allclose(logit(teacher.scores(FRESH)), expected, atol=1e-6)


def test_without_a_transformer_the_logistic_regression_teaches_alone():
    teacher = taught()
    assert teacher.shares == (1.0,)
    np.testing.assert_allclose(teacher.scores(FRESH), teacher.members[0].scores(FRESH), atol=1e-12)


def test_the_order_of_sites_changes_no_bit():
    def backwards(sites):
        return dict(reversed(sites.items()))

    one = taught(transformers=1, rounds=1)
    other = taught(train=backwards(TRAIN), validation=backwards(VALIDATION), transformers=1, rounds=1)
    assert np.array_equal(one.scores(FRESH), other.scores(FRESH))


def test_a_patient_s_label_changes_no_score():
    teacher = taught(transformers=1, rounds=1)
    assert FRESH.label.any()
    unlabelled = blind(FRESH, vocabulary=toy.VOCABULARY)
    assert np.array_equal(teacher.scores(FRESH), teacher.scores(unlabelled))
    swapped = replace(FRESH, label=1 - FRESH.label)
    assert np.array_equal(teacher.scores(FRESH), teacher.scores(swapped))


def test_labels_of_validation_patients_choose_the_penalty_and_nothing_else():
    train = {A: toy.draw([[40, 10], [40, 10]], seed=20, signal=0.9)}
    judges = {A: toy.draw([[90, 20], [90, 20]], seed=30, signal=0.9)}
    misled = {A: replace(judges[A], label=np.random.default_rng(0).permutation(judges[A].label))}
    one, other = (taught(train=train, validation=validation) for validation in (judges, misled))
    assert other.inverse_strength < one.inverse_strength
    narrow = (one.inverse_strength,)
    again = taught(train=train, validation=misled, strengths=narrow)
    assert np.array_equal(again.scores(FRESH), one.scores(FRESH))


def test_a_teacher_knows_what_one_site_alone_cannot():
    train = {A: toy.draw([[200, 60], [10, 0]], seed=41), B: toy.draw([[10, 0], [200, 60]], seed=42)}
    validation = {A: toy.draw([[90, 20], [9, 0]], seed=43), B: toy.draw([[9, 0], [90, 20]], seed=44)}
    both = taught(train=train, validation=validation)
    alone = taught(train={A: train[A]}, validation={A: validation[A]})
    minority = FRESH.take(FRESH.group == 1)
    losses = [log_loss(minority.label, teacher.scores(minority)) for teacher in (both, alone)]
    assert losses[0] < losses[1] - 0.05


def test_patients_of_one_label_teach_nothing():
    with pytest.raises(CohortError):
        taught(train={C: TRAIN[C]}, validation={C: VALIDATION[C]})
