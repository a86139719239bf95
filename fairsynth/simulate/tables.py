"""Arrays -> columns that both sources share: keys, times, code rows, laboratory values as text.

In:  a `Part` and its rows.   Out: polars frames and expressions; ROW_ID is added by the writer.
Never: randomness, file access.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.simulate.content import CodeRows, LabRows
from fairsynth.simulate.source import BoolArray
from fairsynth.simulate.truth import Part

FIRST_SUBJECT = 10_000
FIRST_ADMISSION = 100_000
FIRST_ICU_STAY = 200_000


def times(minutes: IntArray, *, where: BoolArray | None = None) -> pl.Series:
    """Minutes since 1970-01-01 as date-times; null where `where` is false."""
    series = pl.Series(minutes * 60_000_000, dtype=pl.Int64).cast(pl.Datetime("us"))
    return series if where is None else series.set(pl.Series(~where), None)


def subjects(part: Part, visit: IntArray) -> IntArray:
    """SUBJECT_ID of each row's patient."""
    return FIRST_SUBJECT + part.planned.patients.number[part.planned.visits.patient[visit]]


def admissions(part: Part, visit: IntArray) -> IntArray:
    """HADM_ID of each row's visit."""
    return FIRST_ADMISSION + part.planned.visits.number[visit]


def icu_stays(part: Part, visit: IntArray, *, second: bool = False) -> IntArray:
    """ICUSTAY_ID of the first or second ICU stay of each row's visit."""
    return FIRST_ICU_STAY + 2 * part.planned.visits.number[visit] + second


def code_table(part: Part, rows: CodeRows, codes: pl.Series, *, column: str) -> pl.DataFrame:
    """SUBJECT_ID, HADM_ID, SEQ_NUM and the code."""
    return pl.DataFrame(
        {
            "SUBJECT_ID": subjects(part, rows.visit),
            "HADM_ID": admissions(part, rows.visit),
            "SEQ_NUM": rows.place,
            column: codes.gather(rows.code),
        }
    )


def icu_table(part: Part, *, wards: dict[str, int]) -> pl.DataFrame:
    """ICU stays of the visits that are in the tables, without the columns of one source only."""
    visits, settings = part.planned.visits, part.process.source.settings
    uniform, share = part.streams("icu").random((2, len(visits.stay)))
    again = (uniform < settings.second_icu_stay) & (visits.stay - visits.icu > 2 * 24 * 60)
    rest = visits.stay - visits.icu
    frames = []
    for second, chosen in ((False, part.seen), (True, part.seen & again)):
        visit = np.flatnonzero(chosen)
        start = visits.admitted[visit] + (1 if not second else visits.icu[visit] + (rest[visit] * 0.3).astype(np.int64))
        length = visits.icu[visit] if not second else (rest[visit] * (0.1 + 0.4 * share[visit])).astype(np.int64)
        unit = pl.Series([part.process.source.units.names[index] for index in visits.unit[visit]], dtype=pl.String)
        ward = unit.replace_strict(wards, return_dtype=pl.Int64)
        frames.append(
            pl.DataFrame(
                {
                    "SUBJECT_ID": subjects(part, visit),
                    "HADM_ID": admissions(part, visit),
                    "ICUSTAY_ID": icu_stays(part, visit, second=second),
                    "FIRST_CAREUNIT": unit,
                    "LAST_CAREUNIT": unit,
                    "FIRST_WARDID": ward,
                    "LAST_WARDID": ward,
                    "INTIME": times(start),
                    "OUTTIME": times(start + length),
                    "LOS": np.round(length / (24 * 60), 4),
                }
            )
        )
    return pl.concat(frames).sort("ICUSTAY_ID")


def lab_table(part: Part, rows: LabRows, *, low: str | None, high: str | None, normal: str | None) -> pl.DataFrame:
    """Laboratory rows with the source's flags; values below the first possible one read `<value`, without number."""
    labs = part.process.source.labs
    item = rows.item
    limits = labs.normal[item]
    below, above = rows.value < limits[:, 0], rows.value > limits[:, 1]
    flags = np.where(below, 1, np.where(above, 2, 0))
    floor = labs.possible[item, 0]
    censored = (rows.value <= floor) & (floor > 0)
    frame = pl.DataFrame(
        {
            "SUBJECT_ID": subjects(part, rows.visit),
            "HADM_ID": pl.Series(admissions(part, rows.visit)).set(pl.Series(rows.outside), None),
            "ITEMID": labs.table["itemid"].cast(pl.Int64).gather(item),
            "CHARTTIME": times(rows.minute),
            "VALUENUM": rows.value,
            "VALUEUOM": labs.table["unit"].gather(item),
            "FLAG": pl.Series([normal, low, high], dtype=pl.String).gather(flags),
            "decimals": labs.decimals[item],
            "censored": censored,
        }
    )
    text = pl.when(pl.col("decimals") == 0).then(pl.col("VALUENUM").cast(pl.Int64).cast(pl.String))
    value = text.otherwise(pl.col("VALUENUM").cast(pl.String))
    return frame.with_columns(
        VALUE=pl.when("censored").then(pl.lit("<") + value).otherwise(value),
        VALUENUM=pl.when("censored").then(None).otherwise(value),
    ).drop("decimals", "censored")


def death_minutes(part: Part) -> IntArray:
    """(P,) minute of the recorded death in hospital of each planned patient, -1 if none is recorded."""
    visits = part.planned.visits
    minute = np.full(len(part.planned.patients.number), -1)
    dead = part.seen & visits.recorded
    minute[visits.patient[dead]] = (visits.admitted + visits.stay)[dead]
    return minute


def pick(shares: Mapping[str, float], uniform: FloatArray) -> npt.NDArray[np.str_]:
    """A value of `shares` for each uniform number, at the given shares (normalised)."""
    edges = np.cumsum(list(shares.values()))
    place = np.searchsorted(edges / edges[-1], uniform, side="right")
    return np.array(list(shares))[np.minimum(place, len(shares) - 1)]


def renamed(table: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
    """The columns of a hand-written table under the source's names."""
    return table.select(pl.col(old).alias(new) for new, old in columns.items())


def empty_as_null(frame: pl.DataFrame) -> pl.DataFrame:
    """Empty text as null, which the CSV shows as nothing."""
    return frame.with_columns(pl.col(pl.String).replace("", None))
