from dataclasses import replace

import numpy as np
import pytest
import torch
from generator_opacus import Halo as OpacusHalo
from generator_toys import SMALL, SMALL_VOCABULARY, hospital, rough_weights, study_of
from opacus import GradSampleModule
from scipy import stats

from benchmarks.dp_attack import lower_bound
from fairsynth.config import ObjectiveConfig
from fairsynth.errors import CohortError, ConfigError, PolicyRefusal
from fairsynth.generator.downstream import Feedback
from fairsynth.generator.model import build
from fairsynth.generator.plain import patients_of
from fairsynth.generator.private import (
    PrivateDescent,
    PrivateTraining,
    chunks,
    clipped_sum,
    patient_gradients,
    plain_of,
    steps_of,
    train_private,
    weighted,
)
from fairsynth.generator.train import measure, objective_of, sequences_of, slopes_of, train
from fairsynth.governance.budget import DpSgd, epsilon_of
from fairsynth.governance.keystream import Keystream
from fairsynth.seeds import stream

COEFFICIENTS = np.array([[0.01, 0.0], [-0.02, 0.003], [-0.02, 0.01]])
WEIGHTS = rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=3, noise=0.1)
KEY = bytes(range(32))


class Site:
    """Forty patients, a model, and all that a private step needs."""

    def __init__(self, *, target="codes", records=None, weights=WEIGHTS):
        self.records = hospital(40, seed=1) if records is None else records
        self.study = study_of(self.records, objective=ObjectiveConfig(target=target), patients=40, positions=2.5)
        self.model = build(weights, vocabulary=SMALL_VOCABULARY, config=SMALL)
        self.sequences = sequences_of(self.records, self.study)
        self.raw, _ = slopes_of(COEFFICIENTS, objective=self.study.plan.objective, patients=40)
        self.slopes = weighted(self.raw, self.study)
        self.plain = plain_of(self.model, self.study)
        self.dense = self.plain.dense(self.model)

    def patients(self, rows):
        return patients_of(self.sequences, np.asarray(rows), slopes=self.slopes)

    def gradients(self, rows):
        return patient_gradients(self.plain.loss, self.dense, self.patients(rows))

    def descent(self, *, clip=0.1, noise_multiplier=1.0, expected_batch=10, key=KEY):
        private = PrivateTraining(clip=clip, noise_multiplier=noise_multiplier, expected_batch=expected_batch, steps=1)
        return PrivateDescent(
            model=self.model,
            sequences=self.sequences,
            plain=self.plain,
            slopes=self.slopes,
            private=private,
            stream=Keystream(key),
        )

    def noised(self, *, rate, **private):
        """The gradient that one step leaves, as one vector of what exists, times the expected batch."""
        descent = self.descent(**private)
        descent.leave_gradient(rate=rate)
        parts = []
        for name, parameter in self.model.named_parameters():
            triangle = self.model.triangles().get(name)
            parts.append(parameter.grad.flatten() if triangle is None else triangle.pack(parameter.grad))
        return torch.cat(parts).double() * descent.private.expected_batch


def norm_of(sums):
    return float(torch.sqrt(sum(values.double().square().sum() for values in sums.values())))


@pytest.fixture(scope="module", params=["codes", "label"])
def site(request):
    return Site(target=request.param)


def test_each_patients_gradient_is_that_of_the_package_for_the_patient_alone(site):
    objective = objective_of(site.study, slopes=site.raw)
    rows = np.arange(40)
    found = site.gradients(rows)
    for i in rows[::3]:
        site.model.zero_grad()
        objective.of(site.model, site.sequences.batch(rows[i : i + 1])).backward()
        for name, parameter in site.model.named_parameters():
            own = site.plain.flat(name, found[name][i], like=parameter).view_as(parameter)
            assert torch.allclose(own, parameter.grad, rtol=0, atol=1e-6), (name, i)


