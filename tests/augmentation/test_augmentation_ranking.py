from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from fairsynth.augmentation.ranking import (
    alignment,
    best_of,
    gradient,
    loss_slopes,
    newton_direction,
    soft_predictions,
    with_constant,
)
from fairsynth.config import ObjectiveConfig
from fairsynth.errors import CohortError, ConfigError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.counts import count_patients, pool

OBJECTIVE = ObjectiveConfig(name="equal_opportunity", target="label")
REFERENCE = np.array([True, False])
INVERSE_STRENGTH = 1.0
few = settings(deadline=None, max_examples=40)


def people(number, *, seed, columns=8):
    """Patients of two groups; what marks the second group's positives is not what marks the first's."""
    rng = np.random.default_rng(seed)
    group = (rng.random(number) < 0.3).astype(np.int64)
    label = (rng.random(number) < 0.35).astype(np.int64)
    chance = np.full((number, columns), 0.2)
    for patient in np.flatnonzero(label):
        own = 3 * group[patient]
        chance[patient, own : own + 3] = 0.6
    return (rng.random((number, columns)) < chance).astype(float), label, group


TRAIN, VALIDATION, CANDIDATES = people(150, seed=1), people(300, seed=2), people(60, seed=3)


def fitted(inputs, label):
    model = LogisticRegression(C=INVERSE_STRENGTH, max_iter=5000, tol=1e-10).fit(inputs, label)
    return np.append(model.coef_[0], model.intercept_[0])


def scored(theta, inputs):
    return 1 / (1 + np.exp(-(with_constant(inputs) @ theta)))


THETA = fitted(*TRAIN[:2])


def loss_at(theta, *, threshold=0.5, temperature=1.0, sites=(VALIDATION,)):
    """L at the soft counts of the sites' validation patients."""
    counts = []
    for inputs, label, group in sites:
        soft, _ = soft_predictions(scored(theta, inputs), threshold=threshold, temperature=temperature)
        counts.append(count_patients(soft, labels=label, group=group, groups=2))
    return coefficients(OBJECTIVE, pool(counts), reference=REFERENCE)


def part(theta, site, *, values, threshold=0.5, temperature=1.0, dense=True):
    inputs, label, group = site
    _, slopes = soft_predictions(scored(theta, inputs), threshold=threshold, temperature=temperature)
    own = with_constant(inputs if dense else sparse.csr_array(inputs))
    return gradient(own, slopes=loss_slopes(slopes, labels=label, group=group, coefficients=values))


def split(site, *, first):
    return tuple(each[:first] for each in site), tuple(each[first:] for each in site)


@pytest.mark.parametrize(("threshold", "temperature"), [(0.5, 1.0), (0.3, 0.25)])
def test_the_sites_gradients_add_up_to_that_of_the_pooled_loss(threshold, temperature):
    how = {"threshold": threshold, "temperature": temperature}
    sites = split(VALIDATION, first=70)
    values = loss_at(THETA, sites=sites, **how).values
    total = sum(part(THETA, site, values=values, **how) for site in sites)
    for place in range(len(THETA)):
        moved = np.eye(len(THETA))[place] * 1e-5
        slope = (loss_at(THETA + moved, **how).loss - loss_at(THETA - moved, **how).loss) / 2e-5
        assert total[place] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_sparse_and_dense_inputs_give_the_same():
    values = loss_at(THETA).values
    dense, thin = (part(THETA, VALIDATION, values=values, dense=dense) for dense in (True, False))
    np.testing.assert_allclose(dense, thin, atol=1e-12)
    inputs, label, _ = CANDIDATES
    own = with_constant(inputs), with_constant(sparse.csr_array(inputs))
    for normalised in (False, True):
        pair = [
            alignment(each, scores=scored(THETA, inputs), labels=label, direction=dense, normalised=normalised)
            for each in own
        ]
        np.testing.assert_allclose(*pair, atol=1e-12)
    pair = [
        newton_direction(dense, inputs=each, scores=scored(THETA, inputs), penalty=1 / INVERSE_STRENGTH) for each in own
    ]
    np.testing.assert_allclose(*pair, rtol=1e-6, atol=1e-9)


def falls_when_trained_on():
    """How much L falls when the predictor is trained anew with one candidate more, for each."""
    inputs, label, _ = TRAIN
    before = loss_at(THETA).loss
    return np.array(
        [
            before - loss_at(fitted(np.vstack([inputs, row]), np.append(label, y))).loss
            for row, y in zip(*CANDIDATES[:2], strict=True)
        ]
    )


@pytest.fixture(scope="module")
def falls():
    return falls_when_trained_on()


def aligned(direction, **how):
    inputs, label, _ = CANDIDATES
    return alignment(with_constant(inputs), scores=scored(THETA, inputs), labels=label, direction=direction, **how)


def test_alignment_tells_which_candidate_lowers_the_loss_when_trained_on(falls):
    slope = part(THETA, VALIDATION, values=loss_at(THETA).values)
    found = aligned(slope)
    assert spearmanr(found, falls).statistic > 0.5


def test_along_the_newton_direction_alignment_is_the_fall_itself(falls):
    slope = part(THETA, VALIDATION, values=loss_at(THETA).values)
    direction = newton_direction(
        slope, inputs=with_constant(TRAIN[0]), scores=scored(THETA, TRAIN[0]), penalty=1 / INVERSE_STRENGTH
    )
    found = aligned(direction)
    assert spearmanr(found, falls).statistic > 0.95
    assert np.polyfit(found, falls, 1)[0] == pytest.approx(1, abs=0.15)


