"""The randomness of samples: one uniform for every (patient, visit, token), whatever stands beside it in a batch.

In:  a seed, patients' numbers, visits.   Out: uniforms in [0, 1).
Never: a state that an earlier draw has moved.
"""

from __future__ import annotations

import numpy as np

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.seeds import stream

_WORDS = 4  # doubles of one counter of Philox (Salmon et al. 2011)


def uniforms(seed: int, *path: int, patients: IntArray, visits: IntArray, tokens: int) -> FloatArray:
    """(n, tokens) float64: those of each of `patients` at its entry of `visits` (0 is the label visit).

    `path` names further attempts. Patients that are numbered in a row are drawn in one go.
    """
    counters = -(-tokens // _WORDS)
    drawn = np.empty((len(patients), _WORDS * counters))
    order = np.lexsort((patients, visits))
    breaks = np.flatnonzero((np.diff(patients[order]) != 1) | (np.diff(visits[order]) != 0)) + 1
    for run in np.split(order, breaks):
        if len(run):
            bits = np.random.Philox(key=stream(seed, "sample", int(visits[run[0]]), *path))
            bits.advance(int(patients[run[0]]) * counters)
            drawn[run] = np.random.Generator(bits).random((len(run), _WORDS * counters))
    return drawn[:, :tokens]
