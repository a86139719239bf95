"""Patients and visits of the latent process, as arrays.

Out: `Patients` (P rows), `Visits` (V rows, sorted by patient and order), `Population` (both).
Never: randomness, file access.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.simulate.source import BoolArray, Source

DAY = 24 * 60  # minutes


@dataclass(frozen=True, kw_only=True, eq=False)
class Patients:
    """One row a patient."""

    number: IntArray  # (P,) place in the simulation, from 0
    ethnicity: IntArray  # (P,) index into `Source.groups.names`
    reference: BoolArray  # (P,) of the reference group
    biased: BoolArray  # (P,) of a group that the bias knobs act on
    female: BoolArray
    kind: IntArray  # (P,) class, index into `Source.classes.names`
    frailty: FloatArray  # (P,) standard normal, kept over all visits
    age_days: IntArray  # (P,) at the first admission
    planned: IntArray  # (P,) visits that the patient would have if none were fatal
    first: IntArray  # (P,) minute of the first admission, since 1970-01-01


@dataclass(frozen=True, kw_only=True, eq=False)
class Visits:
    """One row a visit."""

    patient: IntArray  # (V,) row in `Patients`
    number: IntArray  # (V,) place among all planned visits of the simulation, from 0
    order: IntArray  # (V,) 0 for a patient's first visit
    severity: FloatArray  # (V,)
    conditions: BoolArray  # (V, K)
    age_days: IntArray  # (V,) at admission
    admitted: IntArray  # (V,) minute since 1970-01-01
    gap: IntArray  # (V,) minutes since the previous discharge; -1 at the first visit
    stay: IntArray  # (V,) minutes in hospital
    icu: IntArray  # (V,) minutes of the first ICU stay
    unit: IntArray  # (V,) index into `Source.units.names`
    risk: FloatArray  # (V,) true probability to die in this visit, given that the patient lives to have it
    died: BoolArray  # (V,) what happened
    recorded: BoolArray  # (V,) what the tables say: differs from `died` only by label noise


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """Simulated patients with everything that is true of them."""

    source: Source
    patients: Patients
    visits: Visits

    @property
    def visit_is_reference(self) -> BoolArray:
        """(V,) whether the visit's patient is of the reference group."""
        return self.patients.reference[self.visits.patient]

    @property
    def visit_is_biased(self) -> BoolArray:
        """(V,) whether the bias knobs act on the visit's patient."""
        return self.patients.biased[self.visits.patient]

    @property
    def features(self) -> FloatArray:
        """(V, K + C) conditions, then the patient's class as one-hot: what codes and labs depend on."""
        return features(self.source, self.patients.kind[self.visits.patient], self.visits.conditions)

    def keep_visits(self, keep: BoolArray) -> Population:
        """The same patients with the visits where `keep` (V,) holds."""
        return replace(self, visits=_rows(self.visits, keep))

    def keep_patients(self, keep: BoolArray) -> Population:
        """The patients where `keep` (P,) holds, with their visits."""
        place = np.cumsum(keep) - 1  # new row of each kept patient
        visits = _rows(self.visits, keep[self.visits.patient])
        visits = replace(visits, patient=place[visits.patient])
        return replace(self, patients=_rows(self.patients, keep), visits=visits)


def concatenate(parts: Sequence[Population]) -> Population:
    """All patients of `parts`, in order."""
    offsets = np.cumsum([0, *(len(part.patients.number) for part in parts)])
    visits = [
        replace(part.visits, patient=part.visits.patient + offset)
        for part, offset in zip(parts, offsets[:-1], strict=True)
    ]
    patients = _joined([part.patients for part in parts])
    return Population(source=parts[0].source, patients=patients, visits=_joined(visits))


def features(source: Source, kind: IntArray, conditions: BoolArray) -> FloatArray:
    """(V, K + C) conditions, then class, as numbers."""
    classes = np.zeros((len(kind), len(source.classes.names)))
    classes[np.arange(len(kind)), kind] = 1
    return np.concatenate([conditions.astype(np.float64), classes], axis=1)


Rows = TypeVar("Rows", Patients, Visits)


def _rows(value: Rows, keep: BoolArray) -> Rows:
    return type(value)(**{field.name: getattr(value, field.name)[keep] for field in fields(value)})


def _joined(values: Sequence[Rows]) -> Rows:
    names = [field.name for field in fields(values[0])]
    return type(values[0])(**{name: np.concatenate([getattr(value, name) for value in values]) for name in names})
