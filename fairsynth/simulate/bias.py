"""The four bias knobs, each one function. Every knob acts on patients outside the reference group, or of named groups.

Never: anything that the knob does not name; every knob has its own random stream (definitions: docs/simulator.md).
"""

from __future__ import annotations

import numpy as np

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.simulate.population import Population
from fairsynth.simulate.source import BoolArray, Codes, Labs, Source


def represented(population: Population, *, under_representation: float, rng: np.random.Generator) -> BoolArray:
    """(P,) patients who are in the tables: those of biased groups stay away with the given chance."""
    lost = rng.random(len(population.patients.number)) < under_representation
    return np.asarray(~population.patients.biased | ~lost)


def documented(given: BoolArray, may_be_lost: BoolArray, *, chance: float, rng: np.random.Generator) -> BoolArray:
    """(...) what was written down of what is `given`, where what `may_be_lost` (broadcast) is lost with `chance`."""
    lost = rng.random(given.shape) < chance
    return np.asarray(given & ~(may_be_lost & lost))


def dangerous(source: Source, codes: Codes) -> BoolArray:
    """(M,) codes whose conditions, by their weights in the code, make death likelier on the whole."""
    return np.asarray(source.conditions.death @ codes.weights[: len(source.conditions.names)] > 0)


def abnormal(labs: Labs, item: IntArray, value: FloatArray) -> BoolArray:
    """(R,) rows whose value lies outside the item's normal range."""
    low, high = labs.normal[item].T
    return np.asarray((value < low) | (value > high))


def recorded(population: Population, *, label_noise: float, rng: np.random.Generator) -> BoolArray:
    """(V,) deaths as the tables tell them: those of biased groups are recorded as survival with the given chance."""
    flipped = rng.random(len(population.visits.patient)) < label_noise
    return np.asarray(population.visits.died & ~(population.visit_is_biased & flipped))


def rotated(source: Source, *, outcome_shift: float) -> FloatArray:
    """(K,) the conditions' effect on death in the biased groups.

    v = the other patients' coefficients times each condition's standard deviation; v' is orthogonal to v, as long as
    v, and gives its weight to other conditions. The result is cos(a) v + sin(a) v', a = shift * 90 degrees, divided by
    the standard deviations again: 0 is the other patients' own model, 1 shares nothing with it.
    """
    conditions = source.conditions
    spread = np.sqrt(conditions.prevalence * (1 - conditions.prevalence))
    v = conditions.death * spread
    ranked = np.argsort(v, kind="stable")
    other = np.empty_like(v)
    other[ranked] = np.roll(v[ranked], len(v) // 2)  # the deadly half trades places with the harmless half
    other -= v * (other @ v) / (v @ v)
    other *= np.linalg.norm(v) / np.linalg.norm(other)
    angle = outcome_shift * np.pi / 2
    return np.asarray(np.cos(angle) * conditions.death + np.sin(angle) * other / spread)
