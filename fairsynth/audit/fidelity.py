"""Visits with each code: what the report compares between real and synthetic patients.

In:  training, held-out and synthetic `Records`.   Out: integers by code.
Never: a rate, a patient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairsynth.schemas import IntArray
from fairsynth.visits.records import Records


def code_visits(parts: Sequence[Records], *, codes: int) -> IntArray:
    """(parts, C) visits that carry each code. A visit holds a code once at most."""
    return np.stack([np.bincount(part.codes, minlength=codes).astype(np.int64) for part in parts])


def code_totals(parts: Sequence[Records]) -> IntArray:
    """(parts,) visits in all."""
    return np.array([part.visits for part in parts], dtype=np.int64)
