"""A site's share of a round under differential privacy: DP-SGD per patient (Abadi et al. 2016).

In:  as `train`, a clip, noise, and a secret key of the site.   Out: `Trained`, and what the ledger is charged for it.
Never: a loss in which patients meet; noise that leaves the site or can be guessed; a statistic of the patients that the
caller did not pass in.

Each step draws each patient with the same chance (Poisson; nobody is an outcome too), forms each patient's gradient by
itself, scales it down to an L2 norm of at most `clip` over all weights, adds normal noise of standard deviation
noise_multiplier * clip to the sum, divides by the batch that was expected, and leaves the rest to Adam. What the
weights tell of one patient, added or left out, is then bounded by `PrivateTraining.mechanism`, given all else.

All else: the received weights and moments, n, `positions`, the coefficients, the vocabulary, and, where a site adds its
base rates to the output bias, those. If they follow from this site's patients without noise, the bound does not hold
for the whole (docs/differential_privacy.md); `private_counts` has base rates and group counts with noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from fairsynth.errors import ConfigError, PolicyRefusal
from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import CLIP_NORM
from fairsynth.generator.downstream import Feedback
from fairsynth.generator.model import Halo, build, weights_of
from fairsynth.generator.plain import Dense, Patients, Plain, patients_of
from fairsynth.generator.train import Moments, Study, Trained, adam_of, moments_of, sequences_of, slopes_of, threads
from fairsynth.governance.budget import DpSgd
from fairsynth.governance.keystream import Keystream
from fairsynth.schemas import Arrays, FloatArray, IntArray
from fairsynth.visits.records import Records

HELD = 1 << 25  # numbers of patients' gradients that are held at once: 128 MiB
MOST_AT_ONCE = 128  # patients
SLACK = 1e-3  # more noise than is charged: others' gradients differ in their last bits by who is beside them
ROUNDING = 1e-5  # the clip is kept this much under its bound, for sums in float32
_LENGTHS = (2, 3, 5, 9, 17, 33, 65)  # rows; patients of similar length are computed together

Loss = Callable[[Dense, Patients], Tensor]


@dataclass(frozen=True, kw_only=True)
class PrivateTraining:
    """How one call of `train_private` trains.

    clip              L2 norm of a patient's gradient, at most
    noise_multiplier  standard deviation of the noise on the sum of gradients, over `clip`
    expected_batch    patients a step, on average
    steps             optimisation steps
    """

    clip: float
    noise_multiplier: float
    expected_batch: float
    steps: int

    def __post_init__(self) -> None:
        numbers = (self.clip, self.noise_multiplier, self.expected_batch)
        if not (all(0 < value < math.inf for value in numbers) and self.steps >= 1):
            raise ConfigError.of(
                "not a private training",
                where="clip, noise_multiplier, expected_batch, steps",
                expected="numbers above 0; without noise there is no privacy",
            )

    def rate(self, patients: int) -> float:
        """The chance of each patient to be in a step. Raises ConfigError where fewer than a batch are there."""
        if patients < self.expected_batch:
            raise ConfigError.of(
                "fewer patients than a batch",
                where=f"{patients} patients",
                expected=f"at least {self.expected_batch:g}",
            )
        return self.expected_batch / patients

    def moments_of_noise(self, weights: Arrays) -> Moments:
        """Where Adam begins: at the moments of the noise alone, which are known.

        From nothing it would scale each weight's steps by the square of one or two draws of noise, and the weights
        whose draws happened to be small would run off; moments that are handed from round to round forget them slowly.
        """
        variance = (self.noise_multiplier * self.clip / self.expected_batch) ** 2
        return Moments(
            first={name: np.zeros_like(array) for name, array in weights.items()},
            second={name: np.full_like(array, variance) for name, array in weights.items()},
        )

    def mechanism(self, patients: int) -> DpSgd:
        """What the ledger is charged for one call with this many `patients`."""
        return DpSgd(steps=self.steps, rate=self.rate(patients), noise_multiplier=self.noise_multiplier)


def steps_of(epochs: int, *, patients: int, expected_batch: float) -> int:
    """Steps that draw each patient `epochs` times on average."""
    return max(1, round(epochs * patients / expected_batch))


def train_private(
    weights: Arrays,
    *,
    records: Records,
    study: Study,
    coefficients: FloatArray | Feedback | None,
    private: PrivateTraining,
    key: bytes,
    patients: int | None = None,
) -> Trained:
    """`weights` after `private.steps` steps on `records`; arguments and result otherwise as those of `train.train`.

    `patients` is the number of patients that others know, with noise, from which the chance to be in a step follows;
    None: that of `records`, which is then taken as public. As in `train.train`, a step's gradient has norm 1 at most,
    once its noise is in it.

    `key` is 32 secret bytes, used for this call alone (`drawn.Drawn.secret`); the same key and arguments give the same
    bytes. Raises PolicyRefusal for `Feedback`, whose predictor was trained on patients without noise, ConfigError where
    fewer patients than a batch are there; else as `train.train`.
    """
    if isinstance(coefficients, Feedback):
        raise PolicyRefusal.of(
            "a predictor steers a private training",
            where="coefficients",
            expected="coefficients of noised counts",
            do="train without downstream feedback under differential privacy",
        )
    model = build(weights, vocabulary=study.vocabulary, config=study.plan.generator)
    sequences = sequences_of(records, study)
    slopes, bounded = slopes_of(coefficients, objective=study.plan.objective, patients=study.totals.patients)
    optimiser = adam_of(model, study)
    descent = PrivateDescent(
        model=model,
        sequences=sequences,
        plain=plain_of(model, study),
        slopes=weighted(slopes, study),
        private=private,
        stream=Keystream(key),
    )
    rate = private.rate(len(sequences) if patients is None else patients)
    with threads(study.plan.training.threads):
        for _ in range(private.steps):
            descent.leave_gradient(rate=rate)
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimiser.step()
    return Trained(weights=weights_of(model), bounded=bounded, moments=moments_of(optimiser, model))


def plain_of(model: Halo, study: Study) -> Plain:
    """`model` for one patient, under the study's loss."""
    scale = 1 / (study.vocabulary.layout.size * study.totals.positions)
    return Plain.of(model, heads=study.plan.generator.heads, over=study.plan.objective.target, scale=scale)


