"""Parquet files as the text that a CSV would hold.

In:  a path, the columns to read.   Out: header; batches of text cells; what is wrong with a file or a column's type.
Never: a cell in a message; a file held in memory.

NaN is missing, as pandas has it; whole numbers lose their `.0`, for an identifier that some row lacks is stored as a
float; true and false stay words.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fairsynth.errors import ExtractionError, Problem
from fairsynth.extraction.textfile import unreadable

ROWS = 200_000  # that become one batch
DAMAGED = (pa.ArrowException, OSError, ValueError)  # their texts quote cells
_WHOLE = 2.0**53  # floats beyond it are no exact whole numbers


def header(path: Path) -> list[str]:
    """The file's column names. Raises ExtractionError."""
    try:
        return list(pq.read_schema(path).names)
    except DAMAGED as error:
        raise damaged(path, error) from None


def type_problems(path: Path, columns: list[str], *, compared: dict[str, set[str]]) -> Iterator[Problem]:
    """Columns that cannot be read as cells. `compared` names the cells that the rules compare a column with."""
    schema = pq.read_schema(path)
    for name in columns:
        kind = schema.field(name).type
        if _is_no_cell(kind):
            expected, do = "numbers, text, or dates with or without a time", "write the table with plain columns"
            yield Problem(what=f"column of type {kind}", where=f"{path}  {name}", expected=expected, do=do)
        if pa.types.is_boolean(kind) and not compared.get(name, set()) <= {"true", "false", ""}:
            expected = f"a cell of the rules: {', '.join(sorted(compared[name]))}"
            do = "write the column as the CSV has it, or say `true` and `false` in the rules"
            yield Problem(what="column of true and false", where=f"{path}  {name}", expected=expected, do=do)


def batches(path: Path, columns: list[str]) -> Generator[pl.DataFrame]:
    """The columns as text, in batches. Raises ExtractionError when the file is damaged."""
    for batch in plain_batches(path, columns):
        yield pl.DataFrame([_texts(column, path=path) for column in batch])


def plain_batches(path: Path, columns: list[str]) -> Generator[pl.DataFrame]:
    """The columns as they are, in batches. Raises ExtractionError when the file is damaged."""
    try:
        with pq.ParquetFile(path) as source:
            for batch in source.iter_batches(batch_size=ROWS, columns=columns):
                batch.validate(full=True)
                yield pl.DataFrame(pa.Table.from_batches([batch]))
    except DAMAGED as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> ExtractionError:
    """The error for a file that is no Parquet, or not a whole one, or that this account may not read."""
    if isinstance(error, PermissionError):
        return ExtractionError(unreadable(path))
    do = "copy or write the file again"
    return ExtractionError.of("damaged file", where=str(path), expected="a whole Parquet file", do=do)


def _is_no_cell(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_nested(kind) or types.is_time(kind) or types.is_duration(kind) or types.is_interval(kind))


def _texts(column: pl.Series, *, path: Path) -> pl.Series:
    """A typed column as text. Raises ExtractionError for bytes that are none."""
    try:
        return column.to_frame().select(_as_text(column.name, column.dtype)).to_series()
    except pl.exceptions.ComputeError:  # its text quotes the cell
        where, do = f"{path}  {column.name}", "write the column as text"
        raise ExtractionError.of("not UTF-8", where=where, expected="UTF-8 text", do=do) from None


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """A typed column as text."""
    column = pl.col(name)
    if dtype == pl.Date:
        return column.dt.to_string("%Y-%m-%d")
    if dtype.is_temporal():
        return column.dt.to_string("%Y-%m-%d %H:%M:%S")
    if dtype.is_float():
        number = column.fill_nan(None)
        whole = (number == number.round()) & (number.abs() < _WHOLE)
        text = pl.when(whole).then(number.cast(pl.Int64, strict=False).cast(pl.String))
        return text.otherwise(number.cast(pl.String))
    return column.cast(pl.String)
