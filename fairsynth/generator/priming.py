"""What a generator knows before it has seen a patient: what a token says of later ones has a path of its own.

In:  an untrained model, the training records.   Out: the same model, with a start that saves thousands of steps.
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
"""

from __future__ import annotations

import itertools

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


@torch.no_grad()
def prime(model: Halo, records: Records, *, vocabulary: Vocabulary) -> None:
    """Let an untrained `model`, its output bias at the base rates of `records`, begin with what they plainly show."""
    layout = vocabulary.layout
    occurs = np.bincount(np.concatenate([records.codes, records.context]), minlength=layout.size)
    _answer(model, layout.codes, strength=CODE_ANSWERS)
    _answer(model, layout.context, strength=CONTEXT_ANSWERS)
    for block in exclusive(records, vocabulary=vocabulary):
        _rule_out(model, block, occurs=occurs, chances=records.visits)
    for block in (layout.groups, layout.sexes, layout.ages):
        _rule_out(model, block, occurs=occurs, chances=len(records))
    _standardise(model, slice(layout.groups.start, layout.ages.stop), share=occurs / max(len(records), 1))


def exclusive(records: Records, *, vocabulary: Vocabulary) -> list[slice]:
    """Runs of at least two codes that share a name up to the last `//`, and no visit of `records`."""
    found, first = [], 0
    for prefix, run in itertools.groupby(name.rpartition("//")[0] for name in vocabulary.codes):
        block = slice(first, first := first + len(list(run)))
        if prefix and block.stop - block.start > 1 and not _share_a_visit(records, block):
            found.append(block)
    return found


def _share_a_visit(records: Records, block: slice) -> bool:
    """Whether two codes of the block are in one visit."""
    inside = (records.codes >= block.start) & (records.codes < block.stop)
    before = np.concatenate([[0], np.cumsum(inside)])
    return bool((np.diff(before[records.visit_offsets]) > 1).any())


def _answer(model: Halo, tokens: slice, *, strength: float) -> None:
    """Let unit k answer to token k, for each of `tokens`, and say nothing to later ones."""
    head = model.head
    for token in range(tokens.start, tokens.stop):
        _cells(head.tokens_shape, head.tokens, row=token, columns=slice(token, token + 1)).fill_(strength)
    units = slice(head.embedding + tokens.start, head.embedding + tokens.stop)
    for view in head.output_shape.views(head.output):
        view[:, units] = 0  # a panel without these columns has an empty part there


def _rule_out(model: Halo, block: slice, *, occurs: IntArray, chances: int) -> None:
    """Let the units of `block` rule out its later tokens, and set each token's odds when no earlier one is on."""
    head, left = model.head, chances
    _answer(model, block, strength=CONTEXT_ANSWERS)
    for token in range(block.start, block.stop):
        odds = np.log(occurs[token] + 0.5) - np.log(left - occurs[token] + 0.5)
        head.output_bias[token] = min(float(odds), MAXIMUM_ODDS)
        left -= int(occurs[token])
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
