"""Events -> the visits and patients of the cohort.

In:  the events table, `CohortConfig`.   Out: visits (one row each, ordered within the patient) and patients.
Never: tokens, labels.
"""

from __future__ import annotations

import polars as pl

from fairsynth.config import CohortConfig
from fairsynth.visits.bins import DAYS_PER_YEAR, age_days
from fairsynth.visits.flow import Flow
from fairsynth.visits.shards import VISIT_CODES, starts_with_any

READMISSION_DAYS = 30
SEX_OF_GENDER = {"GENDER//F": "female", "GENDER//M": "male"}


def read_visits(events: pl.DataFrame, *, attribute: str, artificial: bool = False) -> pl.DataFrame:
    """Every visit that has an admission: subject_id, visit_id, admitted, discharged, died, hospice, readmission, raw,
    units.

    `hospice`: discharged to one. `readmission` is 30D, LATER or NONE: what the source says (events `READMISSION//...`),
    else what the patient's next admission says, else null, where the calendar is `artificial`. `raw` is the string of
    the sensitive attribute (events `<attribute>//...`), null if the visit has none; where no visit of a patient has
    one, the string that the source tells of the patient, outside any visit. A visit without discharge ends with its
    last event.
    """
    code, time = pl.col("code"), pl.col("time")
    prefix = f"{attribute}//"
    visits = (
        events.filter(pl.col("visit_id").is_not_null(), starts_with_any((*VISIT_CODES, prefix)))
        .group_by("subject_id", "visit_id")
        .agg(
            time.filter(code.str.starts_with("ADMISSION//")).min().alias("admitted"),
            time.filter(code.str.starts_with("DISCHARGE//")).max().alias("discharged"),
            time.max().alias("last_event"),
            code.str.starts_with("DEATH//HOSPITAL").any().alias("died"),
            ((code == "HOSPICE") | _to_hospice(code)).any().alias("hospice"),
            code.filter(code.str.starts_with("READMISSION//")).sort().first().str.strip_prefix("READMISSION//"),
            code.filter(code.str.starts_with(prefix)).sort().first().str.strip_prefix(prefix).alias("raw"),
            code.filter(code.str.starts_with("UNIT//")).str.strip_prefix("UNIT//").unique().sort().alias("units"),
        )
        .filter(pl.col("admitted").is_not_null())
        .with_columns(pl.coalesce("discharged", "last_event").alias("discharged"))
        .rename({"code": "readmission"})
        .join(_own_strings(events, prefix), on="subject_id", how="left")
        .with_columns(
            pl.when(pl.col("raw").is_null().all().over("subject_id")).then("own").otherwise("raw").alias("raw")
        )
        .drop("last_event", "own")
        .sort("subject_id", "admitted", "visit_id")
    )
    return visits if artificial else visits.with_columns(pl.coalesce("readmission", _next_admission()))


def _to_hospice(code: pl.Expr) -> pl.Expr:
    """Whether an event is a discharge to a hospice."""
    return code.str.starts_with("DISCHARGE//") & code.str.to_uppercase().str.contains("HOSPICE", literal=True)


def _next_admission() -> pl.Expr:
    """30D, LATER or NONE, from the patient's next admission; one before the discharge counts as on the same day."""
    days = (pl.col("admitted").shift(-1).over("subject_id") - pl.col("discharged")).dt.total_seconds() / 86_400
    return (
        pl.when(days.is_null())
        .then(pl.lit("NONE"))
        .when(days <= READMISSION_DAYS)
        .then(pl.lit("30D"))
        .otherwise(pl.lit("LATER"))
    )


def _own_strings(events: pl.DataFrame, prefix: str) -> pl.DataFrame:
    """The string of the sensitive attribute that is told of the patient, outside any visit: subject_id, own."""
    code = pl.col("code")
    own = events.filter(pl.col("visit_id").is_null(), code.str.starts_with(prefix)).group_by("subject_id")
    return own.agg(code.sort().first().str.strip_prefix(prefix).alias("own"))


def read_people(events: pl.DataFrame) -> pl.DataFrame:
    """Date of birth and sex of every patient that has both: subject_id, birth, sex."""
    code = pl.col("code")
    wanted = (code == "MEDS_BIRTH") | code.is_in(list(SEX_OF_GENDER))
    return (
        events.filter(wanted)
        .group_by("subject_id")
        .agg(
            pl.col("time").filter(code == "MEDS_BIRTH").min().alias("birth"),
            code.filter(code != "MEDS_BIRTH").sort().first().replace_strict(SEX_OF_GENDER, default=None).alias("sex"),
        )
        .drop_nulls()
        .sort("subject_id")
    )


def select(
    visits: pl.DataFrame, *, people: pl.DataFrame, cohort: CohortConfig, flow: Flow, artificial: bool = False
) -> pl.DataFrame:
    """The cohort's visits, with columns birth, sex, age_days (at admission), order (0 = first), gap_days, los_days.

    `gap_days` counts from the discharge of the patient's previous visit in the cohort (at least 0; null on the first,
    and everywhere where the calendar is `artificial`).
    """
    flow.note("patients_in_events", visits["subject_id"].n_unique())
    flow.note("visits_in_events", len(visits))
    visits = visits.join(people, on="subject_id", how="inner", maintain_order="left")
    flow.note("visits_with_sex_and_birth", len(visits))
    visits = visits.with_columns(age_days(pl.col("birth"), pl.col("admitted")).alias("age_days"))
    low, high = cohort.minimum_age_years * DAYS_PER_YEAR, cohort.maximum_age_years * DAYS_PER_YEAR
    visits = visits.filter(pl.col("age_days").is_between(low, high))
    flow.note("visits_in_age_range", len(visits))
    if cohort.require_unit:
        visits = visits.filter(pl.col("units").list.set_intersection(list(cohort.require_unit)).list.len() > 0)
        flow.note("visits_in_required_units", len(visits))
    visits = visits.filter(pl.len().over("subject_id") >= cohort.minimum_visits)
    flow.note("patients_with_enough_visits", visits["subject_id"].n_unique())
    visits = with_intervals(visits)
    return visits.with_columns(gap_days=pl.lit(None, pl.Float64)) if artificial else visits


def with_intervals(visits: pl.DataFrame) -> pl.DataFrame:
    """`visits` (sorted) with order, gap_days and los_days."""
    previous = pl.col("discharged").shift(1).over("subject_id")
    days = 86_400.0
    return visits.with_columns(
        pl.int_range(pl.len()).over("subject_id").alias("order"),
        ((pl.col("admitted") - previous).dt.total_seconds() / days).clip(lower_bound=0).alias("gap_days"),
        ((pl.col("discharged") - pl.col("admitted")).dt.total_seconds() / days).clip(lower_bound=0).alias("los_days"),
    )


def first_strings(visits: pl.DataFrame) -> pl.DataFrame:
    """The raw string of each patient's first visit that has one: subject_id, raw."""
    return (
        visits.filter(pl.col("raw").is_not_null())
        .group_by("subject_id", maintain_order=True)
        .first()
        .select("subject_id", "raw")
    )
