"""Who comes, and the course each patient would have: severity, conditions, stays and gaps over all planned visits.

In:  a `Source`, solved intercepts, named random streams.   Out: `Patients`, `Visits` (no outcome yet).
Never: bias knobs, outcomes, files. A planned course is drawn to its end; the outcome cuts it short afterwards, so that
nothing that is drawn here depends on who dies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
from scipy.special import expit, ndtr

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.simulate.population import DAY, Patients, Visits
from fairsynth.simulate.source import BoolArray, Source

Streams = Callable[[str], np.random.Generator]  # one generator for each named purpose

FRAILTY = 0.6  # share of severity that a patient keeps: corr(frailty, severity)
CARRY = 0.5  # of a visit's own part of severity that the next visit keeps
PROGRESSION = 0.1  # severity gained a visit, at most three times
FRAIL_RETURN = 0.35  # correlation of frailty with the number of planned visits
ONSET = 0.06  # chance, times the prevalence, that a chronic condition begins between two visits
RELAPSE = 0.8  # log-odds of an acute condition when the previous visit had it
GAP_DAYS = 90.0  # median time from discharge to the next admission
GAP_SPREAD = 1.5  # standard deviation of its logarithm
GAP_SEVERITY = -0.4  # change of log gap per unit of severity: the sicker come back sooner
STAY_SEVERITY = 0.25  # change of log length of stay per unit of severity
STAY_CONDITIONS = 0.5  # share of the conditions' tabulated effects on log length of stay that is used
STAY_SPREAD = 0.62  # standard deviation of the rest of log length of stay
LONGEST_STAY = 295 * DAY
LONGEST_GAP = 3000.0  # days


@dataclass(frozen=True, kw_only=True, eq=False)
class CourseIntercepts:
    """What calibration solves for the course."""

    conditions: FloatArray  # (K,)
    stay: FloatArray  # (U,) log minutes


def draw_patients(
    source: Source, *, number: int, first: int, mix: Literal["natural", "study"], streams: Streams
) -> Patients:
    """`number` patients, counted from `first`, with groups drawn from `mix`."""
    settings = source.settings
    share = source.groups.natural if mix == "natural" else source.groups.study
    ethnicity = _choose(share, streams("ethnicity").random(number))
    kind = _choose(source.classes.share, streams("class").random(number))
    frailty = streams("frailty").standard_normal(number)
    effort = FRAIL_RETURN * frailty + np.sqrt(1 - FRAIL_RETURN**2) * streams("visits").standard_normal(number)
    clock = streams("first admission")
    years = clock.integers(*settings.first_years, size=number)
    new_year = np.array([date(int(year), 1, 1).toordinal() - date(1970, 1, 1).toordinal() for year in years])
    return Patients(
        number=np.arange(first, first + number),
        ethnicity=ethnicity,
        reference=source.groups.reference[ethnicity],
        biased=~source.groups.reference[ethnicity],  # unless the simulation names other groups
        female=streams("sex").random(number) < settings.female,
        kind=kind,
        frailty=frailty,
        age_days=_ages(source, kind, streams("age")),
        planned=1 + _choose(_planned_visits(source), ndtr(effort)),
        first=(new_year + clock.integers(0, 365, size=number)) * DAY + clock.integers(0, DAY, size=number),
    )


def draw_visits(
    source: Source, patients: Patients, *, intercepts: CourseIntercepts, first: int, streams: Streams
) -> Visits:
    """Every planned visit of `patients`; visits are counted from `first`. Risk is zero and nobody dies."""
    rng = streams("course")
    steps: list[Visits] = []
    for order in range(int(patients.planned.max())):
        steps.append(_next_visits(source, patients, order, steps[-1] if steps else None, intercepts, rng))
    return _in_order(steps, first)


def condition_logits(
    source: Source, kind: IntArray, severity: FloatArray, age_days: IntArray, intercepts: FloatArray
) -> FloatArray:
    """(V, K) log-odds of each condition in a first visit."""
    conditions = source.conditions
    return np.asarray(
        intercepts
        + conditions.by_class[kind]
        + severity[:, None] * conditions.severity
        + standard_age(source, age_days)[:, None] * conditions.age
    )


def standard_age(source: Source, age_days: IntArray) -> FloatArray:
    """Age in units of the source's spread: years for adults, log years for children."""
    years = age_days / 365.25
    value = np.log(years + 0.02) if source.settings.age == "gamma" else years
    return np.asarray((value - source.settings.age_centre) / source.settings.age_scale)


