"""One site's share of a round: weights in, weights and additive statistics out.

In:  the global weights, the site's records, the pooled totals and coefficients.   Out: `Trained`, `Measured`.
Never: files, the network, other sites' data, global random state.

Adam, begun from `Study.moments` (a site keeps nothing between rounds), gradients clipped to norm 1. The same arguments
on the same machine give the same bytes. Weights are as the site uses them, with its base rates (`base_rates.at_home`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fairsynth.config import ObjectiveConfig, StudyPlan
from fairsynth.generator import loss
from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import MEASURE_STEPS, Descent, Fairness, Objective, adam
from fairsynth.generator.downstream import Downstream, DownstreamTerm, Feedback
from fairsynth.generator.model import Halo, build, check_weights, packed, unpacked, weights_of
from fairsynth.schemas import Arrays, FloatArray, IntArray
from fairsynth.seeds import numpy_stream
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

_LONG_AGO = 1e6  # steps after which Adam's bias corrections are 1


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Of the training patients of all sites."""

    patients: int  # n
    positions: float  # predicted positions a patient: visits + 1, on average


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Adam's running means of each gradient and of its square, bias-corrected, by the weights' names."""

    first: Arrays
    second: Arrays


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a site needs to know of the study to train."""

    vocabulary: Vocabulary
    plan: StudyPlan
    totals: Totals
    learning_rate: float | None = None  # of this round; None: the plan's
    moments: Moments | None = None  # averaged over the sites; None: begin anew


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """The weights after local training; `bounded` says that a coefficient hit its bound."""

    weights: Arrays
    bounded: bool
    moments: Moments


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Statistics of a model on records. `soft` and `hard` (G, 4): N_g, P_g, S_g, TP_g, summed over patients."""

    soft: FloatArray
    hard: FloatArray
    nll: float  # nats, summed over all tokens of all predicted visits, label visits included
    cells: int  # predicted visits that `nll` sums over, label visits included


def train(
    weights: Arrays,
    *,
    records: Records,
    study: Study,
    coefficients: FloatArray | Feedback | None,
    epochs: int,
    seed: int,
) -> Trained:
    """`weights` after `epochs` passes over `records`.

    `coefficients` (G, 2) are dL_F/dS_g and dL_F/dTP_g of the pooled counts, or `Feedback` where L_DF steers (Eq. 5).
    Without them, or with lambda = 0, this is plain HALO, bit for bit. Raises ProtocolError when the weights do not fit
    the study, CohortError when a patient has too many visits.
    """
    plan = study.plan
    model = build(weights, vocabulary=study.vocabulary, config=plan.generator)
    sequences = sequences_of(records, study)
    slopes, bounded = slopes_of(coefficients, objective=plan.objective, patients=study.totals.patients)
    predictor = coefficients.predictor if isinstance(coefficients, Feedback) else None
    optimiser = adam_of(model, study)
    objective = objective_of(study, slopes=slopes, predictor=predictor)
    descent = Descent(model=model, optimiser=optimiser, sequences=sequences, objective=objective)
    order = numpy_stream(seed, "train", "order")
    with threads(plan.training.threads):
        for _ in range(epochs):
            for rows in shuffled(len(sequences), size=plan.training.batch_size, order=order):
                descent.step(rows)
        descent.report()
    return Trained(weights=weights_of(model), bounded=bounded, moments=moments_of(optimiser, model))


def objective_of(study: Study, *, slopes: Tensor | None, predictor: Downstream | None = None) -> Objective:
    """The study's training loss; `slopes` (G, 2) is n * c, None without a fairness term.

    They are slopes by the counts of the generator's own predictions or, with a frozen `predictor`, by those of its
    scores.
    """
    plan = study.plan.objective
    plain = Objective(layout=study.vocabulary.layout, positions=study.totals.positions)
    if slopes is None:
        return plain
    if predictor is None:
        return replace(plain, fairness=Fairness(slopes=slopes, target=plan.target, weight=plan.weight))
    return replace(plain, downstream=DownstreamTerm(predictor=predictor, slopes=slopes, weight=plan.weight))


@torch.no_grad()
def measure(weights: Arrays, *, records: Records, study: Study) -> Measured:
    """The additive statistics of the model `weights` on `records`, summed in float64."""
    plan, layout = study.plan, study.vocabulary.layout
    model = build(weights, vocabulary=study.vocabulary, config=plan.generator)
    sequences = sequences_of(records, study)
    counts = np.zeros((2, len(plan.groups.names), 4))
    nll = 0.0
    with threads(plan.training.threads):
        for batch in sequences.batches(steps=MEASURE_STEPS):
            logits = model(batch)
            target = batch.dense(layout, logits.dtype)
            nll += float(loss.cross_entropy(logits, target))
            for total, predictions in zip(counts, (loss.soft(logits), loss.hard(logits)), strict=True):
                patients = loss.patient_counts(
                    predictions, target, batch=batch, over=plan.objective.target, layout=layout
                )
                _add_by_group(total, patients, group=batch.group)
    return Measured(soft=counts[0], hard=counts[1], nll=nll, cells=int(sequences.steps.sum()))


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Torch with `number` threads inside the block: sums on a CPU depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def adam_of(model: Halo, study: Study) -> torch.optim.Adam:
    """The study's optimiser of `model`, begun from its moments. Raises ProtocolError when these do not fit."""
    rate = study.plan.training.learning_rate if study.learning_rate is None else study.learning_rate
    optimiser = adam(model, learning_rate=rate, weight_decay=study.plan.training.weight_decay)
    if study.moments is not None:
        _continue(optimiser, model, study.moments)
    return optimiser


