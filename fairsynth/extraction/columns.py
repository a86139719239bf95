"""The columns of an events table, in memory."""

from __future__ import annotations

import polars as pl

# MEDS 0.4 data schema (subject_id, time, code, numeric_value) and two columns of ours: `visit_id` ties an event to its
# visit (null: outside any visit), `unit` is the unit of `numeric_value` as the source wrote it.
EVENT_SCHEMA: dict[str, pl.DataType] = {
    "subject_id": pl.Int64(),
    "time": pl.Datetime("us"),
    "code": pl.String(),
    "numeric_value": pl.Float32(),
    "visit_id": pl.Int64(),
    "unit": pl.String(),
}