def _next_visits(
    source: Source,
    patients: Patients,
    order: int,
    previous: Visits | None,
    intercepts: CourseIntercepts,
    rng: np.random.Generator,
) -> Visits:
    """The visits number `order` of all patients who have that many; `previous` holds those of one fewer."""
    row = np.flatnonzero(patients.planned > order)
    last = None if previous is None else np.searchsorted(previous.patient, row)
    severity = _severity(patients.frailty[row], order, None if previous is None else previous.severity[last], rng)
    if previous is None:
        gap = np.full(len(row), -1)
        admitted, age = patients.first[row], patients.age_days[row]
    else:
        days = GAP_DAYS * np.exp(GAP_SEVERITY * severity + GAP_SPREAD * rng.standard_normal(len(row)))
        gap = (np.clip(days, 0.5, LONGEST_GAP) * DAY).astype(np.int64)
        elapsed = previous.stay[last] + gap
        admitted = previous.admitted[last] + elapsed
        age = previous.age_days[last] + elapsed // DAY
    kind = patients.kind[row]
    logits = condition_logits(source, kind, severity, age, intercepts.conditions)
    had = None if previous is None else previous.conditions[last]
    conditions = _conditions(source, logits, had, rng)
    unit = _units(source, kind, age, rng)
    stay, icu = _stays(source, severity, conditions, intercepts.stay[unit], rng)
    nobody = np.zeros(len(row), dtype=bool)
    return Visits(
        patient=row,
        number=np.zeros(len(row), dtype=np.int64),
        order=np.full(len(row), order),
        severity=severity,
        conditions=conditions,
        age_days=age,
        admitted=admitted,
        gap=gap,
        stay=stay,
        icu=icu,
        unit=unit,
        risk=np.zeros(len(row)),
        died=nobody,
        recorded=nobody,
    )


def _severity(frailty: FloatArray, order: int, before: FloatArray | None, rng: np.random.Generator) -> FloatArray:
    """Severity at a visit: unit variance at the first; the own part of a visit carries over."""
    own = np.sqrt(1 - FRAILTY**2) * rng.standard_normal(len(frailty))
    if before is not None:
        worse = PROGRESSION * min(order - 1, 3)
        own = CARRY * (before - FRAILTY * frailty - worse) + np.sqrt(1 - CARRY**2) * own
    return np.asarray(FRAILTY * frailty + own + PROGRESSION * min(order, 3))


def _conditions(source: Source, logits: FloatArray, had: BoolArray | None, rng: np.random.Generator) -> BoolArray:
    """(V, K) conditions of a visit: chronic ones stay and may begin, acute ones are drawn and may relapse."""
    uniform = rng.random(logits.shape)
    if had is None:
        return uniform < expit(logits)
    conditions = source.conditions
    begins = had | (uniform < ONSET * conditions.prevalence)
    acute = uniform < expit(logits + RELAPSE * had)
    return np.where(conditions.chronic, begins, acute)


def _units(source: Source, kind: IntArray, age_days: IntArray, rng: np.random.Generator) -> IntArray:
    """A care unit by class; a child who comes back after 90 days is no newborn, so goes to the PICU."""
    cumulative = np.cumsum(source.classes.units[kind], axis=1)
    unit = (rng.random(len(kind))[:, None] * cumulative[:, -1:] > cumulative).sum(axis=1)
    if "NICU" in source.units.names:
        newborn, child = source.units.names.index("NICU"), source.units.names.index("PICU")
        unit = np.where((unit == newborn) & (age_days > 90), child, unit)
    return np.asarray(unit)


def _stays(
    source: Source, severity: FloatArray, conditions: BoolArray, intercept: FloatArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Minutes in hospital and in the first ICU stay, which is no longer."""
    noise, other = rng.standard_normal((2, len(severity)))
    excess = STAY_SEVERITY * severity + STAY_CONDITIONS * (conditions @ source.conditions.stay) + STAY_SPREAD * noise
    stay = np.clip(np.exp(intercept + excess), 4 * 60, LONGEST_STAY)
    settings = source.settings
    typical = (np.log(stay) - intercept) / 0.8
    days = settings.icu_days * np.exp(settings.icu_spread * (0.5 * (typical - 0.6) + 0.85 * other))
    icu = np.clip(days * DAY, 60, stay - 30)
    return stay.astype(np.int64), icu.astype(np.int64)


def _ages(source: Source, kind: IntArray, rng: np.random.Generator) -> IntArray:
    """Days of age at the first admission."""
    first, second = source.classes.age[kind].T
    if source.settings.age == "beta":
        years = 16 + 82 * rng.beta(first, second)
    else:
        years = np.minimum(rng.gamma(first, second / first), 17.99)
    return np.asarray((years * 365.25).astype(np.int64))


def _planned_visits(source: Source) -> FloatArray:
    """Share of patients with 1, 2, ... planned visits, such that deaths leave the source's own shares.

    A patient has visit t + 1 if visit t was planned to have a successor and was not fatal: the planned chance to go on
    is the observed one divided by the mean chance of those who would go on to survive a visit.
    """
    at_least = np.cumsum(source.visits[::-1])[::-1]  # share with >= t visits
    survive = 1 - source.settings.deaths_of_returning * float(source.units.share @ source.units.deaths)
    going_on = np.minimum(at_least[1:] / at_least[:-1] / survive, 0.97)
    planned = np.concatenate([[1.0], np.cumprod(going_on), [0.0]])
    return np.asarray(planned[:-1] - planned[1:])


def _choose(share: FloatArray, uniform: FloatArray) -> IntArray:
    """Index by inverse cumulative share."""
    return np.asarray(np.minimum(np.searchsorted(np.cumsum(share), uniform, side="right"), len(share) - 1))


def _in_order(steps: list[Visits], first: int) -> Visits:
    """The visits of all steps, sorted by patient and order, and numbered from `first`."""
    patient = np.concatenate([step.patient for step in steps])
    order = np.concatenate([step.order for step in steps])
    place = np.lexsort((order, patient))
    columns = {
        name: np.concatenate([getattr(step, name) for step in steps])[place] for name in Visits.__dataclass_fields__
    }
    columns["number"] = np.arange(first, first + len(place))
    return Visits(**columns)
