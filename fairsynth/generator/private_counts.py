"""Sums over a site's patients of which each patient changes a bounded amount, ready for noise.

In:  records, a model.   Out: fixed-point integers (`noise.UNIT` is 1.0) and their L2 sensitivity to one patient.
Never: noise (`noise.discrete_gaussian`), a count without a bound.

A patient whose numbers are larger than the bound is scaled down whole: a rate of two of its numbers stays as it was.
The bound must not be chosen by looking at the patients: it is part of the plan.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from fairsynth.generator import loss
from fairsynth.generator.descent import MEASURE_STEPS
from fairsynth.generator.model import build
from fairsynth.generator.train import Study, sequences_of, threads
from fairsynth.governance.noise import UNIT, clipped_sum, from_fixed
from fairsynth.schemas import Arrays, FloatArray, IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

_PART = 1024  # patients that are held dense at once


def occurrences(records: Records, *, vocabulary: Vocabulary, bound: float) -> IntArray:
    """(V + 1,) fixed point: how often each token occurs, `end` once a patient; last, the number of visits.

    L2 sensitivity: `bound * noise.UNIT`.
    """
    size, end = vocabulary.layout.size, vocabulary.layout.end
    visit_codes = np.repeat(records.visit_patient, np.diff(records.visit_offsets))
    contexts = np.repeat(np.arange(len(records)), np.diff(records.context_offsets))
    total = np.zeros(size + 1, dtype=np.int64)
    for start in range(0, len(records), _PART):
        number = min(_PART, len(records) - start)
        vectors = np.zeros((number, size + 1))
        for owner, tokens in ((visit_codes, records.codes), (contexts, records.context)):
            own = (owner >= start) & (owner < start + number)
            np.add.at(vectors, (owner[own] - start, tokens[own]), 1)
        vectors[:, end] = 1
        vectors[:, size] = records.visit_counts[start : start + number]
        total += clipped_sum(vectors, bound=bound)
    return total


def noised_base_rates(noised: IntArray, *, vocabulary: Vocabulary) -> FloatArray:
    """(V,) log-odds of each token, as `base_rates` defines them, from `occurrences` with noise.

    What noise took beyond the possible is taken as the nearest possible count.
    """
    layout = vocabulary.layout
    counts = np.maximum(from_fixed(noised), 0.0)
    chances = np.full(layout.size, max(counts[layout.size], 1.0))
    chances[layout.context] = max(counts[layout.end], 1.0)
    occurs = np.minimum(counts[: layout.size], chances)
    return np.asarray(np.log(occurs + 0.5) - np.log(chances - occurs + 0.5))


@torch.no_grad()
def group_counts(weights: Arrays, *, records: Records, study: Study, bound: float, soft: bool = True) -> IntArray:
    """(G, 4) fixed point: N_g, P_g, S_g, TP_g of the model `weights`, as `train.measure` has them.

    Of each patient, P, S and TP together are scaled to an L2 norm of at most `bound`; N counts it once. Raises as
    `train.measure` does.
    """
    plan, layout = study.plan, study.vocabulary.layout
    model = build(weights, vocabulary=study.vocabulary, config=plan.generator)
    predict = loss.soft if soft else loss.hard
    total = np.zeros((len(plan.groups.names), 4), dtype=np.int64)
    with threads(plan.training.threads):
        for batch in sequences_of(records, study).batches(steps=MEASURE_STEPS):
            logits = model(batch)
            target = batch.dense(layout, logits.dtype)
            found = loss.patient_counts(predict(logits), target, batch=batch, over=plan.objective.target, layout=layout)
            columns = (found.positives, found.predicted, found.true_positives)
            vectors, group = torch.stack(columns, dim=1).double().numpy(), batch.group.numpy()
            for index in np.unique(group):
                own = group == index
                total[index, 0] += int(own.sum()) * UNIT
                total[index, 1:] += clipped_sum(vectors[own], bound=bound)
    return total


def group_sensitivity(bound: float) -> float:
    """The L2 sensitivity of `group_counts`, in its units: a patient is in one group, counted once, and bounded."""
    return math.hypot(1.0, bound) * UNIT
