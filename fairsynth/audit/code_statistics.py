"""Records -> how often codes, and pairs of codes, occur: the probabilities that fidelity compares.

In:  `Records`.   Out: `CodeStatistics`; R2 between those of two sets of records.
Never: a patient; randomness; a pair that occurs in neither set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from fairsynth.schemas import FloatArray
from fairsynth.visits.records import Records


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeStatistics:
    """Shares, in [0, 1]. Pairs are (C, C), sparse.

    visit       (C,) of visits with the code
    record      (C,) of records with the code in any visit
    same_visit  of visits with both codes; above the diagonal only
    sequential  of visits that follow another, with the row's code in the visit before and the column's in this one
    """

    visit: FloatArray
    record: FloatArray
    same_visit: sparse.csr_array
    sequential: sparse.csr_array


def code_statistics(records: Records, *, codes: int) -> CodeStatistics:
    """The shares of `records`; 0 where there is nothing to take a share of."""
    visits = visit_matrix(records, codes=codes)
    bags = record_matrix(records, codes=codes)
    follows = np.ones(records.visits, dtype=bool)
    follows[records.patient_offsets[:-1][records.visit_counts > 0]] = False
    later = np.flatnonzero(follows)
    return CodeStatistics(
        visit=np.asarray(visits.sum(axis=0), dtype=np.float64).ravel() / max(records.visits, 1),
        record=np.asarray(bags.sum(axis=0), dtype=np.float64).ravel() / max(len(records), 1),
        same_visit=sparse.csr_array(sparse.triu(visits.T @ visits, k=1) / max(records.visits, 1)),
        sequential=sparse.csr_array(visits[later - 1].T @ visits[later] / max(len(later), 1)),
    )


def r2(real: CodeStatistics, other: CodeStatistics) -> dict[str, float]:
    """R2 of each statistic: the share of the variance of `real` over codes or pairs that `other` explains, as it is.

    1 for equal ones; no line is fitted, so a shift counts as error. Pairs are those that occur in either.
    """
    return {
        "visit_prevalence": coefficient(real.visit, other.visit),
        "record_prevalence": coefficient(real.record, other.record),
        "same_visit_bigrams": coefficient(*on_union(real.same_visit, other.same_visit)),
        "sequential_bigrams": coefficient(*on_union(real.sequential, other.sequential)),
    }


def coefficient(real: FloatArray, other: FloatArray) -> float:
    """1 - sum (real - other)^2 / sum (real - mean real)^2; NaN where `real` does not vary."""
    spread = float(((real - real.mean()) ** 2).sum()) if len(real) else 0.0
    return 1.0 - float(((real - other) ** 2).sum()) / spread if spread else float("nan")


def on_union(real: sparse.csr_array, other: sparse.csr_array) -> tuple[FloatArray, FloatArray]:
    """The values of both at the places where either is not zero, in the same order."""
    first, second = sparse.coo_array(real), sparse.coo_array(other)
    columns = real.shape[1]
    keys = [part.row.astype(np.int64) * columns + part.col for part in (first, second)]
    union = np.unique(np.concatenate(keys))
    values = np.zeros((2, len(union)))
    for row, (key, part) in enumerate(zip(keys, (first, second), strict=True)):
        values[row, np.searchsorted(union, key)] = part.data
    return values[0], values[1]


def visit_matrix(records: Records, *, codes: int) -> sparse.csr_array:
    """(sum T, C) 0/1: which codes each visit has."""
    ones = np.ones(len(records.codes))
    return sparse.csr_array((ones, records.codes, records.visit_offsets), shape=(records.visits, codes))


def record_matrix(records: Records, *, codes: int) -> sparse.csr_array:
    """(B, C) 0/1: which codes each record has in any visit."""
    offsets = records.visit_offsets[records.patient_offsets]
    bags = sparse.csr_array((np.ones(len(records.codes)), records.codes, offsets), shape=(len(records), codes))
    bags = bags.copy()  # the arrays are the records' own; summing below works in place
    bags.sum_duplicates()
    bags.data[:] = 1.0
    return bags
