"""Solves the intercepts of a process, so that its marginals are the source's.

In:  a `Source`.   Out: a `Process`: the source with every intercept solved.
Never: a patient seed. Calibration draws its own 12,000 patients from a fixed stream, so the process is the same
whatever is simulated later: another seed gives other patients of the same process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from scipy.special import expit, logit, softmax

from fairsynth import seeds
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.simulate.bias import rotated
from fairsynth.simulate.course import (
    FRAILTY,
    CourseIntercepts,
    condition_logits,
    draw_patients,
    draw_visits,
)
from fairsynth.simulate.outcome import OutcomeModel, chance_alive_before, fixed_part
from fairsynth.simulate.population import DAY, Patients, Population
from fairsynth.simulate.source import Codes, Name, Source, load

PATIENTS = 12_000
PATIENTS_FOR_CODES = 3_000  # of them, for the intercepts of codes, whose expectations have little variance
STAY_STEPS = 3
SECANTS = 60  # at most; some ten are needed
OUTCOME_STEPS = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Process:
    """One source's latent process, complete: fresh patients can be drawn from it at will."""

    source: Source
    course: CourseIntercepts
    outcome: OutcomeModel
    diagnoses: FloatArray  # (M,) intercepts
    procedures: FloatArray
    drugs: FloatArray
    drugs_given: float  # mean number of drugs of an admission with drugs
    draws: float  # mean of `draw_weight` over admissions


def calibrated(name: Name, *, outcome_shift: float = 0.0) -> Process:
    """The process of the source called `name`; `outcome_shift` turns the biased groups' outcome model."""
    process, population = _solved(name)
    shifted = rotated(process.source, outcome_shift=outcome_shift)
    coefficients = np.stack([process.source.conditions.death, shifted])
    units = np.stack([_unit_intercepts(population, row) for row in coefficients])
    return replace(process, outcome=OutcomeModel(units=units, conditions=coefficients))


def draw_weight(severity: FloatArray, stay: IntArray) -> FloatArray:
    """(V,) how many blood draws a visit has, in arbitrary units: more in longer and sicker stays."""
    return np.asarray((stay / DAY) ** 0.8 * np.exp(0.2 * severity))


@lru_cache(maxsize=2)
def _solved(name: Name) -> tuple[Process, Population]:
    """All intercepts but the outcome's, and the population they were solved on."""
    source = load(name)
    streams = partial(seeds.numpy_stream, 0, "calibration", name)
    patients = draw_patients(source, number=PATIENTS, first=0, mix="natural", streams=streams)
    course = CourseIntercepts(
        conditions=_condition_intercepts(source, patients, streams("severity")), stay=np.log(source.units.days * DAY)
    )
    for _ in range(STAY_STEPS):
        visits = draw_visits(source, patients, intercepts=course, first=0, streams=streams)
        means = np.array([visits.stay[visits.unit == unit].mean() / DAY for unit in range(len(source.units.names))])
        course = replace(course, stay=course.stay + np.log(source.units.days / means))
    visits = draw_visits(source, patients, intercepts=course, first=0, streams=streams)
    population = _with_risk(Population(source=source, patients=patients, visits=visits))
    few = population.keep_patients(patients.number < PATIENTS_FOR_CODES)
    solve = _choice_intercepts if source.settings.one_diagnosis else _presence_intercepts
    drugs = _presence_intercepts(few, source.drugs)
    process = Process(
        source=source,
        course=course,
        outcome=OutcomeModel(units=np.empty((2, 0)), conditions=np.empty((2, 0))),
        diagnoses=solve(few, source.diagnoses),
        procedures=np.empty(0) if source.procedures is None else _presence_intercepts(few, source.procedures),
        drugs=drugs,
        drugs_given=_mean(few, expit(few.features @ source.drugs.weights + drugs).sum(axis=1)),
        draws=_mean(population, draw_weight(visits.severity, visits.stay)),
    )
    return process, population


