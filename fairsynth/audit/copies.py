"""Does the generator repeat its training patients? Distances to the nearest one, and shares of exact copies.

In:  training records, and records to compare: synthetic, or real ones that were held out.   Out: shares, distances.
Never: a verdict. Real patients resemble each other too, so read each figure beside that of held-out real patients.
"""

from __future__ import annotations

import itertools

import numpy as np

from fairsynth.audit.code_statistics import record_matrix
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.visits.records import Records

_CELLS = 20_000_000  # distances held at once


def nearest(records: Records, *, train: Records, codes: int) -> FloatArray:
    """(B,) the Jaccard distance, in [0, 1], of each record's codes to the nearest training record's; ordered as given.

    Two records without a code are at distance 0.
    """
    own, others = record_matrix(records, codes=codes), record_matrix(train, codes=codes)
    sizes = np.diff(others.indptr)
    found = np.ones(len(records))
    rows = max(1, _CELLS // max(len(train), 1))
    for start in range(0, len(records), rows):
        part = own[start : start + rows]
        shared = (part @ others.T).toarray()
        either = np.diff(part.indptr)[:, None] + sizes[None, :] - shared
        found[start : start + rows] = 1 - np.where(either > 0, shared / np.maximum(either, 1), 1.0).max(axis=1)
    return found


def copied_visits(records: Records, *, train: Records) -> float:
    """The share of visits whose codes are exactly those of a training visit."""
    return _copied(_visit_keys(records), _visit_keys(train))


def copied_records(records: Records, *, train: Records) -> float:
    """The share of records whose visits and label visit are exactly those of a training record."""
    return _copied(_record_keys(records), _record_keys(train))


def _copied(keys: list[bytes], known: list[bytes]) -> float:
    among = set(known)
    return float(np.mean([key in among for key in keys])) if keys else float("nan")


def _visit_keys(records: Records) -> list[bytes]:
    return _keys(records.codes, records.visit_offsets)


def _record_keys(records: Records) -> list[bytes]:
    """Context, then each visit, every one ended by -1: two records have one key only if they are equal."""
    marked = np.insert(records.codes, records.visit_offsets[1:], -1)
    ends = records.visit_offsets + np.arange(records.visits + 1)
    visits = _keys(marked, ends[records.patient_offsets])
    context = _keys(records.context, records.context_offsets)
    return [before + b"|" + after for before, after in zip(context, visits, strict=True)]


def _keys(values: IntArray, offsets: IntArray) -> list[bytes]:
    return [values[start:stop].tobytes() for start, stop in itertools.pairwise(offsets)]
