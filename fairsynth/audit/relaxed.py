"""A trained predictor, frozen, as a function of the chances of codes instead of codes.

In:  a fitted predictor; chances (sum T, C) of the codes in a batch's visits.   Out: scores, differentiable in them.
And: what a predictor's last layer reads of patients, in which its log-odds are linear (`augmentation.ranking`).
Never: the label or its token; weights of a predictor that move.

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

from fairsynth.audit.features import Features, Ragged, label_visits
from fairsynth.audit.predictors import Fitted, FittedLogisticRegression, bag_of_tokens
from fairsynth.audit.transformer import FittedTransformer, Network
from fairsynth.augmentation.ranking import Inputs
from fairsynth.errors import ConfigError
from fairsynth.generator.batch import Batch
from fairsynth.generator.downstream import Downstream
from fairsynth.visits.layout import TokenLayout
from fairsynth.visits.records import Records

NEARLY = 1 - 1e-6  # a chance above it is taken as it, so that the slope of 1 - prod (1 - p) stays finite


def relaxed(fitted: Fitted) -> Downstream:
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

    def scores(self, probabilities: Tensor, batch: Batch, /) -> Tensor:
        """(B,) scores."""
        codes, phenotypes, demographics = torch.split(self.weights.to(probabilities.dtype), self._widths)
        absent = torch.log1p(-probabilities.clamp(max=NEARLY))  # (sum T, C)
        never = absent.new_zeros(len(batch), len(codes)).index_add(0, batch.patient, absent)
        log_odds = -torch.expm1(never) @ codes + self.bias  # (B,)
        for weights, tokens in zip((phenotypes, demographics), _label_visits(batch, self.layout), strict=True):
            log_odds = log_odds.index_add(0, torch.from_numpy(tokens.rows), weights[torch.from_numpy(tokens.values)])
        return torch.sigmoid(log_odds)

    @property
    def _widths(self) -> list[int]:
        layout = self.layout
        codes, phenotypes = layout.codes.stop, layout.phenotypes.stop - layout.phenotypes.start
        return [codes, phenotypes, len(self.weights) - codes - phenotypes]


@dataclass(frozen=True, kw_only=True, eq=False)
class RelaxedTransformer:
    """The network of appendix E; `model` asks for no gradient of its own."""

    model: Network
    layout: TokenLayout

    def scores(self, probabilities: Tensor, batch: Batch, /) -> Tensor:
        """(B,) scores."""
        phenotypes, demographics = _label_visits(batch, self.layout)
        counts = np.bincount(batch.patient.numpy(), minlength=len(batch))
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        nothing = Ragged(values=np.zeros(0, dtype=np.int64), offsets=np.zeros(int(offsets[-1]) + 1, dtype=np.int64))
        others = Features(visits=nothing, patients=offsets, phenotypes=phenotypes, demographics=demographics)
        visits = probabilities.to(self.model.codes.dtype) @ self.model.codes[: probabilities.shape[1]]  # (sum T, E)
        return torch.sigmoid(self.model.logits(self.model.read(visits, others, None)))


def _label_visits(batch: Batch, layout: TokenLayout) -> tuple[Ragged, Ragged]:
    """Phenotypes and demographics of the batch's patients."""
    found = batch.contexts
    tokens = found.low + found.tokens.numpy()
    return label_visits(tokens, np.append(found.starts.numpy(), len(tokens)), layout=layout)
