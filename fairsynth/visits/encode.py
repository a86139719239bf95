"""Tokens of patients -> CSR records over the shared vocabulary.

In:  patients (subject_id, group, sex, age, label, visits), their tokens and phenotypes.   Out: `Records`.
Never: files; identifiers in the result. Patients keep the order of the patients table.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from fairsynth.schemas import IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


def encode_patients(
    patients: pl.DataFrame, tokens: pl.DataFrame, *, phenotypes: pl.DataFrame, vocabulary: Vocabulary
) -> Records:
    """The records of `patients`, with `tokens` as of `token_ids`; those without id are left out, their visits stay."""
    patients = patients.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"))
    patient_offsets = _offsets(patients["visits"].to_numpy())
    rows = tokens.join(patients.select("subject_id", "row"), on="subject_id", how="inner")
    codes, visit_offsets = _codes(rows, patient_offsets=patient_offsets)
    context, context_offsets = _context(patients, phenotypes, vocabulary=vocabulary)
    return Records(
        codes=codes,
        visit_offsets=visit_offsets,
        patient_offsets=patient_offsets,
        context=context,
        context_offsets=context_offsets,
        group=patients["group"].replace_strict(_ids(vocabulary.groups), return_dtype=pl.Int64).to_numpy(),
        label=patients["label"].cast(pl.Int64).to_numpy(),
    )


def token_ids(tokens: pl.LazyFrame, *, vocabulary: Vocabulary) -> pl.DataFrame:
    """subject_id, position, id of every token occurrence; null where the vocabulary does not have the token.

    Numbers, because the tokens of all patients as text are most of what encoding would hold.
    """
    table = _table("token", "id", list(vocabulary.codes), start=vocabulary.layout.codes.start).lazy()
    found = tokens.join(table, on="token", how="left").select("subject_id", pl.col("position").cast(pl.Int32), "id")
    return found.collect(engine="streaming")


def known_share(tokens: pl.DataFrame) -> float:
    """Share of the token occurrences (`token_ids`) that the vocabulary has; 0 when there are none."""
    return (len(tokens) - tokens["id"].null_count()) / len(tokens) if len(tokens) else 0.0


def _codes(rows: pl.DataFrame, *, patient_offsets: IntArray) -> tuple[IntArray, IntArray]:
    """Token ids of all visits in order, sorted within a visit, and the visits' offsets."""
    found = rows.drop_nulls("id").select("row", "position", "id").unique()
    visit = patient_offsets[found["row"].to_numpy()] + found["position"].to_numpy()
    ids = found["id"].to_numpy().astype(np.int64)
    order = np.lexsort((ids, visit))
    counts = np.bincount(visit, minlength=patient_offsets[-1])
    return ids[order], _offsets(counts)


def _context(patients: pl.DataFrame, phenotypes: pl.DataFrame, *, vocabulary: Vocabulary) -> tuple[IntArray, IntArray]:
    """Token ids of the label visits: group, label if positive, sex and age if the vocabulary has any, phenotypes; and
    their offsets."""
    ids = {name: index for index, name in enumerate(vocabulary.names)}
    known = phenotypes.filter(pl.col("phenotype").is_in(list(vocabulary.phenotypes)))
    frames = [
        patients.select("row", pl.format("GROUP//{}", "group").alias("token")),
        *([patients.select("row", pl.format("SEX//{}", "sex").alias("token"))] if vocabulary.sexes else []),
        *([patients.select("row", pl.format("AGE//{}", "age").alias("token"))] if vocabulary.ages else []),
        patients.filter(pl.col("label") == 1).select("row", pl.lit("LABEL").alias("token")),
        known.join(patients, on="subject_id").select("row", pl.format("PHENOTYPE//{}", "phenotype").alias("token")),
    ]
    tokens = pl.concat(frames).with_columns(pl.col("token").replace_strict(ids, return_dtype=pl.Int64))
    tokens = tokens.unique().sort("row", "token")
    counts = np.bincount(tokens["row"].to_numpy(), minlength=len(patients))
    return tokens["token"].to_numpy(), _offsets(counts)


def _ids(names: tuple[str, ...]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def _table(key: str, value: str, names: list[str], *, start: int) -> pl.DataFrame:
    """A lookup table name -> start + index."""
    ids = pl.Series(value, range(start, start + len(names)), dtype=pl.Int32)
    return pl.DataFrame([pl.Series(key, names, dtype=pl.String), ids])


def _offsets(counts: IntArray) -> IntArray:
    """CSR offsets of rows with these lengths."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
