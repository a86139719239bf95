"""A process whose truth is known: which codes a patient has depends on group and label, nothing else.

Positives of a group carry that group's own five codes more often, so that what is learnt of one group's positives says
nothing of the other's.
"""

from __future__ import annotations

import numpy as np

from fairsynth.visits.cohort import Cohort
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

CODES = 30
VOCABULARY = Vocabulary(
    codes=tuple(f"DX//CCS//{number:03d}" for number in range(CODES)),
    groups=("majority", "minority"),
    ages=("young", "old"),
    phenotypes=("one", "two", "three"),
)
LAYOUT = VOCABULARY.layout


def chances(group: np.ndarray, label: np.ndarray, *, signal: float = 0.5) -> np.ndarray:
    """(B, C) the chance of each code in a visit."""
    chance = np.full((len(group), CODES), 0.12)
    for patient in np.flatnonzero(label == 1):
        own = group[patient] * 5
        chance[patient, own : own + 5] = signal
    return chance


def draw(cells: list[list[int]] | np.ndarray, *, seed: int, signal: float = 0.5) -> Records:
    """Fresh patients of the process: `cells[g][y]` of group g and label y."""
    rng = np.random.default_rng(seed)
    shape = np.shape(cells)
    group, label = (np.repeat(axis.ravel(), np.ravel(cells)) for axis in np.indices(shape))
    visits = rng.integers(1, 4, size=len(group))
    patient = np.repeat(np.arange(len(group)), visits)
    has = rng.random((len(patient), CODES)) < chances(group, label, signal=signal)[patient]
    return records(has, visits=visits, group=group, label=label, rng=rng)


def records(has, *, visits, group, label, rng) -> Records:
    """Records of multi-hot visits `has` (V, C), with random sex, age and phenotypes."""
    sex, age = rng.integers(0, 2, size=(2, len(group)))
    context = np.zeros((len(group), LAYOUT.size), dtype=bool)
    everyone = np.arange(len(group))
    context[everyone, LAYOUT.groups.start + group] = True
    context[everyone, LAYOUT.label] = label == 1
    context[everyone, LAYOUT.sexes.start + sex] = True
    context[everyone, LAYOUT.ages.start + age] = True
    context[:, LAYOUT.phenotypes] = rng.random((len(group), 3)) < 0.3
    return Records(
        codes=np.nonzero(has)[1],
        visit_offsets=np.concatenate([[0], np.cumsum(has.sum(axis=1))]),
        patient_offsets=np.concatenate([[0], np.cumsum(visits)]),
        context=np.nonzero(context)[1],
        context_offsets=np.concatenate([[0], np.cumsum(context.sum(axis=1))]),
        group=group.astype(np.int64),
        label=label.astype(np.int64),
    )


def cohort(train: Records, *, held_out: Records | None = None, validation: Records | None = None) -> Cohort:
    """A cohort of the toy vocabulary."""
    return Cohort(
        vocabulary=VOCABULARY,
        train=train,
        validation=validation or draw([[120, 30], [120, 30]], seed=901),
        held_out=held_out or draw([[600, 150], [600, 150]], seed=902),
    )