def test_each_patients_gradient_is_that_of_a_loop_in_float64(site):
    dense = {name: weight.double() for name, weight in site.dense.items()}
    patients = type(site.patients([0]))(*(tensor.double() for tensor in site.patients(np.arange(12))))
    found = patient_gradients(site.plain.loss, dense, patients)
    for i in range(12):
        leaves = {name: weight.clone().requires_grad_() for name, weight in dense.items()}
        site.plain.loss(leaves, type(patients)(*(tensor[i] for tensor in patients))).backward()
        for name, leaf in leaves.items():
            assert torch.allclose(found[name][i], leaf.grad, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_each_patients_gradient_is_that_of_opacus(site):
    patients = site.patients(np.arange(40))
    oracle = OpacusHalo(site.dense, site.plain, embedding=SMALL.embedding, longest=SMALL.maximum_visits + 1)
    wrapped = GradSampleModule(oracle, loss_reduction="sum")
    logits = wrapped(patients.rows)
    cells = torch.nn.functional.binary_cross_entropy_with_logits(logits, patients.rows, reduction="none")
    losses = (cells.sum(dim=2) * patients.real).sum(dim=1)
    layout, chance = site.plain.layout, torch.sigmoid(logits)
    if site.plain.over == "label":
        predicted = chance[:, 0, layout.label]
        true_positives = predicted * patients.label
    else:
        codes = chance[:, 1:, layout.codes] * patients.real[:, 1:, None]
        predicted = codes.sum(dim=(1, 2))
        true_positives = (codes * patients.rows[:, 1:, layout.codes]).sum(dim=(1, 2))
    losses = losses + patients.slopes[:, 0] * predicted + patients.slopes[:, 1] * true_positives
    (site.plain.scale * losses).sum().backward()
    found = site.gradients(np.arange(40))
    for name, parameter in oracle.named_parameters():
        ours = OpacusHalo.ours(name)
        theirs = OpacusHalo.turned(name, parameter.grad_sample)
        if ours in site.plain.places:
            theirs = theirs * (site.plain.places[ours] > 0)  # torch's layer has entries that ours does not
        assert torch.allclose(found[ours], theirs, rtol=0, atol=1e-5), name
        assert theirs.abs().max() > 1e-4


def test_the_fairness_term_reaches_each_patient_with_the_coefficients_of_its_group(site):
    patients = site.patients(np.arange(40))
    term = vmapped(site, patients) - vmapped(site, patients._replace(slopes=torch.zeros(40, 2)))
    slopes = site.study.plan.objective.weight * 40 * torch.from_numpy(COEFFICIENTS)[site.records.group]
    signs = torch.sign(term[slopes[:, 1] == 0])
    assert torch.equal(signs, torch.sign(slopes[slopes[:, 1] == 0, 0]).to(signs))
    assert (signs > 0).any() and (site.records.group == 1).any()


def vmapped(site, patients):
    return torch.vmap(site.plain.loss, in_dims=(None, 0))(site.dense, patients)


def test_losses_of_patients_are_one_number_each_and_mix_nobody(site):
    everyone = vmapped(site, site.patients(np.arange(40)))
    assert everyone.shape == (40,)
    some = vmapped(site, site.patients(np.array([5, 9])))
    assert torch.allclose(some, everyone[[5, 9]], atol=1e-6)


def test_a_loss_that_is_not_one_number_a_patient_is_refused(site):
    def of_rows(weights, patient):
        return site.plain.logits(weights, patient.rows).sum(dim=1)

    with pytest.raises(PolicyRefusal, match="FS-400 the loss is not one number a patient"):
        patient_gradients(of_rows, site.dense, site.patients(np.arange(3)))


def test_no_patient_adds_more_than_the_clip(site):
    for clip in (1e-3, 0.05, 1e3):
        for i in range(0, 40, 6):
            assert norm_of(clipped_sum(site.gradients([i]), clip=clip)) <= clip * (1 + 1e-9)


def test_small_gradients_are_not_scaled(site):
    gradients = site.gradients(np.arange(6))
    sums = clipped_sum(gradients, clip=1e6)
    for name, values in gradients.items():
        assert torch.allclose(sums[name], values.double().sum(dim=0), atol=1e-6)


def test_a_gradient_that_is_not_finite_adds_nothing(site):
    gradients = site.gradients(np.arange(4))
    broken = {name: values.clone() for name, values in gradients.items()}
    broken["embedding"][1, 0, 0] = torch.nan
    broken["embedding"][2, 0, 0] = torch.inf
    rest = clipped_sum({name: values[[0, 3]] for name, values in gradients.items()}, clip=0.1)
    for name, values in clipped_sum(broken, clip=0.1).items():
        assert torch.allclose(values, rest[name], atol=1e-7)


def test_one_patient_more_moves_the_clipped_sum_by_the_clip_and_another_one_by_two(site):
    clip = 0.02  # below every norm, so that the bound is reached
    descent = site.descent(clip=clip)
    everyone, without = descent.clipped(np.arange(20)), descent.clipped(np.arange(19))
    swapped = descent.clipped(np.r_[np.arange(19), 39])
    assert norm_of(minus(everyone, without)) == pytest.approx(clip, rel=1e-4)
    assert norm_of(minus(everyone, swapped)) <= 2 * clip * (1 + 1e-9)


def minus(first, second):
    return {name: values - second[name] for name, values in first.items()}


def test_the_order_and_the_size_of_chunks_change_nothing(site):
    rows = np.arange(40)
    sizes = [len(part.real) for part in chunks(site.sequences, rows, slopes=site.slopes, at_once=7)]
    assert max(sizes) == 7 and sum(sizes) == 40
    whole = site.descent().clipped(rows)
    turned = site.descent().clipped(rows[::-1])
    parts = [site.descent().clipped(part) for part in (rows[:1], rows[1:2], rows[2:9], rows[9:])]
    for name, values in whole.items():
        assert torch.allclose(values, turned[name], atol=1e-7)
        assert torch.allclose(values, sum(part[name] for part in parts), atol=1e-7)


def test_a_step_that_draws_nobody_is_noise_of_the_stated_size():
    clip, multiplier = 0.5, 3.0
    noise = Site().noised(rate=1e-12, clip=clip, noise_multiplier=multiplier)
    assert len(noise) > 4000
    assert stats.kstest(noise.numpy() / (clip * multiplier), "norm").pvalue > 1e-3
    assert float(noise.std()) == pytest.approx(clip * multiplier, rel=5 / np.sqrt(2 * len(noise)))


def test_noise_is_added_to_the_clipped_sum_of_those_who_were_drawn():
    site = Site()
    noise = site.noised(rate=1e-12)
    both = site.noised(rate=1.0)
    clipped = site.descent().clipped(np.arange(40))
    parts = []
    for name, parameter in site.model.named_parameters():
        flat = site.plain.flat(name, clipped[name], like=parameter).flatten()
        triangle = site.model.triangles().get(name)
        parts.append(flat if triangle is None else triangle.pack(flat))
    assert torch.allclose(both - noise, torch.cat(parts), atol=1e-6)


@pytest.mark.slow
def test_an_attack_on_a_step_stays_below_its_epsilon_and_detects_too_little_noise():
    claimed = epsilon_of([DpSgd(steps=1, rate=1.0, noise_multiplier=2.0)], delta=1e-5).tight
    site, canary = Site(records=hospital(3, seed=1)), 2
    clip = 0.02
    shape = site.descent(clip=clip).clipped(np.array([canary]))  # what only the canary adds

    def scores(rows, *, noise_multiplier):
        found = []
        for trial in range(400):
            key = stream(trial, len(rows), str(noise_multiplier)).to_bytes(32, "little")
            descent = replace(site.descent(clip=clip, noise_multiplier=noise_multiplier, key=key), sequences=rows)
            descent.leave_gradient(rate=1.0)
            product = 0.0
            for name, parameter in site.model.named_parameters():
                flat = site.plain.flat(name, shape[name], like=parameter).view_as(parameter)
                product += float((flat * parameter.grad).sum())
            found.append(product)
        return np.array(found)

    inside, outside = site.sequences, sequences_of(site.records.take(np.array([0, 1])), site.study)
    bounds = [
        lower_bound(*(scores(rows, noise_multiplier=noise) for rows in (inside, outside)), delta=1e-5)
        for noise in (2.0, 0.3)
    ]
    assert bounds[0] < claimed < bounds[1]


def test_each_patient_is_drawn_with_the_stated_chance():
    drawn = Keystream(KEY).uniform(400_000).reshape(1000, 400) < 0.05
    assert stats.binomtest(int(drawn.sum()), 400_000, 0.05).pvalue > 1e-3
    assert drawn.sum(axis=1).std() == pytest.approx(np.sqrt(400 * 0.05 * 0.95), rel=0.1)


PRIVATE = PrivateTraining(clip=0.05, noise_multiplier=1.0, expected_batch=8, steps=6)


def trained(site, *, private=PRIVATE, key=KEY, coefficients=COEFFICIENTS, weights=WEIGHTS):
    return train_private(
        weights, records=site.records, study=site.study, coefficients=coefficients, private=private, key=key
    )


def test_the_result_is_that_of_training_without_privacy_in_kind():
    site = Site()
    plain = train(WEIGHTS, records=site.records, study=site.study, coefficients=COEFFICIENTS, epochs=1, seed=1)
    private = trained(site)
    for arrays, others in (
        (private.weights, plain.weights),
        (private.moments.first, plain.moments.first),
        (private.moments.second, plain.moments.second),
    ):
        assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
            name: (array.shape, array.dtype) for name, array in others.items()
        }
        assert all(np.isfinite(array).all() for array in arrays.values())


