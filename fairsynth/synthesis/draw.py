"""Records -> what every token, patient and visit becomes: one source code each, and the days between and within visits.

In:  `Records`, a decoder, random streams.   Out: `Drawn`.
Never: dates, files.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.seeds import Streams
from fairsynth.synthesis.assemble import FIRST_ID, Drawn, Visits
from fairsynth.synthesis.choices import Choices, Decoder
from fairsynth.synthesis.timeline import Intervals
from fairsynth.visits.decoder import STRUCTURAL
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

_FOLLOWS = "PHENOTYPE"  # of the context: follows from the diagnoses, so it is no event of its own
READMITTED_AFTER = (1.0, 29.0)  # days


def visits_of(
    records: Records, *, label_visit_follows: bool, readmission_follows: bool = False, before: tuple[int, int] = (0, 0)
) -> Visits:
    """The visits to write: those of the records, and one more of each patient where the label's visit follows them, or
    of each patient with label 1 where the label says that an admission follows. `before`: patients and visits that are
    written already.
    """
    added = (records.label == 1) & readmission_follows | label_visit_follows
    more = np.concatenate([[0], np.cumsum(added, dtype=np.int64)])
    offsets = records.patient_offsets + more
    return Visits(
        patient=np.repeat(np.arange(len(records), dtype=np.int64), np.diff(offsets)),
        patient_offsets=offsets,
        of_record=np.arange(records.visits, dtype=np.int64) + more[records.visit_patient],
        last=offsets[1:] - 1 - added * readmission_follows,
        readmission=(offsets[1:] - 1)[added & readmission_follows],
        first_patient=FIRST_ID + before[0],
        first_visit=FIRST_ID + before[1],
    )


def draw(
    records: Records, *, vocabulary: Vocabulary, decoder: Decoder, visits: Visits, deadly: bool, streams: Streams
) -> Drawn:
    """A source code for every token, patient and visit, a value for every range. `deadly`: a label of 1 is death."""
    names = np.array([*vocabulary.names, *STRUCTURAL])
    visit = visits.of_record[np.repeat(np.arange(records.visits), np.diff(records.visit_offsets))]
    patient = np.repeat(np.arange(len(records)), np.diff(records.context_offsets))
    codes = _drawn(visit, decoder.draw(records.codes, streams=streams, purpose="codes"), names=names[records.codes])
    chosen = decoder.draw(records.context, streams=streams, purpose="context")
    context = _drawn(patient, chosen, names=names[records.context])
    opening = len(vocabulary.names)  # then DISCHARGE//alive, DISCHARGE//died, LABEL//0
    closing = np.full(len(visits.patient), opening + 1)
    closing[visits.last] += records.label * deadly
    negative = decoder.draw(np.full(len(records), opening + 3), streams=streams, purpose="negative")
    said = _one_each(context, "LABEL", pl.col("source"), number=len(records))
    return Drawn(
        codes=codes.rename({"owner": "visit"}),
        sex=_one_each(context, "SEX", pl.col("source"), number=len(records)),
        group=_one_each(context, "GROUP", pl.col("source"), number=len(records)),
        admission=decoder.draw(np.full(len(visits.patient), opening), streams=streams, purpose="opening").source,
        discharge=decoder.draw(closing, streams=streams, purpose="closing").source,
        outcome=_either(said, negative.source, label=records.label),
        died=pl.Series((records.label == 1) & deadly),
        intervals=_intervals(codes, context, records=records, visits=visits, streams=streams),
        undecodable=_undecodable(codes, context, followed={"LABEL"} if len(visits.readmission) else set()),
    )


def _either(positive: pl.Series, negative: pl.Series, *, label: IntArray) -> pl.Series:
    """(B,) what is said of a label of 1 or of 0, whichever the patient has."""
    return pl.select(pl.when(pl.Series(label) == 1).then(positive).otherwise(negative)).to_series()


def _drawn(owner: IntArray, choices: Choices, *, names: npt.NDArray[np.str_]) -> pl.DataFrame:
    """owner, token, kind, source, unit, low, high, value: one row a token."""
    token = pl.Series(names, dtype=pl.String)
    return pl.DataFrame(
        {
            "owner": owner,
            "token": token,
            "kind": token.str.split("//").list.first(),
            "source": choices.source,
            "unit": choices.unit,
            "low": choices.low,
            "high": choices.high,
            "value": choices.value,
        },
        schema_overrides={"owner": pl.Int64},
    )


def _intervals(
    codes: pl.DataFrame, context: pl.DataFrame, *, records: Records, visits: Visits, streams: Streams
) -> Intervals:
    """Days before, in and up to visits. A birth is at midnight, up to a day before the drawn moment, hence `- 1`."""
    width = pl.col("high") - pl.col("low")
    age = pl.col("low") + (pl.col("value") - pl.col("low")) * (width - 1).clip(0) / width
    number = len(visits.patient)
    gap = _days(_one_each(codes, "GAP", pl.col("value"), number=number)).copy()
    gap[visits.readmission] = streams("readmission").uniform(*READMITTED_AFTER, size=len(visits.readmission))
    return Intervals(
        gap=gap,
        length=_days(_one_each(codes, "LOS", pl.col("value"), number=number)),
        age=_days(_one_each(context, "AGE", age, number=len(records))),
        aged_at=visits.of_record[records.patient_offsets[1:] - 1],
    )


def _one_each(frame: pl.DataFrame, kind: str, column: pl.Expr, *, number: int) -> pl.Series:
    """(number,) `column` of each owner's first token of `kind`, null where it has none."""
    found = frame.filter(kind=kind).unique("owner", keep="first", maintain_order=True).select("owner", value=column)
    everyone = pl.DataFrame({"owner": np.arange(number)}, schema={"owner": pl.Int64})
    return everyone.join(found, on="owner", how="left", maintain_order="left")["value"]


def _days(values: pl.Series) -> FloatArray:
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _undecodable(codes: pl.DataFrame, context: pl.DataFrame, *, followed: set[str]) -> dict[str, int]:
    """Tokens without a source code, by kind; `followed` are kinds that a visit says instead."""
    tokens = pl.concat([frame.select("kind", "source") for frame in (codes, context)])
    lost = tokens.filter(pl.col("source").is_null(), ~pl.col("kind").is_in([_FOLLOWS, *followed]))
    return dict(lost.group_by("kind").len().sort("kind").iter_rows())
