"""When synthetic visits happen: one calendar far from any real one, intervals drawn inside the sampled bins.

In:  visits of each patient, and the drawn gap, length and age in days (NaN where the generator sampled none).
Out: admission and discharge of each visit, and the date of birth.
Never: a real date; randomness that is not passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairsynth.schemas import FloatArray, IntArray

Times = npt.NDArray[np.datetime64]

# First admissions fall in these years: later than MIMIC-III's shifted dates (to 2211) and PIC's (to the 2110s), and
# early enough that decades of visits end before 2262, the last year that nanosecond clocks can hold.
FIRST_YEAR = 2220
YEARS = 20

# In days; drawn where the generator sampled no bin, and for the visit whose outcome is predicted: it has no length.
DEFAULT_GAP = (30.0, 365.0)
DEFAULT_LENGTH = (3.0, 10.0)
DEFAULT_AGE = (40.0 * 365.25, 80.0 * 365.25)

_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """start, end (V,) of each visit, whole seconds; birth (B,), a midnight. All datetime64[us]."""

    start: Times
    end: Times
    birth: Times


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """gap (V,) since the previous discharge, length (V,), age (B,) at the admission of visit `aged_at` (B,): all in
    days, NaN where unknown."""

    gap: FloatArray
    length: FloatArray
    age: FloatArray
    aged_at: IntArray


def timeline(intervals: Intervals, *, patient_offsets: IntArray, rng: np.random.Generator) -> Timeline:
    """Lay every patient's visits one after the other, from a first admission in the synthetic calendar."""
    patients = len(intervals.age)
    gap = _known(intervals.gap, DEFAULT_GAP, rng)
    length = np.maximum(_known(intervals.length, DEFAULT_LENGTH, rng), 1 / 24)
    age = _known(intervals.age, DEFAULT_AGE, rng)
    first = patient_offsets[:-1]
    gap[first] = 0.0
    owner = np.repeat(np.arange(patients), np.diff(patient_offsets))
    elapsed = np.cumsum(gap + length) - length  # days from an arbitrary origin to each admission
    base = rng.uniform(0.0, YEARS * 365.25, size=patients)
    admitted = base[owner] + elapsed - elapsed[first][owner]
    start = _moments(admitted)
    end = _moments(admitted + length)
    birth = (start[intervals.aged_at] - _seconds(age)).astype("datetime64[D]").astype("datetime64[us]")
    return Timeline(start=start, end=end, birth=birth)


def _known(values: FloatArray, bounds: tuple[float, float], rng: np.random.Generator) -> FloatArray:
    """`values` with its unknowns drawn between `bounds`. The same number of draws whatever is unknown."""
    drawn = rng.uniform(*bounds, size=len(values))
    return np.where(np.isnan(values), drawn, values)


def _seconds(days: FloatArray) -> npt.NDArray[np.timedelta64]:
    return np.round(days * _DAY).astype("timedelta64[s]").astype("timedelta64[us]")


def _moments(days: FloatArray) -> Times:
    return np.datetime64(f"{FIRST_YEAR}-01-01", "us") + _seconds(days)
