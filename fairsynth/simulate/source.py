"""What is known of one source: the tables of `sources/<name>/` as arrays.

In:  the CSV files beside this module (written by hand; no row of any hospital).   Out: `Source`.
Never: randomness, anything that depends on a simulation's seed or size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fairsynth.schemas import FloatArray, Group

Name = Literal["mimic3", "pic"]
BoolArray = npt.NDArray[np.bool_]

FOLDER = Path(__file__).parent / "sources"


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """Kinds of patient (C of them): why somebody comes to this hospital; kept over all of a patient's visits."""

    names: tuple[str, ...]
    share: FloatArray  # (C,)
    age: FloatArray  # (C, 2) parameters of the age distribution, see `Settings.age`
    units: FloatArray  # (C, U) probability of each care unit


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """Latent phenotypes (K of them). Chronic ones stay once present, acute ones are drawn at every visit."""

    names: tuple[str, ...]
    chronic: BoolArray  # (K,)
    prevalence: FloatArray  # (K,) at the first visit
    severity: FloatArray  # (K,) log-odds per unit of severity
    age: FloatArray  # (K,) log-odds per unit of standardised age
    death: FloatArray  # (K,) log-odds of in-hospital death
    stay: FloatArray  # (K,) change of log length of stay
    by_class: FloatArray  # (C, K) log-odds of the condition in a class


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """Codes of one kind (M of them): diagnoses, procedures or drugs."""

    frequency: FloatArray  # (M,) share of patients with the code; relative weight where one code an admission is given
    principal: FloatArray  # (M,) preference for the first place; zero for drugs
    weights: FloatArray  # (K + C, M) log-odds per feature: conditions, then classes
    table: pl.DataFrame  # the hand-written rows, all columns text


@dataclass(frozen=True, kw_only=True, eq=False)
class Labs:
    """Laboratory items (I of them)."""

    logarithmic: BoolArray  # (I,) the value is median * exp(spread * z), else median + spread * z
    median: FloatArray
    spread: FloatArray
    decimals: npt.NDArray[np.int64]
    normal: FloatArray  # (I, 2) limits of the normal range, NaN where there is none
    possible: FloatArray  # (I, 2) values are clipped to it
    share: FloatArray  # (I,) probability to be part of a blood draw
    panel: npt.NDArray[np.int64]  # (I,) items of one panel are ordered together
    severity: FloatArray  # (I,) effect of severity on z
    effects: FloatArray  # (K + C, I) effect of the features on z
    table: pl.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """Strings of the ethnicity column (E of them)."""

    names: tuple[str, ...]
    group: tuple[Group, ...]  # (E) that the string belongs to in the study mix
    natural: FloatArray  # (E,) share in the source
    study: FloatArray  # (E,) share in the study mix
    reference: BoolArray  # (E,) belongs to the reference group
    log_odds: FloatArray  # (E,) effect on in-hospital death


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """Care units (U of them)."""

    names: tuple[str, ...]
    deaths: FloatArray  # (U,) in-hospital deaths per admission
    share: FloatArray  # (U,) of admissions
    days: FloatArray  # (U,) mean hospital stay


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The scalars of one source; every figure is explained in docs/simulator.md."""

    patients: int  # of the whole source
    reference: str
    study: dict[str, float]  # shares of the groups in the study mix
    age: Literal["beta", "gamma"]  # years: 16 + 82 * Beta(a, b), or Gamma(shape a, mean b) up to 18
    age_centre: float  # standardised age = (years - centre) / scale, of log(years + 0.02) for children
    age_scale: float
    female: float
    icu_days: float  # median
    icu_spread: float  # standard deviation of log ICU days
    second_icu_stay: float  # chance of a second ICU stay in an admission
    deaths_of_returning: float  # in-hospital deaths of those with a further visit planned, relative to everybody's
    lab_rows: float  # mean number of rows of an admission with labs
    lab_coverage: float  # share of admissions with labs
    outside_labs: float  # share of lab rows that belong to no admission
    drug_rows: float  # mean number of rows of an admission with drugs
    drug_coverage: float
    diagnosis_coverage: float
    one_diagnosis: bool
    severity_death: float  # log-odds of death per unit of severity
    age_death: float  # log-odds of death per unit of standardised age
    first_years: tuple[int, int]  # shifted calendar years of first admissions


SETTINGS: dict[Name, Settings] = {
    "mimic3": Settings(
        patients=46_520,
        reference="white",
        study={"white": 0.60, "black": 0.14, "hispanic": 0.10, "asian": 0.08, "other": 0.08},
        age="beta",
        age_centre=64.0,
        age_scale=17.0,
        female=0.438,
        icu_days=2.1,
        icu_spread=0.93,
        second_icu_stay=0.08,
        deaths_of_returning=1.3,
        lab_rows=381.0,
        lab_coverage=1.0,
        outside_labs=0.187,
        drug_rows=74.5,
        drug_coverage=0.946,
        diagnosis_coverage=1.0,
        one_diagnosis=False,
        severity_death=0.55,
        age_death=0.35,
        first_years=(2100, 2190),
    ),
    "pic": Settings(
        patients=12_881,
        reference="han",
        study={"han": 0.50, "yi": 0.10, "buyei": 0.10, "miao": 0.10, "tujia": 0.10, "hui": 0.10},
        age="gamma",
        age_centre=-1.1,
        age_scale=1.9,
        female=0.425,
        icu_days=4.2,
        icu_spread=1.6,
        second_icu_stay=0.05,
        deaths_of_returning=1.0,
        lab_rows=800.0,
        lab_coverage=0.939,
        outside_labs=0.0,
        drug_rows=181.0,
        drug_coverage=0.515,
        diagnosis_coverage=0.99375,
        one_diagnosis=True,
        severity_death=0.45,
        age_death=-0.1,
        first_years=(2050, 2105),
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Everything the process needs to know of one source, before its intercepts are solved."""

    name: Name
    settings: Settings
    classes: Classes
    conditions: Conditions
    groups: Groups
    units: Units
    visits: FloatArray  # (N,) share of patients with 1, 2, ... N admissions
    diagnoses: Codes
    procedures: Codes | None
    drugs: Codes
    labs: Labs