def test_the_same_key_gives_the_same_bytes_and_another_key_others():
    state = torch.get_rng_state()
    first, again, other = (trained(Site(), key=key).weights for key in (KEY, KEY, bytes(32)))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_steps_that_draw_nobody_still_train():
    few = PrivateTraining(clip=0.05, noise_multiplier=1.0, expected_batch=0.01, steps=3)
    assert all(np.isfinite(array).all() for array in trained(Site(), private=few).weights.values())


def test_with_little_noise_it_learns_what_training_without_privacy_learns():
    records = hospital(400, seed=5)
    study = study_of(records, learning_rate=5e-3, batch_size=40)
    quiet = PrivateTraining(clip=1.0, noise_multiplier=1e-3, expected_batch=40, steps=60)
    found = train_private(WEIGHTS, records=records, study=study, coefficients=None, private=quiet, key=KEY)
    plain = train(WEIGHTS, records=records, study=study, coefficients=None, epochs=6, seed=1)

    def nll(weights):
        measured = measure(weights, records=records, study=study)
        return measured.nll / measured.cells

    assert nll(found.weights) < nll(plain.weights) + 0.25 * (nll(WEIGHTS) - nll(plain.weights))


def test_training_goes_on_from_received_moments():
    site = Site()
    before = trained(site)
    site.study = replace(site.study, moments=before.moments)
    assert not np.array_equal(trained(site).weights["embedding"], before.weights["embedding"])


