"""The randomness of samples: one uniform for every (patient, visit, token), whatever stands beside it in a batch.

In:  a seed, patients' numbers, visits.   Out: uniforms in [0, 1).
Never: a state that an earlier draw has moved.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fairsynth.generator import philox
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


def uniforms_on(
    device: torch.device, seed: int, *path: int, patients: IntArray, visits: IntArray, tokens: int
) -> Tensor:
    """The same numbers on `device`: drawn there on a GPU, by NumPy elsewhere."""
    if device.type == "cpu":
        return torch.from_numpy(uniforms(seed, *path, patients=patients, visits=visits, tokens=tokens))
    return _drawn_on(device, seed, *path, patients=patients, visits=visits, tokens=tokens)


def _drawn_on(device: torch.device, seed: int, *path: int, patients: IntArray, visits: IntArray, tokens: int) -> Tensor:
    """`uniforms`, of which only keys and numbers of patients travel to the device."""
    counters = -(-tokens // _WORDS)
    known, place = np.unique(visits, return_inverse=True)
    keys = np.array([stream(seed, "sample", int(visit), *path) for visit in known], dtype=np.int64)[place]
    first = torch.from_numpy(patients * counters).to(device)
    block = torch.arange(counters, device=device)
    return philox.doubles(torch.from_numpy(keys).to(device)[:, None], first[:, None] + block)[:, :tokens]
