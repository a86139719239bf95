"""Files -> their names, headers and first rows.

In:  a data folder and the folders in it.   Out: one `Sample` a file; the files that cannot be used, with the reason.
Never: more than the first rows of a file; a cell in a reason. A first line that may be a patient's is not shown.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError

from fairsynth.errors import ConfigError, ExtractionError
from fairsynth.extraction.rules import FileName, TextFormat
from fairsynth.extraction.tables import ENDINGS, files_of
from fairsynth.extraction.templates import Column as ColumnName
from fairsynth.extraction.textfile import open_bytes, records

SAMPLE_ROWS = 1_000
FIRST_BYTES = 65_536
DELIMITERS = (",", ";", "\t", "|")

_FILE_NAME, _COLUMN_NAME = TypeAdapter[str](FileName), TypeAdapter[str](ColumnName)
_DATA = re.compile(
    r"[-+]?\d[\d.,]*|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T].*)?"
)  # a number or a date: not a column's name


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One file. `rows` are its first records as trimmed text (empty: null), under upper-case column names."""

    name: str  # what the rules call the file: upper case, without ending
    path: Path
    text: TextFormat
    whole: bool  # there are no more rows
    rows: pl.DataFrame = field(repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, in file order."""
        return tuple(self.rows.columns)


@dataclass(frozen=True, kw_only=True)
class Unused:
    """A file that no rule can be guessed for, and why."""

    file: str
    why: str


def take_samples(data: Path) -> tuple[list[Sample], list[Unused]]:
    """The head of every table in `data`. Raises ConfigError when there is none."""
    files = [path for path in files_of(data) if path.name.lower().endswith(ENDINGS)] if data.is_dir() else []
    if not files:
        expected = f"tables that end in {', '.join(ENDINGS)}, there or one folder deeper"
        raise ConfigError.of("no tables", where=str(data), expected=expected, do="check the path")
    names = Counter(_stem(path) for path in files)
    samples, unused = [], []
    for path in files:
        try:
            if names[_stem(path)] > 1:
                raise ExtractionError.of("table found more than once", where=path.name)
            samples.append(_sample(path))
        except ExtractionError as error:
            unused.append(Unused(file=path.name, why=error.problems[0].what))
    return _of_one_format(samples, unused)


def _sample(path: Path) -> Sample:
    """The head of one file. Raises ExtractionError."""
    name = _stem(path)
    if not _fits(_FILE_NAME, name):
        raise ExtractionError.of("a name that rules cannot hold", where=path.name)
    is_parquet = path.suffix.lower() == ".parquet"
    text = TextFormat() if is_parquet else _format(path)
    header, cells, whole = _parquet_head(path) if is_parquet else _text_head(path, text)
    folded = [column.strip().upper() for column in header]
    if any(_DATA.fullmatch(column) or not column for column in folded) or len(set(folded)) < len(folded):
        raise ExtractionError.of("no header, or one with empty or repeated names", where=path.name)
    if not all(_fits(_COLUMN_NAME, column) for column in folded):
        raise ExtractionError.of("column names that rules cannot hold", where=path.name)
    rows = pl.DataFrame(cells, schema=dict.fromkeys(folded, pl.String), orient="row", strict=False)
    trimmed = pl.all().str.strip_chars()
    return Sample(name=name, path=path, text=text, whole=whole, rows=rows.select(pl.when(trimmed != "").then(trimmed)))


def _stem(path: Path) -> str:
    """What the rules call a file."""
    ending = next(ending for ending in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(ending))
    return path.name[: -len(ending)].upper()


def _fits(kind: TypeAdapter[str], value: str) -> bool:
    try:
        kind.validate_python(value)
    except PydanticError:
        return False
    return True


def _format(path: Path) -> TextFormat:
    """Delimiter and encoding by the first bytes. A byte that is not UTF-8 is taken as Western European."""
    try:
        with open_bytes(path) as handle:
            head = handle.read(FIRST_BYTES)
    except (OSError, EOFError):
        raise ExtractionError.of("damaged file", where=path.name) from None
    try:
        head.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError as error:
        encoding = "utf-8" if error.start > len(head) - 4 else "cp1252"  # a character cut off at the end is no fault
    first = head.split(b"\n", 1)[0].decode("latin-1")
    delimiter = max(DELIMITERS, key=first.count)
    return TextFormat.model_validate({"delimiter": delimiter, "encoding": encoding})


Head = tuple[list[str], list[tuple[str | None, ...]], bool]


def _text_head(path: Path, text: TextFormat) -> Head:
    """Header, first rows of its length, and whether these are all rows."""
    found = (cells for _, cells in records(path, text) if cells)
    header = next(found, None)
    if header is None:
        raise ExtractionError.of("empty file", where=path.name)
    rows: list[tuple[str | None, ...]] = [
        tuple(cells) for cells in islice(found, SAMPLE_ROWS) if len(cells) == len(header)
    ]
    return header, rows, next(found, None) is None


def _parquet_head(path: Path) -> Head:
    try:
        total = int(pq.read_metadata(path).num_rows)
        head = pl.scan_parquet(path).head(SAMPLE_ROWS).collect()
    except (OSError, ValueError, pl.exceptions.PolarsError):
        raise ExtractionError.of("damaged file", where=path.name) from None
    texts = [
        pl.col(name).dt.to_string("%Y-%m-%d %H:%M:%S") if kind.is_temporal() else pl.col(name).cast(pl.String)
        for name, kind in head.schema.items()
        if not kind.is_nested()
    ]
    rows = head.select(texts)
    return rows.columns, rows.rows(), total <= SAMPLE_ROWS


def _of_one_format(samples: list[Sample], unused: list[Unused]) -> tuple[list[Sample], list[Unused]]:
    """Rules name one delimiter and one encoding for all text files: those of most."""
    texts = [sample for sample in samples if sample.path.suffix.lower() != ".parquet"]
    if not texts:
        return samples, unused
    delimiter = Counter(sample.text.delimiter for sample in texts).most_common(1)[0][0]
    encodings = {sample.text.encoding for sample in texts}
    encoding = "utf-8" if encodings == {"utf-8"} else "cp1252"
    kept = []
    for sample in samples:
        if sample in texts and sample.text.delimiter != delimiter:
            unused.append(Unused(file=sample.path.name, why="another delimiter than most files"))
        else:
            text = TextFormat.model_validate({"delimiter": delimiter, "encoding": encoding})
            kept.append(replace(sample, text=text))
    return kept, unused
