"""Patients of a process that is known, and ways to leak them: what the release gate is tried on.

A mixture: a hidden condition of each patient raises some codes; a third of patients have one short visit, so that some
records meet by chance, as in hospitals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

GROUPS = ("white", "black", "asian", "other")
GROUP_SHARES = (0.7, 0.18, 0.1, 0.02)
VOCABULARY = Vocabulary(
    codes=tuple(sorted([f"DX//{n:03d}" for n in range(120)] + [f"LOS//{n}" for n in range(4)])),
    groups=GROUPS,
    ages=("young", "middle", "old"),
    phenotypes=(),
)
CONDITIONS, CLINICAL, MAXIMUM_VISITS = 10, 120, 5


@dataclass(frozen=True, kw_only=True)
class Process:
    """Where patients come from; the same seed is the same hospital."""

    seed: int

    @cached_property
    def rates(self) -> np.ndarray:
        """(CONDITIONS, CLINICAL) the probability of each code at a visit."""
        rng = np.random.default_rng([self.seed, 1])
        common = np.clip(0.22 * (np.arange(CLINICAL) + 3.0) ** -0.8 * 3, 0.01, 0.5)
        raised = rng.random((CONDITIONS, CLINICAL)) < 0.12
        return np.clip(np.where(raised, common * 3 + 0.04, common), 0, 0.8)

    def draw(self, number: int, *, seed: int) -> Records:
        """`number` new patients."""
        rng = np.random.default_rng([self.seed, 2, seed])
        condition = rng.integers(CONDITIONS, size=number)
        visits = np.where(rng.random(number) < 0.35, 1, rng.integers(1, MAXIMUM_VISITS + 1, size=number))
        frail = rng.gamma(3, 1 / 3, size=number)
        owner = np.repeat(np.arange(number), visits)
        probability = np.clip(self.rates[condition[owner]] * frail[owner, None], 0, 0.9)
        on = np.zeros((len(owner), len(VOCABULARY.codes)), dtype=bool)
        on[:, :CLINICAL] = rng.random(probability.shape) < probability
        on[np.arange(len(owner)), CLINICAL + rng.integers(4, size=len(owner))] = True
        return _records(on, visits=visits, condition=condition, rng=rng)


def _records(on: np.ndarray, *, visits: np.ndarray, condition: np.ndarray, rng: np.random.Generator) -> Records:
    number, layout = len(visits), VOCABULARY.layout
    visit, code = np.nonzero(on)
    group = rng.choice(len(GROUPS), size=number, p=GROUP_SHARES)
    label = (rng.random(number) < 0.05 + 0.03 * condition).astype(np.int64)
    sex, age = rng.integers(2, size=number), rng.integers(3, size=number)
    tokens = [layout.groups.start + group, np.full(number, layout.label), layout.sexes.start + sex]
    context = np.stack([*tokens, layout.ages.start + age], axis=1)
    kept = np.ones_like(context, dtype=bool)
    kept[:, 1] = label == 1
    return Records(
        codes=code.astype(np.int64),
        visit_offsets=_offsets(np.bincount(visit, minlength=len(on))),
        patient_offsets=_offsets(visits),
        context=context[kept].astype(np.int64),
        context_offsets=_offsets(kept.sum(axis=1)),
        group=group.astype(np.int64),
        label=label,
    )


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def planted(synthetic: Records, train: Records, *, share: float, seed: int) -> Records:
    """`synthetic` with `share` of its patients replaced by training patients, each a different one."""
    rng = np.random.default_rng([3, seed])
    number = round(share * len(synthetic))
    return _replaced(synthetic, train.take(rng.permutation(len(train))[:number]), rng)


def planted_near(synthetic: Records, train: Records, *, share: float, seed: int) -> Records:
    """The same with training patients of whom a tenth of the clinical codes, at most, was dropped or added: one at
    least, so they are patients with ten codes or more."""
    rng = np.random.default_rng([4, seed])
    sizes = np.array([len(set(_own(train, row))) for row in range(len(train))])
    large = np.flatnonzero(sizes >= 10)
    number = round(share * len(synthetic))
    chosen = rng.permutation(large)[:number]
    return _replaced(synthetic, Records.concatenate([_altered(train, row, rng) for row in chosen]), rng)


def bootstrap(train: Records, *, number: int, seed: int) -> Records:
    """`number` training patients, drawn with repeats."""
    return train.take(np.random.default_rng([5, seed]).integers(len(train), size=number))


def _replaced(synthetic: Records, put: Records, rng: np.random.Generator) -> Records:
    kept = synthetic.take(np.arange(len(synthetic) - len(put)))
    return Records.concatenate([kept, put]).take(rng.permutation(len(synthetic)))


def _own(records: Records, row: int) -> np.ndarray:
    first, stop = records.visit_offsets[records.patient_offsets[row : row + 2]]
    codes = records.codes[first:stop]
    return codes[codes < CLINICAL]


def _altered(train: Records, row: int, rng: np.random.Generator) -> Records:
    """The patient with up to a tenth of its different codes gone, from every visit."""
    patient = train.take(np.array([row]))
    own = np.unique(_own(train, row))
    gone = rng.permutation(own)[: max(1, len(own) // 10)]
    kept = ~np.isin(patient.codes, gone)
    visit = np.repeat(np.arange(patient.visits), np.diff(patient.visit_offsets))[kept]
    return replace(
        patient,
        codes=patient.codes[kept],
        visit_offsets=_offsets(np.bincount(visit, minlength=patient.visits)),
    )
