"""A trained predictor, frozen, as a function of the chances of codes instead of codes.

In:  a fitted predictor; chances (sum T, C) of the codes in a batch's visits.   Out: scores, differentiable in them.
And: what a predictor's last layer reads of patients, in which its log-odds are linear (`augmentation.ranking`).
Never: the label as an input; weights of a predictor that move.

Where every chance is 0 or 1, scores are the predictor's own. In between, a code that is possible in several visits is
present (logistic regression) with the chance that one of the visits has it, were they independent: 1 - prod (1 - p). A
visit (transformer) is the expected sum of its codes' projections. Both replace an expected score by the score of an
expectation. On a CPU.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairsynth.audit.features import Features, Ragged, label_visits, phenotype_tokens
from fairsynth.audit.predictors import Fitted, FittedLogisticRegression, bag_of_tokens
from fairsynth.audit.transformer import FittedTransformer, Network
from fairsynth.augmentation.ranking import Inputs
from fairsynth.errors import ConfigError
from fairsynth.generator.batch import Batch
from fairsynth.generator.downstream import Feedback
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.visits.layout import TokenLayout
from fairsynth.visits.records import Records

NEARLY = 1 - 1e-6  # a chance above it is taken as it, so that the slope of 1 - prod (1 - p) stays finite


def relaxed(fitted: Fitted) -> RelaxedLogisticRegression | RelaxedTransformer:
    """The frozen predictor. Raises ConfigError for one of which no relaxation is known."""
    if isinstance(fitted, FittedLogisticRegression):
        return RelaxedLogisticRegression(
            weights=torch.from_numpy(fitted.weights), bias=fitted.bias, layout=fitted.vocabulary.layout
        )
    if isinstance(fitted, FittedTransformer):
        frozen = copy.deepcopy(fitted.model).requires_grad_(False)
        return RelaxedTransformer(model=frozen, layout=fitted.vocabulary.layout)
    raise _no_gradient(fitted)


def last_layer(fitted: Fitted, records: Records) -> Inputs:
    """(B, D) the inputs of the predictor's last layer. Raises ConfigError for a predictor without a linear one."""
    if isinstance(fitted, FittedLogisticRegression):
        return bag_of_tokens(records, vocabulary=fitted.vocabulary)
    if isinstance(fitted, FittedTransformer):
        return fitted.readouts(records)
    raise _no_gradient(fitted)


def _no_gradient(fitted: Fitted) -> ConfigError:
    return ConfigError.of(
        "no gradient through this predictor",
        where=type(fitted).__name__,
        expected="logistic_regression or transformer",
        do="train one of them, on patients of both labels, for the feedback",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class RelaxedLogisticRegression:
    """`weights` by column of `bag_of_tokens`: codes, phenotypes, demographics."""

    weights: Tensor
    bias: float
    layout: TokenLayout

    def read(self, probabilities: Tensor, batch: Batch, /) -> Tensor:
        """(B, D) the chance that a patient has each token, in any visit."""
        absent = torch.log1p(-probabilities.clamp(max=NEARLY))  # (sum T, C)
        never = absent.new_zeros(len(batch), absent.shape[1]).index_add(0, batch.patient, absent)
        phenotypes, demographics = _label_visits(batch, self.layout)
        others = absent.new_zeros(len(batch), len(self.weights) - absent.shape[1])
        others[phenotypes.rows, phenotypes.values] = 1
        others[demographics.rows, demographics.values + phenotype_tokens(self.layout)] = 1
        return torch.cat([-torch.expm1(never), others], dim=1)

    def log_odds(self, read: Tensor, /) -> Tensor:
        """(B,) of what is read (B, D)."""
        return read @ self.weights.to(read.dtype) + self.bias

    def scores(self, probabilities: Tensor, batch: Batch, /) -> Tensor:
        """(B,) scores."""
        return torch.sigmoid(self.log_odds(self.read(probabilities, batch)))


@dataclass(frozen=True, kw_only=True, eq=False)
class RelaxedTransformer:
    """The network of appendix E; `model` asks for no gradient of its own."""

    model: Network
    layout: TokenLayout

    def read(self, probabilities: Tensor, batch: Batch, /) -> Tensor:
        """(B, 3 E) the read-outs of visits whose codes' projections are summed by their chances."""
        phenotypes, demographics = _label_visits(batch, self.layout)
        counts = np.bincount(batch.patient.numpy(), minlength=len(batch))
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        nothing = Ragged(values=np.zeros(0, dtype=np.int64), offsets=np.zeros(int(offsets[-1]) + 1, dtype=np.int64))
        others = Features(visits=nothing, patients=offsets, phenotypes=phenotypes, demographics=demographics)
        visits = probabilities.to(self.model.codes.dtype) @ self.model.codes[: probabilities.shape[1]]  # (sum T, E)
        return self.model.read(visits, others, None)

    def log_odds(self, read: Tensor, /) -> Tensor:
        """(B,) of what is read (B, 3 E)."""
        return self.model.logits(read)

    def scores(self, probabilities: Tensor, batch: Batch, /) -> Tensor:
        """(B,) scores."""
        return torch.sigmoid(self.log_odds(self.read(probabilities, batch)))


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingEffect:
    """What training on the generator's patients does to L, to first order: `augmentation.ranking` of chances of codes.

    A patient's number is minus its alignment with `direction` (D + 1,), times the (G, 2) `weights` of its cell.
    """

    predictor: RelaxedLogisticRegression | RelaxedTransformer
    direction: Tensor
    weights: Tensor

    def scores(self, probabilities: Tensor, batch: Batch, /) -> Tensor:
        """(B,) the change of L that each patient stands for; below 0, training on it lowers L."""
        read = self.predictor.read(probabilities, batch)
        residual = torch.sigmoid(self.predictor.log_odds(read)) - batch.label  # (B,)
        direction = self.direction.to(read.dtype)
        alignment = residual * (read @ direction[:-1] + direction[-1])
        return -self.weights.to(read.dtype)[batch.group, batch.label] * alignment


def training_feedback(fitted: Fitted, *, direction: FloatArray, quotas: IntArray, members: IntArray) -> Feedback:
    """Feedback that moves the generator so that *training* on its patients lowers L, not so that they are scored alike.

    `direction` (D + 1,) is that of `augmentation.ranking`, at best `newton_direction`; `quotas`, `members` (G, 2) are
    the synthetic and the real training patients of all sites. The mean over the real patients of what `scores` gives is
    then the first-order change of L by all synthetic patients, had they the real ones' label visits. Raises ConfigError
    for a predictor without a gradient.
    """
    frozen = relaxed(fitted)
    weights = members.sum() * np.divide(quotas, members, out=np.zeros(members.shape), where=members > 0)
    effect = TrainingEffect(predictor=frozen, direction=torch.from_numpy(direction), weights=torch.from_numpy(weights))
    each_as_it_is = np.stack([np.ones(len(members)), np.zeros(len(members))], axis=1)
    return Feedback(predictor=effect, coefficients=each_as_it_is, patients=1)


def _label_visits(batch: Batch, layout: TokenLayout) -> tuple[Ragged, Ragged]:
    """Phenotypes and demographics of the batch's patients."""
    found = batch.contexts
    tokens = found.low + found.tokens.numpy()
    return label_visits(tokens, np.append(found.starts.numpy(), len(tokens)), layout=layout)