def test_training_on_the_best_candidates_lowers_the_loss_and_on_the_worst_raises_it():
    slope = part(THETA, VALIDATION, values=loss_at(THETA).values)
    order = np.argsort(-aligned(slope))
    losses = []
    for chosen in (order[:10], order[-10:]):
        rows, label = (
            np.concatenate([have, more[chosen]]) for have, more in zip(TRAIN[:2], CANDIDATES[:2], strict=True)
        )
        losses.append(loss_at(fitted(rows, label)).loss)
    assert losses[0] < loss_at(THETA).loss < losses[1]


def test_a_newton_direction_solves_the_training_loss_s_curvature():
    inputs, scores = with_constant(TRAIN[0]), scored(THETA, TRAIN[0])
    hessian = inputs.T @ (inputs * (scores * (1 - scores))[:, None])
    hessian += np.diag(np.append(np.full(8, 2.0), 0))
    wanted = np.arange(9.0)
    found = newton_direction(wanted, inputs=inputs, scores=scores, penalty=2.0)
    np.testing.assert_allclose(hessian @ found, wanted, atol=1e-6)


def test_soft_predictions_are_the_scores_and_harden_when_cold():
    scores = np.array([0.0, 0.1, 0.29, 0.31, 0.9, 1.0])
    soft, slopes = soft_predictions(scores)
    np.testing.assert_allclose(soft, scores, atol=1e-9)
    np.testing.assert_allclose(slopes, scores * (1 - scores), atol=1e-9)
    cold, _ = soft_predictions(scores, threshold=0.3, temperature=0.005)
    np.testing.assert_allclose(cold, scores > 0.3, atol=1e-3)


def test_a_normalised_alignment_is_a_cosine():
    inputs, label, _ = CANDIDATES
    direction = np.arange(9.0) - 4
    own = with_constant(inputs) * (scored(THETA, inputs) - label)[:, None]
    cosine = own @ direction / np.linalg.norm(own, axis=1)
    np.testing.assert_allclose(aligned(direction, normalised=True), cosine, atol=1e-12)
    none = alignment(np.zeros((2, 9)), scores=np.full(2, 0.5), labels=np.zeros(2), direction=direction, normalised=True)
    assert none.tolist() == [0, 0]


def test_a_patient_s_loss_slope_is_its_group_s_coefficient_and_for_positives_both():
    values = np.array([[1.0, 10.0], [2.0, 20.0]])
    found = loss_slopes(
        np.array([1.0, 0.5, 1.0, 0.1]), labels=np.array([0, 0, 1, 1]), group=np.array([0, 1, 0, 1]), coefficients=values
    )
    assert found.tolist() == pytest.approx([1, 1, 11, 2.2])


# --- selection -------------------------------------------------------------------------------------------------------

cells = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.int64, n, elements=st.integers(0, 2)),
        arrays(np.int64, n, elements=st.integers(0, 1)),
        arrays(np.float64, n, elements=st.integers(-5, 5).map(float)),
    )
)


def sizes(group, label):
    found = np.zeros((3, 2), dtype=np.int64)
    np.add.at(found, (group, label), 1)
    return found


@few
@given(cells, st.floats(0, 1), st.floats(0, 1), st.integers(0, 5))
def test_every_cell_gets_its_quota_from_its_best_share(people, filled, share, seed):
    group, label, found = people
    quotas = np.floor(sizes(group, label) * filled).astype(np.int64)
    kept = best_of(found, group=group, label=label, quotas=quotas, share=share, seed=seed)
    assert np.array_equal(sizes(group[kept], label[kept]), quotas)
    assert len(set(kept.tolist())) == len(kept)
    assert (np.diff(kept) > 0).all()
    for index in kept:
        own = np.flatnonzero((group == group[index]) & (label == label[index]))
        better = (found[own] > found[index]).sum()
        assert better < max(quotas[group[index], label[index]], np.ceil(share * len(own)))


@few
@given(cells, st.floats(0, 1), st.integers(0, 5))
def test_the_choice_depends_on_the_order_of_the_alignments_alone(people, share, seed):
    group, label, found = people
    how = {"group": group, "label": label, "quotas": sizes(group, label) // 2, "share": share, "seed": seed}
    assert np.array_equal(best_of(found, **how), best_of(np.exp(found) * 3, **how))


def test_a_share_of_zero_keeps_the_very_best_and_the_earlier_of_equals():
    found = np.array([1.0, 3.0, 3.0, 3.0, 0.0])
    group, label = np.zeros(5, dtype=np.int64), np.ones(5, dtype=np.int64)
    quotas = np.array([[0, 2]])
    assert best_of(found, group=group, label=label, quotas=quotas, share=0, seed=1).tolist() == [1, 2]


def test_a_share_of_one_does_not_look_at_the_alignments():
    group, label = np.zeros(200, dtype=np.int64), np.ones(200, dtype=np.int64)
    how = {"group": group, "label": label, "quotas": np.array([[0, 50]]), "share": 1.0}
    kept = [best_of(np.arange(200.0), seed=seed, **how) for seed in range(40)]
    assert np.mean(kept) == pytest.approx(99.5, abs=5)
    assert not np.array_equal(kept[0], kept[1])
    assert np.array_equal(kept[0], best_of(np.arange(200.0), seed=0, **how))


def test_too_few_candidates_and_a_share_that_is_none_are_refused():
    one = np.zeros(1, dtype=np.int64)
    with pytest.raises(CohortError):
        best_of(np.zeros(1), group=one, label=one, quotas=np.array([[0, 1]]), share=0.5, seed=0)
    with pytest.raises(ConfigError):
        best_of(np.zeros(1), group=one, label=one, quotas=np.array([[1, 0]]), share=1.5, seed=0)
