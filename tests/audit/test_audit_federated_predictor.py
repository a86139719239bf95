from __future__ import annotations

from dataclasses import dataclass

import audit_toy as toy
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fairsynth import seeds
from fairsynth.audit.federated_predictor import (
    BySize,
    FairFed,
    fairness_gap,
    federated,
    local_pass,
    opportunity_difference,
    weighted_mean,
)
from fairsynth.audit.fitting import FitSettings
from fairsynth.audit.transformer import Transformer, begin, log_odds, weights_of
from fairsynth.errors import CohortError, ConfigError
from fairsynth.federation.aggregate import average
from fairsynth.generator.train import threads
from fairsynth.schemas import SiteId
from fairsynth.visits.records import Records

SETTINGS = FitSettings(epochs=9, threads=1)
A, B, C = (SiteId(name) for name in ("a", "b", "c"))
SITES = {A: toy.draw([[90, 30], [20, 6]], seed=1), B: toy.draw([[30, 8], [60, 24]], seed=2)}
VALIDATION = {A: toy.draw([[60, 20], [20, 6]], seed=3), B: toy.draw([[20, 6], [60, 20]], seed=4)}
FRESH = toy.draw([[200, 60], [200, 60]], seed=5)
REFERENCE = np.array([True, False])


@dataclass(frozen=True)
class ByVisits:
    """Scores that differ from patient to patient and cannot see the label."""

    def scores(self, records: Records) -> np.ndarray:
        return (
            records.visit_counts / 4 + (records.codes[records.visit_offsets[records.patient_offsets[:-1]]] % 7) / 40
        ) / 2


def train(*, sites=SITES, rounds: int = 1, weighting=None, seed: int = 5):
    return federated(
        sites,
        vocabulary=toy.VOCABULARY,
        settings=SETTINGS,
        seed=seed,
        rounds=rounds,
        weighting=weighting or BySize(),
    )


def shares(*, sites=SITES, validation=VALIDATION, beta: float = 1.0, model=None) -> dict[SiteId, float]:
    weighting = FairFed(validation=validation, reference=REFERENCE, beta=beta)
    return weighting.shares(sites, model=model or ByVisits(), vocabulary=toy.VOCABULARY)


def difference(parts: list[Records]) -> float:
    """Mean score of the minority's positives minus that of the majority's, patient by patient."""
    by_group: dict[int, list[float]] = {0: [], 1: []}
    for records in parts:
        for score, label, group in zip(ByVisits().scores(records), records.label, records.group, strict=True):
            if label == 1:
                by_group[int(group)].append(float(score))
    return float(np.mean(by_group[1]) - np.mean(by_group[0]))


@pytest.fixture(autouse=True)
def one_thread():
    """Sums on a CPU depend on the number of threads: what is done by hand here has the settings' number too."""
    with threads(1):
        yield


def test_one_round_is_the_patient_weighted_mean_of_one_pass_at_each_site():
    positives, patients = 68, 268
    start = begin(toy.VOCABULARY, prior=log_odds(positives, patients=patients), seed=5)
    assert sum(int(records.label.sum()) for records in SITES.values()) == positives
    replies = {
        site: local_pass(
            weights_of(start), train=records, vocabulary=toy.VOCABULARY, seed=seeds.stream(5, "round", 0, site)
        )
        for site, records in SITES.items()
    }
    expected = average(replies, patients={site: len(records) for site, records in SITES.items()})
    found = train()
    for name, array in weights_of(found.fitted.model).items():
        assert array.dtype == np.float32
        assert np.allclose(array, expected[name], atol=1e-6)
        assert not np.allclose(replies[A][name], replies[B][name], atol=1e-6)
    assert found.shares == ({A: 146 / 268, B: 122 / 268},)


def test_two_rounds_at_one_site_are_two_passes_each_with_draws_of_its_own():
    model = begin(toy.VOCABULARY, prior=log_odds(36, patients=146), seed=5)
    for number in range(2):
        named = seeds.stream(5, "round", number, A)
        Transformer().descend(model, train=SITES[A], vocabulary=toy.VOCABULARY, epochs=1, seed=named)
    found = weights_of(train(sites={A: SITES[A]}, rounds=2).fitted.model)
    for name, array in weights_of(model).items():
        assert np.array_equal(found[name], array)