@lru_cache(maxsize=2)
def load(name: Name) -> Source:
    """The source called `name`."""
    settings = SETTINGS[name]
    class_table = _read(name, "classes")
    classes = tuple(class_table["name"])
    unit_table = _read(name, "units")
    condition_table = _read(name, "conditions")
    features = (*condition_table["name"], *(f"@{kind}" for kind in classes))
    visits = _numbers(_read(name, "visits"), "patients")
    return Source(
        name=name,
        settings=settings,
        classes=Classes(
            names=classes,
            share=_shares(_numbers(class_table, "share")),
            age=np.stack([_numbers(class_table, "age_a"), _numbers(class_table, "age_b")], axis=1),
            units=_links(class_table["units"], tuple(unit_table["unit"])).T,
        ),
        conditions=_conditions(condition_table, classes),
        groups=_groups(_read(name, "groups"), settings),
        units=Units(
            names=tuple(unit_table["unit"]),
            deaths=_numbers(unit_table, "deaths"),
            share=_shares(_numbers(unit_table, "stays")),
            days=_numbers(unit_table, "days"),
        ),
        visits=_shares(visits),
        diagnoses=_codes(_read(name, "diagnoses"), features),
        procedures=_codes(_read(name, "procedures"), features) if _exists(name, "procedures") else None,
        drugs=_codes(_read(name, "drugs"), features),
        labs=_labs(_read(name, "labs"), features),
    )


def _conditions(table: pl.DataFrame, classes: Sequence[str]) -> Conditions:
    return Conditions(
        names=tuple(table["name"]),
        chronic=(table["kind"] == "chronic").to_numpy(),
        prevalence=_numbers(table, "prevalence"),
        severity=_numbers(table, "severity"),
        age=_numbers(table, "age"),
        death=_numbers(table, "death"),
        stay=_numbers(table, "stay"),
        by_class=_links(table["classes"], classes),
    )


def _groups(table: pl.DataFrame, settings: Settings) -> Groups:
    natural = _shares(_numbers(table, "natural"))
    groups = [Group(group) for group in table["group"]]
    within = np.array([natural[[other == group for other in groups]].sum() for group in groups])
    wanted = np.array([settings.study.get(group, 0.0) for group in groups])
    return Groups(
        names=tuple(table["ethnicity"]),
        group=tuple(groups),
        natural=natural,
        study=_shares(wanted * natural / within),
        reference=np.array([group == settings.reference for group in groups]),
        log_odds=_numbers(table, "log_odds"),
    )


def _codes(table: pl.DataFrame, features: Sequence[str]) -> Codes:
    frequency = "patients" if "patients" in table.columns else "weight"
    principal = _numbers(table, "principal") if "principal" in table.columns else np.zeros(table.height)
    return Codes(
        frequency=_numbers(table, frequency),
        principal=principal,
        weights=_links(table["links"], features),
        table=table,
    )


def _labs(table: pl.DataFrame, features: Sequence[str]) -> Labs:
    panels = sorted(set(table["panel"]))
    return Labs(
        logarithmic=(table["scale"] == "log").to_numpy(),
        median=_numbers(table, "median"),
        spread=_numbers(table, "spread"),
        decimals=_numbers(table, "decimals").astype(np.int64),
        normal=np.stack([_numbers(table, "low"), _numbers(table, "high")], axis=1),
        possible=np.stack([_numbers(table, "minimum"), _numbers(table, "maximum")], axis=1),
        share=_numbers(table, "share"),
        panel=np.array([panels.index(panel) for panel in table["panel"]]),
        severity=_numbers(table, "severity"),
        effects=_links(table["effects"], features),
        table=table,
    )


def _exists(name: Name, table: str) -> bool:
    return (FOLDER / name / f"{table}.csv").is_file()


def _read(name: Name, table: str) -> pl.DataFrame:
    """A hand-written table; every column is text, because codes such as 0389 are."""
    return pl.read_csv(FOLDER / name / f"{table}.csv", infer_schema_length=0)


def _numbers(table: pl.DataFrame, column: str) -> FloatArray:
    return table[column].cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)


def _shares(weights: FloatArray) -> FloatArray:
    return np.asarray(weights / weights.sum())


def _links(column: pl.Series, names: Sequence[str]) -> FloatArray:
    """`a:1.5|b:-2` in row m as column m of a matrix (len(names), M); an unknown name is a KeyError."""
    place = {name: index for index, name in enumerate(names)}
    matrix = np.zeros((len(names), len(column)))
    for index, text in enumerate(column):
        for link in (text or "").split("|"):
            if link:
                name, _, value = link.rpartition(":")
                matrix[place[name], index] = float(value)
    return matrix
