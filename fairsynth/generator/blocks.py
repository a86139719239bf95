"""Blocks of tokens of which at most one is on: known to the generator before it has seen a patient.

In:  an untrained model, the training records.   Out: the same model, which begins with each block as its records have it.
Never: a constraint. Training may move every weight set here; blocks are a start, and nothing else depends on them.

A block of K tokens (group, sex, age; the levels of one observation, length of stay) is drawn token by token, so the
model has to learn that a token is off once one before it was on, and likelier when none was. In the label visit only
as many units as there are tokens before it can tell it so, and each has to grow from 1/sqrt(N) to about 3: thousands of
steps, in which sampled groups and ages are off by tenths. So it is put in: unit k answers to token k of a block and
rules out the later ones, and the bias of token k is the log-odds of k among the chances in which no earlier one is on.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from fairsynth.generator.model import Halo
from fairsynth.generator.triangular import Triangle
from fairsynth.schemas import IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

ANSWER = 4.0  # of unit k to token k
RULES_OUT = -2.5  # of unit k to later tokens of its block: -10 logits in all
MAXIMUM_ODDS = 6.0  # log-odds of the last token of a block, which is almost sure when no earlier one is on


def begin(model: Halo, records: Records, *, vocabulary: Vocabulary) -> None:
    """Let an untrained `model`, its output bias at base rates, begin with the blocks of `records`."""
    layout = vocabulary.layout
    occurs = np.bincount(np.concatenate([records.codes, records.context]), minlength=layout.size)
    for block in exclusive(records, vocabulary=vocabulary):
        _set_block(model, block, occurs=occurs, chances=records.visits)
    for block in (layout.groups, layout.sexes, layout.ages):
        _set_block(model, block, occurs=occurs, chances=len(records))


def exclusive(records: Records, *, vocabulary: Vocabulary) -> list[slice]:
    """Runs of at least two codes that share their name up to the last `//`, and no visit of `records`."""
    found, first = [], 0
    for _, run in itertools.groupby(name.rpartition("//")[0] for name in vocabulary.codes):
        block = slice(first, first := first + len(list(run)))
        if block.stop - block.start > 1 and not _share_a_visit(records, block):
            found.append(block)
    return found


def _share_a_visit(records: Records, block: slice) -> bool:
    """Whether two codes of the block are in one visit."""
    inside = (records.codes >= block.start) & (records.codes < block.stop)
    before = np.concatenate([[0], np.cumsum(inside)])
    return bool((np.diff(before[records.visit_offsets]) > 1).any())


@torch.no_grad()
def _set_block(model: Halo, block: slice, *, occurs: IntArray, chances: int) -> None:
    left = chances
    for token in range(block.start, block.stop):
        odds = np.log(occurs[token] + 0.5) - np.log(left - occurs[token] + 0.5)
        model.head.output_bias[token] = min(float(odds), MAXIMUM_ODDS)
        left -= int(occurs[token])
        if token + 1 < block.stop:
            _cell(model.head.tokens_shape, model.head.tokens, row=token, columns=slice(token, token + 1)).fill_(ANSWER)
        unit = slice(model.head.embedding + block.start, model.head.embedding + token)
        _cell(model.head.output_shape, model.head.output, row=token, columns=unit).fill_(RULES_OUT)


def _cell(triangle: Triangle, flat: Tensor, *, row: int, columns: slice) -> Tensor:
    """Some columns of a row of a triangle, to write to."""
    place = next(index for index, panel in enumerate(triangle.panels) if row < panel.high)
    panel = triangle.panels[place]
    return triangle.views(flat)[place][row - panel.low, columns.start - panel.first : columns.stop - panel.first]