def test_a_single_site_keeps_its_own_weights():
    reply = {A: {"w": np.array([1.5, -2.0], dtype=np.float32)}}
    assert weighted_mean(reply, shares={A: 1.0})["w"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("weighting", [BySize(), FairFed(validation=VALIDATION, reference=REFERENCE)])
def test_the_order_of_the_sites_and_the_number_of_epochs_have_no_influence(weighting):
    turned = {site: SITES[site] for site in reversed(SITES)}
    one = train(weighting=weighting, rounds=2)
    other = federated(
        turned,
        vocabulary=toy.VOCABULARY,
        settings=FitSettings(epochs=1, threads=1),
        seed=5,
        rounds=2,
        weighting=weighting,
    )
    assert np.array_equal(one.scores(FRESH), other.scores(FRESH))
    assert not np.allclose(one.scores(FRESH), train(weighting=weighting, rounds=2, seed=6).scores(FRESH))


def test_the_sites_learn_together():
    scores = train(rounds=12).scores(FRESH)
    assert roc_auc_score(FRESH.label, scores) > 0.8


def test_the_shares_of_fairfed_are_the_formula_counted_patient_by_patient():
    everybody = difference(list(VALIDATION.values()))
    raw = {site: len(SITES[site]) * np.exp(-3 * abs(difference([VALIDATION[site]]) - everybody)) for site in SITES}
    found = shares(beta=3.0)
    assert found == pytest.approx({site: value / sum(raw.values()) for site, value in raw.items()}, rel=1e-12)
    assert abs(found[A] - len(SITES[A]) / 268) > 1e-3


def test_a_bias_of_the_other_sign_is_far_from_everybodys():
    own = np.array([[50.0, 10.0, 8.0, 6.0], [50.0, 10.0, 9.0, 8.0]])  # TPR 0.6 and 0.8
    everybody = np.array([[500.0, 100.0, 95.0, 80.0], [500.0, 100.0, 85.0, 60.0]])  # TPR 0.8 and 0.6
    assert fairness_gap(own, everybody=everybody, reference=REFERENCE) == pytest.approx(0.4)
    assert fairness_gap(everybody, everybody=own, reference=REFERENCE) == pytest.approx(0.4)
    assert opportunity_difference(everybody, reference=REFERENCE) == pytest.approx(-0.2)


def test_without_beta_fairfed_is_fedavg():
    assert shares(beta=0.0) == pytest.approx(BySize().shares(SITES, model=ByVisits(), vocabulary=toy.VOCABULARY))


def test_the_more_beta_the_less_a_site_unlike_the_others_counts():
    @dataclass(frozen=True)
    class AgainstMinorityAtC:
        def scores(self, records: Records) -> np.ndarray:
            low = (records.group == 1) if len(records) == 80 else np.zeros(len(records), dtype=bool)
            return np.where(low, 0.1, 0.9)

    sites = {**SITES, C: toy.draw([[60, 20], [60, 20]], seed=8)}
    validation = {**VALIDATION, C: toy.draw([[20, 20], [20, 20]], seed=9)}
    found = [shares(sites=sites, validation=validation, beta=beta, model=AgainstMinorityAtC())[C] for beta in (0, 1, 4)]
    assert found[0] > found[1] > found[2] > 0


def test_a_site_without_positives_on_one_side_is_weighed_by_its_gap_in_accuracy():
    validation = {**VALIDATION, B: toy.draw([[20, 6], [60, 0]], seed=4)}
    right = {
        site: np.where(records.label == 1, ByVisits().scores(records), 1 - ByVisits().scores(records))
        for site, records in validation.items()
    }
    gaps = {
        A: abs(difference([validation[A]]) - difference(list(validation.values()))),
        B: abs(right[B].mean() - np.concatenate(list(right.values())).mean()),
    }
    raw = {site: len(SITES[site]) * np.exp(-2 * gaps[site]) for site in SITES}
    assert shares(validation=validation, beta=2.0) == pytest.approx(
        {site: value / sum(raw.values()) for site, value in raw.items()}, rel=1e-12
    )


def test_where_no_site_has_positives_on_both_sides_all_are_weighed_by_accuracy():
    validation = {site: toy.draw([[20, 6], [60, 0]], seed=number) for number, site in enumerate(SITES)}
    found = shares(validation=validation, beta=2.0)
    assert sum(found.values()) == pytest.approx(1)
    assert all(0 < share < 1 for share in found.values())


def test_a_site_without_validation_patients_is_refused():
    with pytest.raises(CohortError, match="FairFed: b"):
        shares(validation={A: VALIDATION[A]})
    with pytest.raises(CohortError, match="FairFed: b"):
        shares(validation={A: VALIDATION[A], B: VALIDATION[B].take(np.zeros(0, dtype=np.int64))})


def test_no_patient_and_no_round_are_refused():
    nobody = FRESH.take(np.zeros(0, dtype=np.int64))
    with pytest.raises(CohortError, match="no training patient"):
        train(sites={A: nobody})
    with pytest.raises(ConfigError, match="rounds 0"):
        train(rounds=0)


def test_a_site_without_training_patients_weighs_nothing():
    nobody = FRESH.take(np.zeros(0, dtype=np.int64))
    found = train(sites={A: SITES[A], C: nobody})
    assert found.shares[0] == {A: 1.0, C: 0.0}
    assert np.isfinite(found.scores(FRESH)).all()