def _with_risk(population: Population) -> Population:
    """`population` with the risk of every planned visit, before any bias."""
    death = population.source.conditions.death
    risk = expit(fixed_part(population, death) + _unit_intercepts(population, death)[population.visits.unit])
    return replace(population, visits=replace(population.visits, risk=risk))


def _condition_intercepts(source: Source, patients: Patients, rng: np.random.Generator) -> FloatArray:
    """(K,) such that each condition has its prevalence at the first visit."""
    own = np.sqrt(1 - FRAILTY**2) * rng.standard_normal(len(patients.number))
    base = condition_logits(
        source,
        patients.kind,
        FRAILTY * patients.frailty + own,
        patients.age_days,
        np.zeros(len(source.conditions.names)),
    )
    return _solve(lambda shift: expit(base + shift).mean(axis=0), source.conditions.prevalence)


def _presence_intercepts(population: Population, codes: Codes) -> FloatArray:
    """(M,) such that the expected share of patients with each code in any admission is its frequency."""
    visits = population.visits
    base = population.features @ codes.weights
    starts = np.flatnonzero(visits.order == 0)
    reached = chance_alive_before(population, visits.risk)
    goes_on = np.append(reached[1:], 0.0) * np.append(visits.order[1:] > 0, False)
    last = reached - goes_on  # chance that the visit is its patient's last

    def share(shift: FloatArray) -> FloatArray:
        absent = -np.logaddexp(0, base + shift)  # log-probability that the visit lacks the code
        total = np.cumsum(absent, axis=0)
        before = (total - absent)[starts][visits.patient]
        return np.asarray(1 - last @ np.exp(total - before) / len(starts))

    return _solve(share, codes.frequency)


def _mean(population: Population, value: FloatArray) -> float:
    """The mean of `value` (V,) over admissions: each planned visit counts with its chance to be reached alive."""
    return float(np.average(value, weights=chance_alive_before(population, population.visits.risk)))


def _choice_intercepts(population: Population, codes: Codes) -> FloatArray:
    """(M,) such that a softmax over codes gives each its share of admissions (iterative scaling)."""
    base = population.features @ codes.weights
    target = np.log(codes.frequency / codes.frequency.sum())
    shift = target.copy()
    for _ in range(OUTCOME_STEPS):
        shift += target - np.log(softmax(base + shift, axis=1).mean(axis=0))
    return np.asarray(shift)


def _unit_intercepts(population: Population, coefficients: FloatArray) -> FloatArray:
    """(U,) such that in-hospital deaths per admission of each care unit are the source's, under `coefficients`.

    Admissions are those that take place: each planned visit counts with its chance to be reached alive.
    """
    units, unit = population.source.units, population.visits.unit
    fixed = fixed_part(population, coefficients)
    intercepts = logit(units.deaths)
    for _ in range(OUTCOME_STEPS):
        risk = expit(fixed + intercepts[unit])
        reached = chance_alive_before(population, risk)
        rate = np.bincount(unit, reached * risk, len(units.names)) / np.bincount(unit, reached, len(units.names))
        intercepts = intercepts + logit(units.deaths) - logit(rate)
    return np.asarray(intercepts)


def _solve(share: Callable[[FloatArray], FloatArray], target: FloatArray) -> FloatArray:
    """The shift, one for each target, at which `share`, increasing in it, meets it (secants on the log-odds scale).

    The log-odds of a mean of logistic functions grow by at most 1 per unit of shift, and almost linearly.
    Raises ArithmeticError if a target is not met within 1e-6 log-odds.
    """
    goal = logit(target)
    shift, slope = goal.copy(), np.ones(len(goal))
    value = _log_odds(share(shift))
    for _ in range(SECANTS):
        if np.abs(value - goal).max() < 1e-6:
            return np.asarray(shift)
        step = (goal - value) / slope
        moved = _log_odds(share(shift + step))
        change = np.where(step == 0, 1.0, step)
        slope = np.where(np.abs(step) > 1e-9, np.clip((moved - value) / change, 0.05, 1.0), slope)
        shift, value = shift + step, moved
    raise ArithmeticError("an intercept of the simulated process was not found")


def _log_odds(share: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(share, 1e-12, 1 - 1e-12)))
