"""The downstream term of the generator's loss: a frozen predictor reads what the generator expects of a patient.

In:  counts of real validation patients and of the generator; a frozen predictor; logits of a batch.
Out: which loss steers a round (paper, Eq. 5); the term lambda n sum_i (c_S[g] s_i + c_TP[g] y_i s_i).
Never: a predictor's kind (`Downstream` is all that is known of it) or a change to its weights; a ratio at a site.

s_i is the frozen predictor's score of patient i, whose real codes are replaced by the chances that the generator gives
them, each visit given the patient's real visits before it; the label visit stays real. c are slopes of L_DF at counts
of validation patients; times their number n they are slopes by rates, which do not depend on how many were counted, so
that lambda means the same whether validation is large or small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fairsynth.config import ObjectiveConfig
from fairsynth.fairness.coefficients import Coefficients, coefficients
from fairsynth.fairness.counts import MEMBERS
from fairsynth.generator.batch import Batch
from fairsynth.schemas import FloatArray


class Downstream(Protocol):
    """A frozen predictor of the label, or another number of a patient that a frozen predictor gives."""

    def scores(self, probabilities: Tensor, batch: Batch, /) -> Tensor:
        """(B,) scores, differentiable in the chances (sum T, C) of the codes in the visits of `batch`.

        Where every chance is 0 or 1 they are those of patients with these codes. A patient's score depends on no other
        patient.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Switched:
    """What steers a round: the loss of the real validation patients' scores ("downstream", L_DF) or L_F ("generator").

    `patients` is n, over which the loss's counts sum.
    """

    by: Literal["downstream", "generator"]
    coefficients: Coefficients
    patients: int


def switch(
    objective: ObjectiveConfig,
    *,
    validation: FloatArray,
    generator: FloatArray,
    reference: npt.NDArray[np.bool_],
    tolerance: float = 0.0,
) -> Switched:
    """Eq. 5: L_DF while it is above `tolerance`, else L_F.

    `validation` (G, 4) are pooled counts of a predictor's scores of real validation patients, one label each;
    `generator` (G, 4) are pooled counts of the generator's predictions of `objective.target`; both soft. Of 1 - softmin
    (`worst_tpr`), which is 0 for a perfect predictor only, no more than a tolerance ever switches. Raises CohortError
    when the loss that is asked for leaves nobody to compare.
    """
    of_label = objective.model_copy(update={"target": "label"})
    found = coefficients(of_label, validation, reference=reference)
    if found.loss > tolerance:
        return Switched(by="downstream", coefficients=found, patients=_patients(validation))
    found = coefficients(objective, generator, reference=reference)
    return Switched(by="generator", coefficients=found, patients=_patients(generator))


def _patients(counts: FloatArray) -> int:
    return int(counts[:, MEMBERS].sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Feedback:
    """What a site needs for a round that L_DF steers: the predictor, and (G, 2) dL_DF/dS_g and dL_DF/dTP_g at pooled
    counts of `patients` validation patients."""

    predictor: Downstream
    coefficients: FloatArray
    patients: int


@dataclass(frozen=True, kw_only=True, eq=False)
class DownstreamTerm:
    """The term of a step: (G, 2) bounded `slopes` n * c, and lambda."""

    predictor: Downstream
    slopes: Tensor
    weight: float

    def of(self, logits: Tensor, batch: Batch, *, codes: slice) -> Tensor:
        """() the patients' sum of lambda n (c_S[g] s_i + c_TP[g] y_i s_i), from (P, V) logits of every step."""
        visits = logits[len(batch) :, codes]  # (sum T, C); label visits have no codes
        chances = torch.sigmoid(visits.to(torch.promote_types(visits.dtype, torch.float32)))
        scores = self.predictor.scores(chances, batch)  # (B,)
        slopes = (self.weight * self.slopes).to(scores)[batch.group]  # (B, 2)
        return (scores * (slopes[:, 0] + slopes[:, 1] * batch.label)).sum()
