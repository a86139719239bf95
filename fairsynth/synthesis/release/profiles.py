"""Records -> what of a patient is compared: the clinical content, apart from who the patient is and when.

In:  `Records`, their vocabulary.   Out: `Profiles`, sparse.
Never: intervals between and within visits; group, sex, age or label in the content: a synthetic patient is given those
of a real one by construction, so they say nothing of a copy.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fairsynth.schemas import IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

INTERVALS = ("GAP", "LOS")  # kinds of tokens that say when, not what

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Profiles:
    """B patients.

    content  (B, C) float32, 1 where any visit of the patient has the clinical code
    sizes    (B,) different clinical codes
    keys     B texts of bytes, equal if and only if the visits' clinical codes are equal, in order
    person   (B, M) float32, 1 for each of the patient's group, sex and age tokens
    group    (B,) index into the study's groups
    """

    content: sparse.csr_array
    sizes: IntArray
    keys: tuple[bytes, ...]
    person: sparse.csr_array
    group: IntArray

    def __len__(self) -> int:
        return len(self.sizes)

    def take(self, rows: IntArray) -> Self:
        """The patients at `rows`."""
        return type(self)(
            content=self.content[rows],
            sizes=self.sizes[rows],
            keys=tuple(self.keys[row] for row in rows),
            person=self.person[rows],
            group=self.group[rows],
        )


def profiles(records: Records, *, vocabulary: Vocabulary) -> Profiles:
    """The profiles of `records`, in order."""
    clinical = clinical_codes(vocabulary)
    kept = clinical[records.codes]
    visit = np.repeat(np.arange(records.visits), np.diff(records.visit_offsets))[kept]
    code, patient = records.codes[kept], records.visit_patient[visit]
    content = _indicator(patient, code, shape=(len(records), len(clinical)))
    return Profiles(
        content=content,
        sizes=np.diff(content.indptr).astype(np.int64),
        keys=_keys(patient, visit, code, number=len(records)),
        person=_person(records, vocabulary),
        group=records.group,
    )


def clinical_codes(vocabulary: Vocabulary) -> BoolArray:
    """(C,) whether a code says what was found or done, not how long anything took."""
    return np.array([code.split("//")[0] not in INTERVALS for code in vocabulary.codes], dtype=np.bool_)


def _person(records: Records, vocabulary: Vocabulary) -> sparse.csr_array:
    layout = vocabulary.layout
    patient = np.repeat(np.arange(len(records)), np.diff(records.context_offsets))
    known = np.zeros(layout.size, dtype=np.bool_)
    for columns in (layout.groups, layout.sexes, layout.ages):
        known[columns] = True
    kept = known[records.context]
    base = layout.groups.start
    shape = (len(records), int(layout.context.stop - base))
    return _indicator(patient[kept], records.context[kept] - base, shape=shape)


def _indicator(row: IntArray, column: IntArray, *, shape: tuple[int, int]) -> sparse.csr_array:
    """1 at each (row, column) that occurs, once or more often."""
    found = sparse.csr_array((np.ones(len(row), dtype=np.float32), (row, column)), shape=shape)
    found.sum_duplicates()
    found.data[:] = 1
    return found


def _keys(patient: IntArray, visit: IntArray, code: IntArray, *, number: int) -> tuple[bytes, ...]:
    """The codes of each patient, -1 before each visit; visits without a clinical code do not count."""
    begins = np.flatnonzero(np.diff(visit, prepend=-1))
    text = np.insert(code, begins, -1)
    owner = np.insert(patient, begins, patient[begins])
    edges = np.searchsorted(owner, np.arange(number + 1))
    return tuple(text[start:stop].tobytes() for start, stop in itertools.pairwise(edges))