def test_downstream_feedback_is_refused():
    feedback = Feedback(predictor=object(), coefficients=COEFFICIENTS, patients=10)
    with pytest.raises(PolicyRefusal, match="a predictor steers a private training"):
        trained(Site(), coefficients=feedback)


def test_fewer_patients_than_a_batch_are_refused():
    with pytest.raises(ConfigError, match="fewer patients than a batch"):
        trained(Site(records=hospital(5, seed=1)))


def test_too_many_visits_are_refused():
    records, generator = hospital(40, seed=1), SMALL.model_copy(update={"maximum_visits": 1})
    weights = rough_weights(words=SMALL_VOCABULARY, config=generator, seed=3)
    study = study_of(records, generator=generator)
    with pytest.raises(CohortError, match="more visits"):
        train_private(weights, records=records, study=study, coefficients=None, private=PRIVATE, key=KEY)


@pytest.mark.parametrize(
    "wrong",
    [{"clip": 0.0}, {"noise_multiplier": 0.0}, {"noise_multiplier": np.nan}, {"expected_batch": 0}, {"steps": 0}],
)
def test_what_gives_no_privacy_is_refused(wrong):
    with pytest.raises(ConfigError, match="not a private training"):
        PrivateTraining(**{"clip": 1.0, "noise_multiplier": 1.0, "expected_batch": 8, "steps": 3, **wrong})


def test_the_ledger_is_charged_for_the_steps_the_chance_and_the_noise():
    assert PRIVATE.mechanism(40) == DpSgd(steps=6, rate=0.2, noise_multiplier=1.0)
    assert steps_of(3, patients=40, expected_batch=8) == 15
