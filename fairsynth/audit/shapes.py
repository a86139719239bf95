"""Records -> their lengths and the values behind their binned tokens: distributions that fidelity compares.

In:  `Records`, the vocabulary.   Out: samples of numbers; mean, SD and Wasserstein distances.
Never: a number that a token does not hold: a bin stands for its middle, so what happens inside a bin is not compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import wasserstein_distance

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.visits.bins import AGE_BINS, GAP_BINS, LOS_BINS
from fairsynth.visits.labs import labs_by_loinc
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

_DAYS = {"AGE": AGE_BINS, "GAP": GAP_BINS, "LOS": LOS_BINS}


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Two samples of numbers: mean and SD of each, and the Wasserstein distance between them, in the real one's SD."""

    real_mean: float
    real_sd: float
    mean: float
    sd: float
    wasserstein_sd: float


def distance(real: FloatArray | IntArray, other: FloatArray | IntArray) -> Distance:
    """How far `other` is from `real`; NaN where one is empty. Where `real` does not vary, its SD counts as 1."""
    if not (len(real) and len(other)):
        nan = float("nan")
        return Distance(real_mean=nan, real_sd=nan, mean=nan, sd=nan, wasserstein_sd=nan)
    scale = float(np.std(real))
    return Distance(
        real_mean=float(np.mean(real)),
        real_sd=scale,
        mean=float(np.mean(other)),
        sd=float(np.std(other)),
        wasserstein_sd=float(wasserstein_distance(real, other)) / (scale or 1.0),
    )


def lengths(records: Records) -> dict[str, IntArray]:
    """Visits of each record, codes of each visit."""
    return {"visits_a_record": records.visit_counts, "codes_a_visit": np.diff(records.visit_offsets)}


def values(records: Records, *, vocabulary: Vocabulary) -> dict[str, FloatArray]:
    """Variable -> the middle of the bin of each of its tokens: age (years), days between and of visits, labs by LOINC.

    A laboratory test gives up to two tokens a visit (its last and its most abnormal bin); each counts.
    """
    middle, variable = _middles(vocabulary)
    tokens = np.concatenate([records.codes, records.context])
    return {name: middle[own] for name in sorted(set(variable)) if name for own in [_held(tokens, variable, name)]}


def _held(tokens: IntArray, variable: list[str], name: str) -> IntArray:
    """Those of `tokens` that are the variable's."""
    belongs = np.array([each == name for each in variable])
    return np.asarray(tokens[belongs[tokens]])


def _middles(vocabulary: Vocabulary) -> tuple[FloatArray, list[str]]:
    """(V,) the middle of each token's bin, NaN where it has none; and the variable it belongs to, "" for none."""
    middle = np.full(vocabulary.layout.size, np.nan)
    variable = [""] * vocabulary.layout.size
    for token, name in enumerate(vocabulary.names):
        kind, *rest = name.split("//")
        if kind in _DAYS and len(rest) == 1:
            low, high = _DAYS[kind][rest[0]]
            variable[token], middle[token] = kind, (low + high) / 2
        elif kind == "LAB" and len(rest) == 2:
            low, high = labs_by_loinc()[rest[0]].ranges()[rest[1]]
            variable[token], middle[token] = f"LAB//{rest[0]}", (low + high) / 2
    return middle, variable
