"""Random patients of MIMIC's shape, and a generator that draws such: no structure to learn, only sizes.

In:  a number of tokens, of patients, of visits.   Out: `Vocabulary`, `Records`, weights.
Never: a file, a real code.

22 codes a visit whose popularity falls as 1 / rank (Zipf), at most 0.9: 256 visits over 2,000 codes then have some
1,200 distinct ones, as many as the measurement in reference/halo.md had. 1.27 visits a patient: 1 + Poisson(0.27).
"""

from __future__ import annotations

import numpy as np

from fairsynth.config import GeneratorConfig
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.model import initial_weights
from fairsynth.schemas import Arrays, FloatArray, IntArray
from fairsynth.visits.layout import SEXES, Vocabulary
from fairsynth.visits.records import Records

CODES_A_VISIT = 22.0
VISITS_A_PATIENT = 1.27
MOST = 0.9  # share of visits that the most frequent codes are in
OTHERS = 28  # tokens that are no codes, as in HALO
GROUPS, AGES = 3, 5
PHENOTYPES = OTHERS - GROUPS - 1 - len(SEXES) - AGES - 2
_VISITS = 1024  # drawn at once


def vocabulary(tokens: int) -> Vocabulary:
    """`tokens` in all, of which 28 are no codes."""
    return Vocabulary(
        codes=tuple(f"DX//{code:05}" for code in range(tokens - OTHERS)),
        groups=tuple(f"g{i}" for i in range(GROUPS)),
        ages=tuple(f"age-{i}" for i in range(AGES)),
        phenotypes=tuple(f"phenotype-{i}" for i in range(PHENOTYPES)),
    )


def popularity(codes: int, *, rng: np.random.Generator) -> FloatArray:
    """(C,) share of visits that each code is in, in random order; they sum to `CODES_A_VISIT`."""
    shares = 1 / np.arange(1, codes + 1)
    low, high = 0.0, float(codes) * CODES_A_VISIT
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * shares, MOST).sum() < CODES_A_VISIT else (low, middle)
    return np.asarray(rng.permutation(np.minimum(high * shares, MOST)))


def patients(words: Vocabulary, *, visits: IntArray, seed: int = 1) -> Records:
    """One patient for each of `visits`, with as many visits."""
    rng = np.random.default_rng(seed)
    chances = popularity(len(words.codes), rng=rng)
    owner, codes = _cells(int(visits.sum()), chances, rng=rng)
    context, contexts, group, label = _label_visits(words, len(visits), rng=rng)
    return Records(
        codes=codes,
        visit_offsets=_offsets(np.bincount(owner, minlength=int(visits.sum()))),
        patient_offsets=_offsets(visits),
        context=context,
        context_offsets=_offsets(contexts),
        group=group,
        label=label,
    )


def usual_visits(number: int, *, seed: int = 1) -> IntArray:
    """(number,) visits of patients as in MIMIC."""
    rng = np.random.default_rng((seed, 1))
    return np.asarray(1 + rng.poisson(VISITS_A_PATIENT - 1, size=number), dtype=np.int64)


def generator_weights(words: Vocabulary, config: GeneratorConfig, *, records: Records, seed: int = 1) -> Arrays:
    """Initial weights at home with the base rates of `records`: they draw visits and lengths of its shape."""
    return at_home(initial_weights(words, config, seed=seed), base_rates(records, vocabulary=words))


def _cells(visits: int, chances: FloatArray, *, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Visit and code of every cell that is on, by visit; every visit has a code."""
    owners, codes = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for start in range(0, visits, _VISITS):
        number = min(_VISITS, visits - start)
        on = rng.random((number, len(chances)), dtype=np.float32) < chances
        on[~on.any(axis=1), int(np.argmax(chances))] = True
        owner, code = np.nonzero(on)
        owners.append(owner + start)
        codes.append(code)
    return np.concatenate(owners), np.concatenate(codes)


def _label_visits(
    words: Vocabulary, number: int, *, rng: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Context tokens and how many each patient has; groups and labels (number,)."""
    layout = words.layout
    on = np.zeros((number, layout.size), dtype=bool)
    on[:, layout.phenotypes] = rng.random((number, PHENOTYPES)) < 0.15
    for columns in (layout.groups, layout.sexes, layout.ages):
        on[np.arange(number), columns.start + rng.integers(columns.stop - columns.start, size=number)] = True
    on[:, layout.label] = rng.random(number) < 0.1
    group = np.argmax(on[:, layout.groups], axis=1).astype(np.int64)
    return np.nonzero(on)[1], on.sum(axis=1), group, on[:, layout.label].astype(np.int64)


def _offsets(counts: IntArray) -> IntArray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
