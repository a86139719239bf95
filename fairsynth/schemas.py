"""The vocabulary of types that every package shares.

In:  nothing.   Out: identifiers that must not mix, the sexes, and the columns of an events table.
Never: file access, arithmetic.
"""

from __future__ import annotations

from typing import Literal, NewType

import numpy as np
import numpy.typing as npt
import polars as pl

SiteId = NewType("SiteId", str)
Group = NewType("Group", str)  # a value of the sensitive attribute, e.g. "black"
Split = Literal["train", "validation", "held_out"]

SPLITS: tuple[Split, ...] = ("train", "validation", "held_out")
SEXES = ("female", "male")

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[np.generic]]

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