def _continue(optimiser: torch.optim.Adam, model: Halo, moments: Moments) -> None:
    """Let the optimiser begin where the sites' averaged moments are.

    Sites that each scale their steps by moments of their own do not step along the mean of their gradients, and settle
    beside the pooled optimum, the further the more they differ; from one state for all, the mean of their steps is a
    step along the mean gradient (after Karimireddy et al. 2020, Mime; measured in docs/decisions/002). Raises
    ProtocolError when the moments do not fit the model.
    """
    for arrays in (moments.first, moments.second):
        check_weights(arrays, model=model)
    for name, parameter in model.named_parameters():
        optimiser.state[parameter] = {
            "step": torch.tensor(_LONG_AGO),
            "exp_avg": unpacked(moments.first[name], name, model=model),
            "exp_avg_sq": unpacked(moments.second[name], name, model=model),
        }


def moments_of(optimiser: torch.optim.Adam, model: Halo) -> Moments:
    """The optimiser's bias-corrected moments; zero where it never stepped."""
    found: tuple[Arrays, Arrays] = ({}, {})
    for name, parameter in model.named_parameters():
        state = optimiser.state.get(parameter)
        for arrays, key, decay in zip(found, ("exp_avg", "exp_avg_sq"), optimiser.defaults["betas"], strict=True):
            values = state[key] / (1 - decay ** float(state["step"])) if state else torch.zeros_like(parameter)
            arrays[name] = packed(values, name, model=model)
    return Moments(first=found[0], second=found[1])


def sequences_of(records: Records, study: Study) -> Sequences:
    """The rows of `records`. Raises CohortError when a patient has too many visits."""
    maximum = study.plan.generator.maximum_visits
    return Sequences.of(records, vocabulary=study.vocabulary, maximum_visits=maximum)


def shuffled(patients: int, *, size: int, order: np.random.Generator) -> Iterator[IntArray]:
    """The rows of each batch of one pass over all patients, in a new random order."""
    rows = order.permutation(patients)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def slopes_of(
    coefficients: FloatArray | Feedback | None, *, objective: ObjectiveConfig, patients: int
) -> tuple[Tensor | None, bool]:
    """n * c within the objective's bound, and whether the bound was hit; None when there is no fairness term.

    n is `patients`, of feedback those that its own counts sum over.
    """
    if coefficients is None or objective.weight == 0:
        return None, False
    values, number = coefficients, patients
    if isinstance(coefficients, Feedback):
        values, number = coefficients.coefficients, coefficients.patients
    free = number * torch.from_numpy(np.asarray(values, dtype=np.float64))
    bound = objective.maximum_coefficient
    return free.clamp(-bound, bound), bool((free.abs() > bound).any())


def _add_by_group(total: FloatArray, counts: loss.PatientCounts, *, group: Tensor) -> None:
    """Add each patient's counts to the (G, 4) `total`."""
    columns = (torch.ones_like(counts.positives), counts.positives, counts.predicted, counts.true_positives)
    values = torch.stack(columns, dim=1).double().numpy()
    np.add.at(total, group.numpy(), values)
