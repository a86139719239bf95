"""What a generator knows before it has seen a patient: what a token says of later ones has a path of its own.

In:  an untrained model, what the training records show.   Out: the model, with a start that saves thousands of steps.
Never: a constraint. Training may move every weight set here; nothing else depends on them.

Tokens of a visit are drawn one after another, so what depends on an earlier token has to be learnt through the units
between them: few in the label visit, one for its second token. Left as the initialisation has them, each starts at
1/sqrt(N) of either sign, below its threshold or above it whatever the token is, and has to grow a thousandth a step;
meanwhile sampled groups and ages are off by tenths, and the label hardly moves what follows it. Hence:

*Answers.* Unit k answers to token k, and says nothing yet: its weight to every later token begins at zero and has a
gradient from the first step, as in a logistic regression on the tokens before.

*Blocks.* Of group, sex and age, of the levels of one observation, of lengths of stay, one at most is on. The units of
such a block rule out its later tokens, and the bias of token k is its log-odds where no earlier one is on.

*Loudness.* What the label visit says is read in one sum. A label that 7 % have moves that sum by half of what a sex
does, in standard deviations, and is learnt after the noise of the codes. So each context token but the phenotypes
begins with an embedding divided by its standard deviation over patients, as inputs of a regression are.

What is asked of the records are sums over patients (`Shown`), so sites add theirs up and begin alike; the base rates,
which differ between sites, stay at home (`base_rates`): `home_rates` are those that fit a primed model.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fairsynth.generator.model import Halo
from fairsynth.generator.triangular import Triangle
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

CODE_ANSWERS = 1.0  # of unit k to code k
CONTEXT_ANSWERS = 4.0  # of unit k to token k of the label visit, or of a block: there are few, and they say much
RULES_OUT = -4.0  # of a block's unit k to its later tokens: -16 logits in all
MAXIMUM_ODDS = (
    3.0  # log-odds of the last token of a block where no earlier one is on: it is left to learn that it must be
)
LEAST_VARIANCE = 1e-3  # of a context token: rarer ones begin no louder


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """Sums over the patients of one site, or of several.

    occurs (V,) patients with each context token, and visits with each code; `shared` (R,) visits with at least two
    codes of each run of `runs`.
    """

    occurs: IntArray
    visits: int
    patients: int
    shared: IntArray

    @classmethod
    def by(cls, records: Records, *, vocabulary: Vocabulary) -> Self:
        """What `records` show."""
        tokens = np.concatenate([records.codes, records.context])
        return cls(
            occurs=np.bincount(tokens, minlength=vocabulary.layout.size).astype(np.int64),
            visits=records.visits,
            patients=len(records),
            shared=np.array([_sharing(records, run) for run in runs(vocabulary)], dtype=np.int64),
        )

    def __add__(self, other: Shown) -> Shown:
        return Shown(
            occurs=self.occurs + other.occurs,
            visits=self.visits + other.visits,
            patients=self.patients + other.patients,
            shared=self.shared + other.shared,
        )


@torch.no_grad()
def prime(model: Halo, shown: Shown, *, vocabulary: Vocabulary) -> None:
    """Let an untrained `model` begin with what the patients plainly show. Its output bias is left to `home_rates`."""
    layout = vocabulary.layout
    _answer(model, layout.codes, strength=CODE_ANSWERS)
    _answer(model, layout.context, strength=CONTEXT_ANSWERS)
    for block in (*exclusive(shown, vocabulary=vocabulary), layout.groups, layout.sexes, layout.ages):
        _rule_out(model, block)
    _standardise(model, slice(layout.groups.start, layout.ages.stop), share=shown.occurs / max(shown.patients, 1))


def home_rates(rates: FloatArray, shown: Shown, *, blocks: list[slice], vocabulary: Vocabulary) -> FloatArray:
    """`rates` (V,), a site's base rates, with the odds of a block's tokens where no earlier one of it is on.

    `shown` is the site's own; `blocks` are the codes' blocks that all sites agree on.
    """
    layout, found = vocabulary.layout, rates.copy()
    for block in blocks:
        found[block] = _odds(shown.occurs[block], chances=shown.visits)
    for block in (layout.groups, layout.sexes, layout.ages):
        found[block] = _odds(shown.occurs[block], chances=shown.patients)
    return found


def runs(vocabulary: Vocabulary) -> list[slice]:
    """Runs of at least two codes that share a name up to the last `//`."""
    found, first = [], 0
    for prefix, run in itertools.groupby(name.rpartition("//")[0] for name in vocabulary.codes):
        block = slice(first, first := first + len(list(run)))
        if prefix and block.stop - block.start > 1:
            found.append(block)
    return found


def exclusive(shown: Shown, *, vocabulary: Vocabulary) -> list[slice]:
    """The runs of which no visit has two codes."""
    return [run for run, visits in zip(runs(vocabulary), shown.shared, strict=True) if visits == 0]


def _sharing(records: Records, block: slice) -> int:
    """The visits with two codes of the block."""
    inside = (records.codes >= block.start) & (records.codes < block.stop)
    before = np.concatenate([[0], np.cumsum(inside)])
    return int((np.diff(before[records.visit_offsets]) > 1).sum())


def _odds(occurs: IntArray, *, chances: int) -> FloatArray:
    """Log-odds of each of a block's tokens where no earlier one is on."""
    left = chances - np.concatenate([[0], np.cumsum(occurs)[:-1]])
    return np.asarray(np.minimum(np.log(occurs + 0.5) - np.log(left - occurs + 0.5), MAXIMUM_ODDS))


def _answer(model: Halo, tokens: slice, *, strength: float) -> None:
    """Let unit k answer to token k, for each of `tokens`, and say nothing to later ones."""
    head = model.head
    for token in range(tokens.start, tokens.stop):
        _cells(head.tokens_shape, head.tokens, row=token, columns=slice(token, token + 1)).fill_(strength)
    units = slice(head.embedding + tokens.start, head.embedding + tokens.stop)
    for view in head.output_shape.views(head.output):
        view[:, units] = 0  # a panel without these columns has an empty part there


def _rule_out(model: Halo, block: slice) -> None:
    """Let the units of `block` rule out its later tokens."""
    head = model.head
    _answer(model, block, strength=CONTEXT_ANSWERS)
    for token in range(block.start, block.stop):
        before = slice(head.embedding + block.start, head.embedding + token)
        _cells(head.output_shape, head.output, row=token, columns=before).fill_(RULES_OUT)


def _standardise(model: Halo, tokens: slice, *, share: FloatArray) -> None:
    """Divide the embeddings of `tokens` by the standard deviation of each over patients."""
    part = share[tokens]
    deviation = np.sqrt(np.maximum(part * (1 - part), LEAST_VARIANCE))
    model.embedding[tokens] /= torch.from_numpy(deviation).to(model.embedding)[:, None]


def _cells(triangle: Triangle, flat: Tensor, *, row: int, columns: slice) -> Tensor:
    """Some columns of a row of a triangle, to write to."""
    place = next(index for index, panel in enumerate(triangle.panels) if row < panel.high)
    panel = triangle.panels[place]
    return triangle.views(flat)[place][row - panel.low, columns.start - panel.first : columns.stop - panel.first]
