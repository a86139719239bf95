"""Patients as a data scientist has them (Python lists, pandas or Polars tables) <-> records and a vocabulary.

In:  `Patient`s, or a table of events and one of patients.   Out: `Records` and a `Vocabulary`, and back.
Never: a patient's value in a message; an identifier in the records; a code in a new vocabulary that fewer than
`minimum_patients` patients carry.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from fairsynth.errors import CohortError, Problem
from fairsynth.schemas import SEXES
from fairsynth.visits.encode import encode_patients, token_ids
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_PATIENTS = 11  # as in a study (config.VocabularyConfig)
LOGGER = logging.getLogger(__name__)
_PHENOTYPES = pl.DataFrame(schema={"subject_id": pl.Int64, "phenotype": pl.String})


@dataclass(frozen=True, kw_only=True)
class Patient:
    """`visits`: the codes of each visit, oldest first. `sex` is "female" or "male", `age` the name of an age band;
    either is given of all patients or of none. `phenotypes` are names of what holds of the patient as a whole."""

    visits: Sequence[Iterable[str]]
    group: str = "all"
    label: int = 0
    sex: str | None = None
    age: str | None = None
    phenotypes: Iterable[str] = ()


def from_patients(
    patients: Iterable[Patient | Mapping[str, Any]],
    *,
    vocabulary: Vocabulary | None = None,
    minimum_patients: int = MINIMUM_PATIENTS,
) -> tuple[Records, Vocabulary]:
    """The records of `patients` (or of mappings with `Patient`'s fields), in order, and their vocabulary.

    A new vocabulary has the codes that at least `minimum_patients` of them carry; with a given one, codes that it lacks
    are left out (and counted in the log). Raises CohortError with all that is wrong.
    """
    given = [one if isinstance(one, Patient) else _patient(one, number) for number, one in enumerate(patients)]
    if lost := sum(isinstance(visit, str) for one in given for visit in one.visits):
        raise CohortError.of("visits that are a text", where=f"{lost} visits", expected="a list of codes each")
    counts = [len(one.visits) for one in given]
    people = pl.DataFrame(
        {
            "subject_id": np.arange(len(given)),
            **{name: [getattr(one, name) for one in given] for name in ("group", "label", "sex", "age")},
            "visits": counts,
        },
        schema_overrides=dict.fromkeys(("group", "sex", "age"), pl.String),
        strict=False,
    )
    flat = [(row, place, list(visit)) for row, one in enumerate(given) for place, visit in enumerate(one.visits)]
    owner, position, own = (list(column) for column in zip(*flat, strict=True)) if flat else ([], [], [])
    codes = pl.DataFrame(
        {"subject_id": owner, "position": position, "code": own},
        schema={"subject_id": pl.Int64, "position": pl.Int64, "code": pl.List(pl.String)},
        strict=False,
    ).explode("code", empty_as_null=False)
    held = [(row, name) for row, one in enumerate(given) for name in one.phenotypes]
    phenotypes = pl.DataFrame(held, schema=_PHENOTYPES.schema, orient="row")
    return _encoded(people, codes, phenotypes, vocabulary=vocabulary, minimum_patients=minimum_patients)


def from_frames(
    events: pl.DataFrame | pd.DataFrame,
    patients: pl.DataFrame | pd.DataFrame | None = None,
    *,
    vocabulary: Vocabulary | None = None,
    minimum_patients: int = MINIMUM_PATIENTS,
) -> tuple[Records, Vocabulary]:
    """The same from tables: `events` has a row for each code (columns patient, visit, code), `patients` one for each
    patient (patient, and any of group, label, sex, age).

    Visits are in the order of `visit` (a number or a date), patients in that of `patients`, else of their identifiers.
    """
    told, people = _polars(events), None if patients is None else _polars(patients)
    _require(told, ("patient", "visit", "code"), where="events")
    if nobodys := told["patient"].null_count():
        raise CohortError.of("codes of nobody", where=f"{nobodys} rows of events", expected="a patient in each")
    if people is None:
        people = told.select("patient").unique().sort("patient")
    _require(people, ("patient",), where="patients")
    if twice := people.height - people["patient"].n_unique():
        raise CohortError.of("patients listed twice", where=f"{twice} rows of patients", expected="one row each")
    people = people.with_row_index("subject_id").with_columns(pl.col("subject_id").cast(pl.Int64))
    named = told.join(people.select("patient", "subject_id"), on="patient", how="left", maintain_order="left")
    if strangers := named["subject_id"].null_count():
        where = f"{strangers} rows of events"
        raise CohortError.of("events of patients that are not listed", where=where, do="add them to `patients`")
    position = (pl.col("visit").rank("dense").over("subject_id") - 1).cast(pl.Int64)
    codes = named.select("subject_id", position.alias("position"), pl.col("code").cast(pl.String))
    visits = codes.group_by("subject_id").agg(visits=pl.col("position").max() + 1)
    people = people.join(visits, on="subject_id", how="left", maintain_order="left").with_columns(
        pl.col("visits").fill_null(0)
    )
    return _encoded(people, codes, _PHENOTYPES, vocabulary=vocabulary, minimum_patients=minimum_patients)


def to_patients(records: Records, *, vocabulary: Vocabulary) -> Iterator[Patient]:
    """Each patient of `records`, in order."""
    layout, names = vocabulary.layout, vocabulary.names
    for row in range(len(records)):
        first, stop = records.patient_offsets[row], records.patient_offsets[row + 1]
        edges = records.visit_offsets[first : stop + 1]
        context = records.context[slice(*records.context_offsets[row : row + 2])]
        said = {
            block: [names[token].partition("//")[2] for token in context if columns.start <= token < columns.stop]
            for block, columns in (("sex", layout.sexes), ("age", layout.ages), ("phenotypes", layout.phenotypes))
        }
        yield Patient(
            visits=tuple(
                tuple(names[token] for token in records.codes[low:high]) for low, high in itertools.pairwise(edges)
            ),
            group=vocabulary.groups[records.group[row]],
            label=int(records.label[row]),
            sex=said["sex"][0] if said["sex"] else None,
            age=said["age"][0] if said["age"] else None,
            phenotypes=tuple(said["phenotypes"]),
        )


def to_frames(records: Records, *, vocabulary: Vocabulary) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`events` (patient, visit, code) and `patients` (patient, group, label, sex, age); both count from 0."""
    names, owner = np.array(vocabulary.names), np.repeat(np.arange(records.visits), np.diff(records.visit_offsets))
    place = np.arange(records.visits) - np.repeat(records.patient_offsets[:-1], records.visit_counts)
    events = pl.DataFrame(
        {"patient": records.visit_patient[owner], "visit": place[owner], "code": names[records.codes]},
        schema_overrides={"code": pl.String},
    )
    columns = {"group": np.array(vocabulary.groups)[records.group], "label": records.label}
    patients = pl.DataFrame({"patient": np.arange(len(records)), **columns}, schema_overrides={"group": pl.String})
    who = np.repeat(np.arange(len(records)), np.diff(records.context_offsets))
    for name, block in (("sex", vocabulary.layout.sexes), ("age", vocabulary.layout.ages)):
        own = (records.context >= block.start) & (records.context < block.stop)
        told = pl.Series(name, names[records.context[own]], dtype=pl.String).str.split("//").list.last()
        found = pl.DataFrame({"patient": who[own], name: told}, schema_overrides={"patient": pl.Int64})
        patients = patients.join(found, on="patient", how="left", maintain_order="left")
    return events, patients


def _patient(fields: Mapping[str, Any], number: int) -> Patient:
    try:
        return Patient(**fields)
    except TypeError:
        expected = "visits, and any of group, label, sex, age, phenotypes"
        raise CohortError.of("not a patient", where=f"number {number} of the list", expected=expected) from None


def _encoded(
    people: pl.DataFrame,
    codes: pl.DataFrame,
    phenotypes: pl.DataFrame,
    *,
    vocabulary: Vocabulary | None,
    minimum_patients: int,
) -> tuple[Records, Vocabulary]:
    """`people`: subject_id, visits, and any of group, label, sex, age. `codes`: subject_id, position, code."""
    defaults = {"group": pl.lit("all"), "label": pl.lit(0), "sex": pl.lit(None, pl.String), "age": pl.lit(None)}
    people = people.with_columns(default.alias(name) for name, default in defaults.items() if name not in people)
    people = people.with_columns(pl.col(name).cast(pl.String) for name in ("group", "sex", "age"))
    problems = [*_of_people(people), *_of_codes(codes)]
    if problems:
        raise CohortError(problems)
    people = people.with_columns(pl.col("label").cast(pl.Int64))
    if vocabulary is None:
        vocabulary = _vocabulary(people, codes, phenotypes, minimum_patients=minimum_patients)
    elif problems := list(_strangers(people, phenotypes, vocabulary)):
        raise CohortError(problems)
    tokens = token_ids(codes.lazy().rename({"code": "token"}), vocabulary=vocabulary)
    if lost := tokens["id"].null_count():
        LOGGER.warning("%d of %d codes are not in the vocabulary and left out", lost, len(tokens))
    records = encode_patients(people, tokens, phenotypes=phenotypes, vocabulary=vocabulary)
    return records, vocabulary


def _vocabulary(
    people: pl.DataFrame, codes: pl.DataFrame, phenotypes: pl.DataFrame, *, minimum_patients: int
) -> Vocabulary:
    carried = codes.group_by("code").agg(patients=pl.col("subject_id").n_unique())
    kept = carried.filter(pl.col("patients") >= minimum_patients)["code"]
    if kept.is_empty():
        raise CohortError.of(
            "no code is common enough",
            where=f"{len(people)} patients",
            expected=f"a code that {minimum_patients} of them carry",
            do="more patients, codes that are rolled up further, or a smaller minimum_patients",
        )
    return Vocabulary(
        codes=tuple(sorted(kept)),
        groups=tuple(people["group"].unique().sort()),
        ages=tuple(people["age"].drop_nulls().unique().sort()),
        phenotypes=tuple(phenotypes["phenotype"].unique().sort()),
        sexes=SEXES if people["sex"].null_count() < len(people) else (),
    )


def _of_people(people: pl.DataFrame) -> Iterator[Problem]:
    """What is wrong with the patients: counts only."""
    if people.is_empty():
        yield Problem(what="no patients", where="the data", expected="at least one")
        return
    number = len(people)
    label, sex = pl.col("label").cast(pl.Float64, strict=False), pl.col("sex")
    checks = (
        ("patients without a visit", pl.col("visits") == 0, "at least one visit each"),
        ("patients without a group", pl.col("group").is_null() | (pl.col("group") == ""), "a text"),
        ("labels out of range", label.is_null() | ~label.is_in([0.0, 1.0]), "0 or 1"),
        ("sexes of another name", ~sex.is_in(SEXES), f"one of: {', '.join(SEXES)}"),
    )
    for what, wrong, expected in checks:
        if found := people.filter(wrong).height:
            yield Problem(what=what, where=f"{found} of {number} patients", expected=expected)
    for name in ("sex", "age"):
        if 0 < (absent := people[name].null_count()) < number:
            yield Problem(what=f"no {name}", where=f"{absent} of {number} patients", expected="that of all, or of none")


def _of_codes(codes: pl.DataFrame) -> Iterator[Problem]:
    if lost := codes["position"].null_count():
        yield Problem(
            what="codes without a visit", where=f"{lost} of {len(codes)} codes", expected="a number or a date"
        )
    if lost := codes.filter(pl.col("code").is_null() | (pl.col("code") == "")).height:
        yield Problem(what="empty codes", where=f"{lost} of {len(codes)} codes", expected="a text each")


def _strangers(people: pl.DataFrame, phenotypes: pl.DataFrame, vocabulary: Vocabulary) -> Iterator[Problem]:
    """Groups, sexes, ages and phenotypes that a given vocabulary does not have, or lacks of the patients."""
    columns = [("group", vocabulary.groups), ("sex", vocabulary.sexes), ("age", vocabulary.ages)]
    for name, known in columns:
        wrong = ~people[name].is_in(known) if known else people[name].is_not_null()
        if lost := int(wrong.fill_null(value=True).sum()):
            expected = f"one of: {', '.join(known)}" if known else "none, as in the vocabulary"
            yield Problem(
                what=f"unknown or missing {name}", where=f"{lost} of {len(people)} patients", expected=expected
            )
    if lost := int((~phenotypes["phenotype"].is_in(vocabulary.phenotypes)).sum()):
        yield Problem(
            what="unknown phenotypes", where=f"{lost} of {len(phenotypes)}", expected="those of the vocabulary"
        )


def _polars(frame: pl.DataFrame | pd.DataFrame) -> pl.DataFrame:
    return frame if isinstance(frame, pl.DataFrame) else pl.from_pandas(frame)


def _require(frame: pl.DataFrame, columns: Sequence[str], *, where: str) -> None:
    if absent := [name for name in columns if name not in frame.columns]:
        expected = ", ".join(columns)
        raise CohortError(
            Problem(what="missing column", where=f"{where}  {name}", expected=expected) for name in absent
        )
