"""Candidates of the generator, and how likely each is to have the outcome -> the patients of a quota.

In:  candidates of each group, a teacher's scores of them, quotas (G, 2).   Out: `Records` of exactly these quotas.
Never: the label that the generator drew with a candidate; a real patient; a predictor (the caller brings scores).

A generator that is trained by likelihood learns what patients look like long before it learns the little that sets
those with the outcome apart: of 50 nats of a visit, the label explains some hundredths of one. Asked for patients of
a small group with the outcome, it gives the group's few with their accidents. A discriminative model, trained by all
sites together and strongly regularised, knows that little much better (Ng and Jordan 2002 say when). So the generator
is asked for patients of a group, and a *teacher* for who of them has the outcome. Teaching with generated patients
whose labels a better model gave is model compression (Bucila et al. 2006); here it is what carries the sites' common
knowledge to each site's own model.

A group's candidates are ordered by the teacher's log-odds. With `selected` = 0.4, those above the group's 60th
percentile are its positives, the others its negatives, softly: one z standard deviations above is a positive with
chance sigmoid(sharpness * z). The cut is by group, so a predictor that learns it selects the same share of every
group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fairsynth.errors import CohortError, ConfigError
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.seeds import numpy_stream
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

CLIP = 1e-6  # of a score, before its log-odds
CANDIDATES = 8  # of the generator for each patient of a quota


@dataclass(frozen=True, kw_only=True, eq=False)
class Guidance:
    """Where the teacher's ranking is cut.

    selected   (G,) the share of a group's candidates that lies above its cut, in (0, 1)
    sharpness  how surely a candidate above the cut is a positive, a standard deviation of the log-odds
    """

    selected: FloatArray
    sharpness: float = 8.0


def guided(
    candidates: Records, *, scores: FloatArray, cells: IntArray, guidance: Guidance, vocabulary: Vocabulary, seed: int
) -> Records:
    """`cells[g, y]` different candidates of group g as patients of label y; `scores` (B,) are the teacher's.

    Raises CohortError when a group has fewer candidates than its quotas, ConfigError when shapes or shares do not fit.
    """
    _check(candidates, scores=scores, cells=cells, guidance=guidance, vocabulary=vocabulary)
    log_odds = _log_odds(scores)
    rng = numpy_stream(seed, "guided")
    chosen: list[IntArray] = []
    for group, quotas in enumerate(cells):
        own = np.flatnonzero(candidates.group == group)
        if quotas.any():
            above = _above_cut(log_odds[own], selected=float(guidance.selected[group]))
            positives, negatives = _draw(guidance.sharpness * above, quotas=quotas, rng=rng)
            chosen.extend([own[negatives], own[positives]])
        else:
            chosen.extend([own[:0], own[:0]])
    label = np.repeat(np.tile([0, 1], len(cells)), [len(part) for part in chosen])
    return relabelled(candidates.take(np.concatenate(chosen)), label=label, vocabulary=vocabulary)


def relabelled(records: Records, *, label: IntArray, vocabulary: Vocabulary) -> Records:
    """The same patients with the labels (B,) `label`, in the label visit too."""
    token = vocabulary.layout.label
    owner = np.repeat(np.arange(len(records)), np.diff(records.context_offsets))
    kept = records.context != token
    positives = np.flatnonzero(label == 1)
    owners = np.concatenate([owner[kept], positives])
    tokens = np.concatenate([records.context[kept], np.full(len(positives), token, dtype=np.int64)])
    order = np.lexsort((tokens, owners))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(records)))]).astype(np.int64)
    return replace(records, context=tokens[order], context_offsets=offsets, label=label.astype(np.int64))


def _above_cut(log_odds: FloatArray, *, selected: float) -> FloatArray:
    """How far each candidate lies above the cut, in standard deviations of the group's log-odds."""
    spread = float(log_odds.std())
    away = log_odds - np.quantile(log_odds, 1 - selected)
    return away / spread if spread > 0 else np.zeros_like(away)


def _draw(logits: FloatArray, *, quotas: IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Places of positives and negatives, all different, drawn in proportion to sigmoid(logits) and sigmoid(-logits).

    Without replacement, by the largest log-weight plus Gumbel noise (Efraimidis and Spirakis 2006).
    """
    positive = -np.logaddexp(0, -logits) + rng.gumbel(size=len(logits))
    positives = np.argsort(-positive, kind="stable")[: quotas[1]]
    negative = -np.logaddexp(0, logits) + rng.gumbel(size=len(logits))
    negative[positives] = -np.inf
    return positives, np.argsort(-negative, kind="stable")[: quotas[0]]


def _log_odds(scores: FloatArray) -> FloatArray:
    inside = np.clip(scores, CLIP, 1 - CLIP)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _check(
    candidates: Records, *, scores: FloatArray, cells: IntArray, guidance: Guidance, vocabulary: Vocabulary
) -> None:
    groups = len(vocabulary.groups)
    fits = scores.shape == (len(candidates),) and cells.shape == (groups, 2) and guidance.selected.shape == (groups,)
    if not fits or (cells < 0).any():
        raise ConfigError.of("shapes do not fit", where="guided", expected=f"a score a candidate, ({groups}, 2) quotas")
    if not ((guidance.selected > 0) & (guidance.selected < 1)).all() or not guidance.sharpness > 0:
        raise ConfigError.of("guidance out of range", where="guided", expected="shares in (0, 1), sharpness above 0")
    short = np.bincount(candidates.group, minlength=groups) < cells.sum(axis=1)
    if short.any():
        name = vocabulary.groups[int(np.flatnonzero(short)[0])]
        raise CohortError.of("too few candidates", where=f"group {name}", do="ask the generator for more")
