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
from fairsynth.audit.fitting import FitSettings, bag_of_tokens
from fairsynth.audit.forest import RandomForest
from fairsynth.audit.teacher import Common, Teacher, common_model, own_model, teach
from fairsynth.errors import CohortError
from fairsynth.federation import newton
from fairsynth.schemas import SiteId
from fairsynth.visits.records import Records

A, B, C = (SiteId(name) for name in "abc")
TRAIN = {A: toy.draw([[60, 20], [10, 4]], seed=1), B: toy.draw([[20, 6], [40, 14]], seed=2)}
TRAIN[C] = toy.draw([[10, 0], [20, 0]], seed=3)  # no positive patient
VALIDATION = {A: toy.draw([[30, 9], [9, 3]], seed=4), B: toy.draw([[9, 2], [20, 7]], seed=5)}
VALIDATION[C] = toy.draw([[5, 0], [9, 1]], seed=6)
FRESH = toy.draw([[40, 10], [40, 10]], seed=7)
STRENGTHS = (1.0, 0.1, 0.01, 0.001)


def common(*, train=TRAIN, validation=VALIDATION, strengths=STRENGTHS) -> Common:
    return common_model(train, validation=validation, vocabulary=toy.VOCABULARY, strengths=strengths)


def taught(*, train=TRAIN, validation=VALIDATION, seed: int = 3) -> dict[SiteId, Teacher]:
    return teach(train, validation=validation, vocabulary=toy.VOCABULARY, threads=1, seed=seed)


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
    assert common(train=train, validation=validation).inverse_strength == min(losses, key=losses.__getitem__)


def test_the_choice_of_the_penalty_is_not_the_same_for_every_signal():
    strengths = set()
    for signal in (0.12, 0.9):
        train = {A: toy.draw([[40, 10], [40, 10]], seed=20, signal=signal)}
        validation = {A: toy.draw([[90, 20], [90, 20]], seed=30, signal=signal)}
        strengths.add(common(train=train, validation=validation).inverse_strength)
    assert len(strengths) == 2


@dataclass(frozen=True)
class Says:
    """The same log-odds of everybody."""

    log_odds: float

    def scores(self, records: Records) -> np.ndarray:
        return np.full(len(records), expit(self.log_odds))


def test_the_score_is_of_the_mean_of_both_log_odds():
    teacher = Teacher(common=Says(-2.0), own=Says(4.0))
    np.testing.assert_allclose(logit(teacher.scores(FRESH)), (-2 + 4) / 2)


def test_a_model_that_is_certain_does_not_silence_the_other():
    scores = [Teacher(common=Says(log_odds), own=Says(1000.0)).scores(FRESH)[0] for log_odds in (-1.0, 1.0)]
    assert np.isfinite(logit(scores)).all()
    assert scores[0] < scores[1] < 1


def test_without_a_forest_the_common_model_teaches_alone():
    np.testing.assert_allclose(Teacher(common=Says(0.7)).scores(FRESH), expit(0.7))


def test_every_site_has_the_common_model_and_a_forest_of_its_own_patients():
    found = taught(seed=9)
    for site in (A, B):
        forest = RandomForest().fit(
            TRAIN[site],
            vocabulary=toy.VOCABULARY,
            settings=FitSettings(epochs=1, threads=1),
            seed=seeds.stream(9, "own", site),
        )
        halves = [logit(model.scores(FRESH)) for model in (common(strengths=newton.STRENGTHS).model, forest)]
        np.testing.assert_allclose(logit(found[site].scores(FRESH)), sum(halves) / 2)
    assert not np.allclose(found[A].scores(FRESH), found[B].scores(FRESH))


def test_a_site_whose_patients_have_one_label_has_no_forest():
    assert own_model(TRAIN[C], vocabulary=toy.VOCABULARY, threads=1, seed=1) is None
    assert taught()[C].own is None


def test_the_order_of_sites_changes_no_bit():
    def backwards(sites):
        return dict(reversed(sites.items()))

    one, other = taught(), taught(train=backwards(TRAIN), validation=backwards(VALIDATION))
    assert all(np.array_equal(one[site].scores(FRESH), other[site].scores(FRESH)) for site in TRAIN)


def test_a_patient_s_label_changes_no_score():
    teacher = taught()[A]
    assert FRESH.label.any()
    unlabelled = blind(FRESH, vocabulary=toy.VOCABULARY)
    assert np.array_equal(teacher.scores(FRESH), teacher.scores(unlabelled))
    swapped = replace(FRESH, label=1 - FRESH.label)
    assert np.array_equal(teacher.scores(FRESH), teacher.scores(swapped))


def test_labels_of_validation_patients_choose_the_penalty_and_nothing_else():
    train = {A: toy.draw([[40, 10], [40, 10]], seed=20, signal=0.9)}
    judges = {A: toy.draw([[90, 20], [90, 20]], seed=30, signal=0.9)}
    misled = {A: replace(judges[A], label=np.random.default_rng(0).permutation(judges[A].label))}
    one, other = (common(train=train, validation=validation) for validation in (judges, misled))
    assert other.inverse_strength < one.inverse_strength
    again = common(train=train, validation=misled, strengths=(one.inverse_strength,))
    assert np.array_equal(again.model.scores(FRESH), one.model.scores(FRESH))


def test_a_teacher_knows_what_one_site_alone_cannot():
    train = {A: toy.draw([[200, 60], [10, 0]], seed=41), B: toy.draw([[10, 0], [200, 60]], seed=42)}
    validation = {A: toy.draw([[90, 20], [9, 0]], seed=43), B: toy.draw([[9, 0], [90, 20]], seed=44)}
    both = taught(train=train, validation=validation)[A]
    alone = taught(train={A: train[A]}, validation={A: validation[A]})[A]
    minority = FRESH.take(FRESH.group == 1)
    losses = [log_loss(minority.label, teacher.scores(minority)) for teacher in (both, alone)]
    assert losses[0] < losses[1] - 0.05


def test_patients_of_one_label_teach_nothing():
    with pytest.raises(CohortError):
        taught(train={C: TRAIN[C]}, validation={C: VALIDATION[C]})
