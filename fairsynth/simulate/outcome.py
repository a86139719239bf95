"""Who dies in hospital: a logistic model on severity, conditions, age, care unit and group.

    logit risk = unit + beta_s severity + sum_k beta_k condition_k + beta_a age + group

In:  a planned `Population`.   Out: risks, deaths, and which visits take place.
Never: files; anything recorded (see bias.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from fairsynth.schemas import FloatArray
from fairsynth.simulate.course import standard_age
from fairsynth.simulate.population import Population
from fairsynth.simulate.source import BoolArray


@dataclass(frozen=True, kw_only=True, eq=False)
class OutcomeModel:
    """Coefficients of in-hospital death; row 1 for the groups that bias acts on, row 0 for all others."""

    units: FloatArray  # (2, U) intercepts
    conditions: FloatArray  # (2, K)


def fixed_part(population: Population, coefficients: FloatArray) -> FloatArray:
    """(V,) log-odds of death without the unit's intercept, under condition `coefficients` (K,) for everybody."""
    source, visits = population.source, population.visits
    return np.asarray(
        source.settings.severity_death * visits.severity
        + visits.conditions @ coefficients
        + source.settings.age_death * standard_age(source, visits.age_days)
        + source.groups.log_odds[population.patients.ethnicity[visits.patient]]
    )


def risks(population: Population, model: OutcomeModel) -> FloatArray:
    """(V,) the true probability to die in each visit."""
    unit = population.visits.unit
    logits = [fixed_part(population, model.conditions[row]) + model.units[row, unit] for row in range(2)]
    return np.asarray(expit(np.where(population.visit_is_biased, logits[1], logits[0])))


def alive_before(population: Population, died: BoolArray) -> BoolArray:
    """(V,) visits that take place: no earlier visit of the patient was fatal."""
    visits = population.visits
    fatal = np.full(len(population.patients.number), np.iinfo(np.int64).max)
    np.minimum.at(fatal, visits.patient[died], visits.order[died])
    return np.asarray(visits.order <= fatal[visits.patient])


def chance_alive_before(population: Population, risk: FloatArray) -> FloatArray:
    """(V,) probability that a planned visit takes place: the product of survival over the earlier ones."""
    visits = population.visits
    log_survival = np.log1p(-risk)
    total = np.cumsum(log_survival) - log_survival  # over all earlier rows
    starts = np.flatnonzero(visits.order == 0)
    return np.asarray(np.exp(total - total[starts][visits.patient]))