def weighted(slopes: Tensor | None, study: Study) -> Tensor:
    """(G, 2) lambda n c; zero without a fairness term."""
    groups = len(study.plan.groups.names)
    return torch.zeros(groups, 2) if slopes is None else study.plan.objective.weight * slopes


@dataclass(frozen=True, kw_only=True, eq=False)
class PrivateDescent:
    """A model on its way down, on noised sums of clipped gradients."""

    model: Halo
    sequences: Sequences
    plain: Plain
    slopes: Tensor
    private: PrivateTraining
    stream: Keystream

    def leave_gradient(self, *, rate: float) -> None:
        """Leave the gradient of one step in the parameters: the noised sum over the batch that was expected."""
        rows = np.flatnonzero(self.stream.uniform(len(self.sequences)) < rate)
        clipped = self.clipped(rows)
        deviation = self.private.noise_multiplier * self.private.clip * (1 + SLACK)
        for name, parameter in self.model.named_parameters():
            noise = torch.from_numpy(self.stream.normal(parameter.numel())).view_as(parameter)
            noised = self.plain.flat(name, clipped[name], like=parameter).view_as(parameter) + deviation * noise
            triangle = self.model.triangles().get(name)
            noised = noised if triangle is None else triangle.keep(noised)
            parameter.grad = (noised / self.private.expected_batch).to(parameter.dtype)

    def clipped(self, rows: IntArray) -> Dense:
        """The sum of the clipped gradients of the patients `rows`, which may be nobody."""
        weights = self.plain.dense(self.model)
        total = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
        size = sum(weight.numel() for weight in weights.values())
        at_once = min(max(1, HELD // size), MOST_AT_ONCE)
        for patients in chunks(self.sequences, rows, slopes=self.slopes, at_once=at_once):
            gradients = patient_gradients(self.plain.loss, weights, patients)
            for name, part in clipped_sum(gradients, clip=self.private.clip).items():
                total[name] += part
        return total


def chunks(sequences: Sequences, rows: IntArray, *, slopes: Tensor, at_once: int) -> Iterator[Patients]:
    """The patients `rows`, at most `at_once` together, those of similar length."""
    ceiling = np.searchsorted(_LENGTHS, sequences.steps[rows])
    for length in np.unique(ceiling):
        alike = rows[ceiling == length]
        for start in range(0, len(alike), at_once):
            yield patients_of(sequences, alike[start : start + at_once], slopes=slopes)


def patient_gradients(loss: Loss, weights: Dense, patients: Patients) -> Dense:
    """(B, ...) the gradient of each patient's own loss, by weight.

    Raises PolicyRefusal when `loss` of one patient is not one number: then it is not that patient's alone.
    """

    def own(weights: Dense, patient: Patients) -> Tensor:
        value = loss(weights, patient)
        if value.shape != ():
            raise PolicyRefusal.of(
                "the loss is not one number a patient",
                where=f"a loss of {value.dim()} dimensions",
                expected="shape () for a patient, (B,) for all",
                do="sum it over the patient's own cells",
            )
        return value

    found: Dense = vmap(grad(own), in_dims=(None, 0))(weights, patients)
    return found


def clipped_sum(gradients: Dense, *, clip: float) -> Dense:
    """The sum over patients of (B, ...) gradients that are scaled down to an L2 norm of at most `clip`.

    The norm is over all weights. A gradient that is not finite counts as zero, so that it moves nothing.
    """
    flat = {name: values.flatten(1) for name, values in gradients.items()}
    each = [torch.linalg.vector_norm(values, dim=1, dtype=torch.float64) for values in flat.values()]
    norms = torch.linalg.vector_norm(torch.stack(each), dim=0)  # (B,)
    finite = torch.isfinite(norms)
    factors = torch.clamp(clip / norms[finite].clamp(min=1e-12) * (1 - ROUNDING), max=1.0)
    if not bool(finite.all()):
        flat = {name: values[finite] for name, values in flat.items()}
    return {
        name: (factors.to(values.dtype) @ values).double().view(gradients[name].shape[1:])
        for name, values in flat.items()
    }
