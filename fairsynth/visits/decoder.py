"""How each token can be turned back into events of this site's own codes: `cohort/decoder.parquet`.

In:  the training patients' source codes.   Out: one row for every (token, source code, unit).
Never: a source code that fewer than `minimum_patients` training patients carry. A token of which no source code reaches
it has no row: it cannot be decoded, and the manifest counts it.

Columns:

    token        String   a name of `Vocabulary.names`, or one of the structural ones below
    source_code  String   a complete event code, e.g. `DIAG//ICD9CM//4280`; "" where the token is an interval, no event
    unit         String   unit of low and high: the site's own for LAB, `days` for AGE, GAP and LOS; else null
    low, high    Float64  range of the value; null where the token has no value
    weight       Float64  relative frequency of the source code among those of its token (training events, or patients
                          for GROUP, or visits for structural rows); positive, not normalised

    LAB//<loinc>//<bin>   low and high as `Lab.ranges`: low bins hold low <= v < high, high bins low < v <= high
    AGE//<bin>            age at the admission of the record's last visit, low <= days < high
    GAP//<bin>            days from the previous visit's discharge to this one's admission, low <= days < high
    LOS//<bin>            days from admission to discharge, low <= days < high
    SEX//<sex>            `GENDER//F`, `GENDER//M`
    GROUP//<group>        `<attribute>//<raw string>`, e.g. `ETHNICITY//WHITE`
    LABEL                 `DEATH//HOSPITAL` where the task predicts death; `READMISSION//30D` where it predicts
                          readmission and the source has such events; else no row
    PHENOTYPE//<name>     no row: phenotypes follow from the diagnoses of the visits
    ADMISSION             structural: the event that opens a visit
    DISCHARGE//alive, DISCHARGE//died   structural: the event that closes it
    LABEL//0              structural: what the source says of a label of 0, `READMISSION//LATER` or `//NONE`
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from fairsynth.visits.bins import AGE_BINS, GAP_BINS, LOS_BINS
from fairsynth.visits.labs import labs_by_loinc, plain_unit
from fairsynth.visits.patients import SEX_OF_GENDER

DECODER_SCHEMA = {
    "token": pl.String,
    "source_code": pl.String,
    "unit": pl.String,
    "low": pl.Float64,
    "high": pl.Float64,
    "weight": pl.Float64,
}
STRUCTURAL = ("ADMISSION", "DISCHARGE//alive", "DISCHARGE//died", "LABEL//0")


_VISIT = ["subject_id", "visit_id"]


def group_sources(patients: pl.DataFrame, *, attribute: str) -> pl.DataFrame:
    """The raw strings of each group among `patients` (columns group, raw): token, code, unit, events, patients."""
    counts = patients.group_by("group", "raw").len("patients").sort("group", "raw")
    return counts.select(
        pl.format("GROUP//{}", "group").alias("token"),
        pl.format("{}//{}", pl.lit(attribute), "raw").alias("code"),
        pl.lit(None, dtype=pl.String).alias("unit"),
        pl.col("patients").cast(pl.Int64).alias("events"),
        pl.col("patients").cast(pl.Int64),
    )


def structural_sources(events: pl.DataFrame, *, visits: pl.DataFrame) -> pl.DataFrame:
    """Codes that open and close the visits in `visits` (subject_id, visit_id, died), as `group_sources` has them."""
    code = pl.col("code")
    opens, closes = code.str.starts_with("ADMISSION//"), code.str.starts_with("DISCHARGE//")
    ending = pl.when("died").then(pl.lit("DISCHARGE//died")).otherwise(pl.lit("DISCHARGE//alive"))
    found = events.filter(opens | closes).join(visits.select(*_VISIT, "died"), on=_VISIT, how="inner")
    return _counted(found.with_columns(pl.when(opens).then(pl.lit("ADMISSION")).otherwise(ending).alias("token")))


def readmission_sources(events: pl.DataFrame, *, visits: pl.DataFrame) -> pl.DataFrame:
    """What the source says of a label of 0 in `visits` (subject_id, visit_id, order, last_order, label)."""
    negative = visits.filter(pl.col("order") == pl.col("last_order"), pl.col("label") == 0).select(_VISIT)
    said = events.filter(pl.col("code").str.starts_with("READMISSION//"))
    return _counted(said.join(negative, on=_VISIT, how="inner").with_columns(token=pl.lit("LABEL//0")))


def _counted(found: pl.DataFrame) -> pl.DataFrame:
    """Events (subject_id, token, code) as `group_sources` has them."""
    return (
        found.group_by("token", "code")
        .agg(pl.len().cast(pl.Int64).alias("events"), pl.col("subject_id").n_unique().cast(pl.Int64).alias("patients"))
        .select("token", "code", pl.lit(None, dtype=pl.String).alias("unit"), "events", "patients")
        .sort("token", "code")
    )


def decoder(sources: pl.DataFrame, *, tokens: Iterable[str], label: str | None, minimum_patients: int) -> pl.DataFrame:
    """The rows of `decoder.parquet` for the vocabulary's `tokens`; see the head of this module.

    `label` is the source's code for a label of 1, None where it has none.
    """
    wanted = [*tokens, *STRUCTURAL]
    kept = sources.filter(pl.col("patients") >= minimum_patients, pl.col("token").is_in(wanted))
    rows = [_row(source) for source in kept.iter_rows(named=True)]
    rows += [row for row in _fixed_rows(label) if row["token"] in set(wanted)]
    return pl.DataFrame(rows, schema=DECODER_SCHEMA).sort("token", "source_code", "unit")


def undecodable(rows: pl.DataFrame, *, tokens: Iterable[str]) -> int:
    """How many of `tokens` have no row."""
    return len(set(tokens) - set(rows["token"]))


def _row(source: dict[str, object]) -> dict[str, object]:
    """One source code as a decoder row; laboratory tokens get their bin's range in the site's unit."""
    token = str(source["token"])
    row = {"token": token, "source_code": source["code"], "weight": float(str(source["events"]))}
    if not token.startswith("LAB//"):
        return row
    _, loinc, name = token.split("//")
    lab = labs_by_loinc()[loinc]
    unit = source["unit"]
    factor = lab.units[plain_unit(unit if isinstance(unit, str) else None)]
    low, high = lab.ranges()[name]
    return {**row, "unit": unit, "low": low / factor, "high": high / factor}


def _fixed_rows(label: str | None) -> list[dict[str, object]]:
    """Rows that are the same at every site."""
    kinds = {"AGE": AGE_BINS, "GAP": GAP_BINS, "LOS": LOS_BINS}
    intervals: list[dict[str, object]] = [
        {"token": f"{kind}//{name}", "source_code": "", "unit": "days", "low": low, "high": high, "weight": 1.0}
        for kind, bins in kinds.items()
        for name, (low, high) in bins.items()
    ]
    codes = {f"SEX//{sex}": code for code, sex in SEX_OF_GENDER.items()} | ({"LABEL": label} if label else {})
    return intervals + [{"token": token, "source_code": code, "weight": 1.0} for token, code in codes.items()]
