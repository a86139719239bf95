"""When synthetic visits happen: one calendar far from any real one, intervals drawn inside the sampled bins.

In:  visits of each patient, and the drawn gap, length and age in days (NaN where the generator sampled none).
Out: admission and discharge of each visit, and the date of birth.
Never: a real date; randomness that is not passed in; a visit before the patient's birth.

A generated record may contradict itself: visits years apart of a patient who is some months old. The age counts then,
because it is told of every patient; the gaps between the visits are shortened, and their lengths if that is not enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.seeds import Streams

Times = npt.NDArray[np.datetime64]

# First admissions fall in these years: later than MIMIC-III's shifted dates (to 2211) and PIC's (to the 2110s), and
# early enough that decades of visits end before 2262, the last year that nanosecond clocks can hold.
FIRST_YEAR = 2220
YEARS = 20

# In days; drawn where the generator sampled no bin, and for the visit whose outcome is predicted: it has no length.
DEFAULT_GAP = (30.0, 365.0)
ARTIFICIAL_GAP = (1.0, 2.0)  # where the source has no calendar, and gaps mean nothing
DEFAULT_LENGTH = (3.0, 10.0)
DEFAULT_AGE = (40.0 * 365.25, 80.0 * 365.25)

_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """start, end (V,) of each visit, whole seconds; birth (B,), a midnight. All datetime64[us].

    `contradictory`: patients whose visits had to be brought closer together to fit into their age.
    """

    start: Times
    end: Times
    birth: Times
    contradictory: int


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """gap (V,) since the previous discharge, length (V,), age (B,) at the admission of visit `aged_at` (B,): all in
    days, NaN where unknown."""

    gap: FloatArray
    length: FloatArray
    age: FloatArray
    aged_at: IntArray


def timeline(
    intervals: Intervals, *, patient_offsets: IntArray, streams: Streams, artificial: bool = False
) -> Timeline:
    """Lay every patient's visits one after the other, from a first admission in the synthetic calendar.

    `artificial` says that the source has no calendar, so that unknown gaps are as short as extraction makes them.
    """
    patients = len(intervals.age)
    gap = _known(intervals.gap, ARTIFICIAL_GAP if artificial else DEFAULT_GAP, streams("calendar", "gap"))
    length = np.maximum(_known(intervals.length, DEFAULT_LENGTH, streams("calendar", "length")), 1 / 24)
    age = _known(intervals.age, DEFAULT_AGE, streams("calendar", "age"))
    first = patient_offsets[:-1]
    gap[first] = 0.0
    owner = np.repeat(np.arange(patients), np.diff(patient_offsets))
    earlier = np.arange(len(gap)) < intervals.aged_at[owner]  # the visits before that in which the age is told
    gaps = gap * (np.arange(len(gap)) <= intervals.aged_at[owner])
    spent, away = _summed(length * earlier, owner, patients), _summed(gaps, owner, patients)
    gap = gap * _share(away, of=np.maximum(age - spent, 0))[owner]
    length = length * np.where(earlier, _share(spent, of=age)[owner], 1)
    base = streams("calendar", "first").uniform(0.0, YEARS * 365.25, size=patients)
    admitted = base[owner] + _elapsed(gap, length, patient_offsets)
    start = _moments(admitted)
    end = _moments(admitted + length)
    birth = (start[intervals.aged_at] - _seconds(age)).astype("datetime64[D]").astype("datetime64[us]")
    return Timeline(start=start, end=end, birth=birth, contradictory=int((spent + away > age).sum()))


def _elapsed(gap: FloatArray, length: FloatArray, patient_offsets: IntArray) -> FloatArray:
    """(V,) days from a patient's first admission to each; summed by patient, so that no one's rounding is another's."""
    elapsed, counts = np.zeros(len(gap)), np.diff(patient_offsets)
    for place in range(1, int(counts.max(initial=1))):
        rows = patient_offsets[:-1][counts > place] + place
        elapsed[rows] = elapsed[rows - 1] + length[rows - 1] + gap[rows]
    return elapsed


def _summed(values: FloatArray, owner: IntArray, patients: int) -> FloatArray:
    """(B,) the sum of each patient's `values`."""
    return np.bincount(owner, weights=values, minlength=patients).astype(np.float64)


def _share(days: FloatArray, *, of: FloatArray) -> FloatArray:
    """By how much `days` are to be multiplied to be no more than `of`."""
    return np.where(days > of, of / np.where(days > 0, days, 1.0), 1.0)


def _known(values: FloatArray, bounds: tuple[float, float], rng: np.random.Generator) -> FloatArray:
    """`values` with its unknowns drawn between `bounds`. The same number of draws whatever is unknown."""
    drawn = rng.uniform(*bounds, size=len(values))
    return np.where(np.isnan(values), drawn, values)


def _seconds(days: FloatArray) -> npt.NDArray[np.timedelta64]:
    return np.round(days * _DAY).astype("timedelta64[s]").astype("timedelta64[us]")


def _moments(days: FloatArray) -> Times:
    return np.datetime64(f"{FIRST_YEAR}-01-01", "us") + _seconds(days)
