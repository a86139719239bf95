"""How close records are to real patients: every figure of fidelity that needs no model.

In:  held-out real `Records`, other ones (synthetic, or real as the ceiling).   Out: numbers by name.
Never: training patients; a verdict; randomness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fairsynth.audit.code_statistics import CodeStatistics, code_statistics, r2
from fairsynth.audit.shapes import distance, lengths, values
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

Figures = dict[str, float]
WHOLE = "whole"


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """What held-out real patients are like, computed once: code statistics by part, and samples of numbers."""

    statistics: dict[str, CodeStatistics]
    samples: dict[str, FloatArray | IntArray]
    vocabulary: Vocabulary


def reference(real: Records, *, vocabulary: Vocabulary) -> Reference:
    """The reference to compare with."""
    return Reference(
        statistics=_statistics(real, vocabulary), samples=_samples(real, vocabulary), vocabulary=vocabulary
    )


def resemblance(real: Reference, other: Records) -> Figures:
    """R2 of code and pair prevalence (`r2/<whole or group>/<statistic>`), distances of lengths and of binned values
    (`distance/<name>/<figure>`), and the label's prevalence in `other` (`label/<whole or group>`).

    R2 is NaN for a group without a patient.
    """
    vocabulary = real.vocabulary
    found: Figures = {}
    for part, statistics in _statistics(other, vocabulary).items():
        scores = r2(real.statistics[part], statistics)
        found |= {f"r2/{part}/{name}": value for name, value in scores.items()}
    for name, sample in _samples(other, vocabulary).items():
        far = asdict(distance(real.samples[name], sample))
        found |= {f"distance/{name}/{figure}": value for figure, value in far.items()}
    return found | label_prevalence(other, vocabulary=vocabulary)


def mean_resemblance(real: Reference, pieces: Sequence[Records]) -> Figures:
    """The mean of `resemblance` over pieces of one size, so that chance in a piece averages out."""
    each = [resemblance(real, piece) for piece in pieces]
    return {name: float(np.mean([figures[name] for figures in each])) for name in each[0]}


def label_prevalence(records: Records, *, vocabulary: Vocabulary) -> Figures:
    """The share of patients with the label, of all and by group; NaN for a group without a patient."""
    parts = {f"label/{part}": members.label for part, members in _parts(records, vocabulary).items()}
    return {name: float(label.mean()) if len(label) else float("nan") for name, label in parts.items()}


def _statistics(records: Records, vocabulary: Vocabulary) -> dict[str, CodeStatistics]:
    codes = len(vocabulary.codes)
    return {part: code_statistics(members, codes=codes) for part, members in _parts(records, vocabulary).items()}


def _samples(records: Records, vocabulary: Vocabulary) -> dict[str, FloatArray | IntArray]:
    return {**lengths(records), **values(records, vocabulary=vocabulary)}


def _parts(records: Records, vocabulary: Vocabulary) -> dict[str, Records]:
    """All patients, and those of each group."""
    groups = {name: records.take(records.group == index) for index, name in enumerate(vocabulary.groups)}
    return {WHOLE: records, **groups}
