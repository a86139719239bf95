"""Raw files -> tables under the rules' own column names.

In:  a data folder and `Rules`.   Out: one `Table` a file, read in batches of text cells, and the problems found on the
way (missing file or column, wrong delimiter, damaged or non-text file, rows of another length).
Never: a cell in a message; a write; a file held in memory.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from fairsynth.config import SiteConfig
from fairsynth.errors import ExtractionError, Problem
from fairsynth.extraction import parquetfile, textfile
from fairsynth.extraction.casts import Casts
from fairsynth.extraction.rules import FileRule, Rules, TextFormat

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet")
ROW = "__row__"  # 0-based number of a record in its file
BLOCK_BYTES = 2**23  # of text that becomes one batch
_CELL = re.compile(r'[-+.\d]|$|.*(?:\d{3}|")')  # cells, or names with a cell in them
_OTHER_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """One file: where it is, and what it calls the columns that the rules read."""

    rule: FileRule
    path: Path
    names: tuple[str, ...]  # the file's columns, in order
    columns: dict[str, str]  # rules' name -> the file's name, for the columns that the rules read
    text: TextFormat

    def batches(self, casts: Casts | None = None) -> Iterator[pl.DataFrame]:
        """The columns that the rules read, as trimmed text (empty: null), and `ROW`; in file order.

        The columns of `casts` come as int64, float64 or times where all their cells in the batch are written so.

        Raises ExtractionError when the file is damaged, or has rows of another length.
        """
        first = 0
        for batch in _ahead(_parquet(self) if _is_parquet(self.path) else _text(self, casts or Casts())):
            yield _cleaned(batch, self.text).with_row_index(ROW, offset=first)
            first += batch.height

    def whole(self) -> pl.DataFrame:
        """All batches, for a table that fits in memory."""
        empty = pl.DataFrame(schema={ROW: pl.UInt32, **dict.fromkeys(self.columns, pl.String)})
        return pl.concat([empty, *(batch.select(empty.columns) for batch in self.batches())])

    def places(self, rows: list[int]) -> str:
        """The lines on which these records begin, e.g. `lines 3, 7` (Parquet: `rows 2, 6`, from 1)."""
        if _is_parquet(self.path):
            return textfile.shown_lines([row + 1 for row in rows], word="row")
        return textfile.shown_lines(textfile.lines_of(self.path, self.text, rows))


def open_tables(data: Path, rules: Rules, *, site: SiteConfig) -> tuple[dict[str, Table], list[Problem]]:
    """Every file of the rules that has the columns they read, by name, and the problems of those that have not."""
    tables: dict[str, Table] = {}
    problems: list[Problem] = []
    if not data.is_dir():
        return {}, [Problem(what="missing folder", where=str(data), expected="the raw tables", do="check the path")]
    for rule in {rule.file: rule for rule in rules.files}.values():
        try:
            reads = rules.reads(rule)
            if site.first_visit is not None and rule.file == rules.visits.table:
                reads = tuple(dict.fromkeys((*reads, site.first_visit.column)))
            tables[rule.file] = open_table(data, rule, reads=reads, text=rules.text)
        except ExtractionError as error:
            problems.extend(error.problems)
    return tables, problems


def open_table(data: Path, rule: FileRule, *, reads: tuple[str, ...], text: TextFormat) -> Table:
    """The table of one rule. Raises ExtractionError with all that is wrong with its name and header."""
    path = find(data, rule.file)
    names = parquetfile.header(path) if _is_parquet(path) else textfile.header(path, text)
    columns = _match(path, rule, reads=reads, names=names, text=text)
    if _is_parquet(path):
        _check_types(path, columns, rule)
    return Table(rule=rule, path=path, names=tuple(names), columns=columns, text=text)


def _check_types(path: Path, columns: dict[str, str], rule: FileRule) -> None:
    """Raises ExtractionError for columns of a Parquet file whose types do not fit the rules."""
    compared = {columns[column]: set(found) for column, found in rule.compares().items()}
    problems = list(parquetfile.type_problems(path, list(columns.values()), compared=compared))
    if problems:
        raise ExtractionError(problems)


def files_of(data: Path) -> list[Path]:
    """The files of a data folder and of the folders in it (MIMIC-IV keeps its tables in `hosp` and `icu`)."""
    return sorted(path for pattern in ("*", "*/*") for path in data.glob(pattern) if path.is_file())


def find(data: Path, name: str) -> Path:
    """The one file of `data` that is called `name`, in any case, with a known ending. Raises ExtractionError."""
    files = files_of(data)
    named = [path for path in files if path.name.lower() in {f"{name.lower()}{ending}" for ending in ENDINGS}]
    found = list({path.resolve(): path for path in reversed(named)}.values())[::-1]  # links to one file count once
    if len(found) == 1:
        return found[0]
    if found:
        where = ", ".join(str(path.relative_to(data)) for path in found)
        raise ExtractionError.of("table found more than once", where=where, expected="one file", do="keep one of them")
    known = [path.name for path in files if path.name.lower().endswith(ENDINGS)]
    raise ExtractionError.of(
        "missing file",
        where=f"{data / name}.csv",
        expected=f"{name} with one of {', '.join(ENDINGS)} (found: {', '.join(known)[:400] or 'no tables'})",
        do="add the file, or check the data folder",
    )


# --- header ----------------------------------------------------------------------------------------------------------


def _match(path: Path, rule: FileRule, *, reads: tuple[str, ...], names: list[str], text: TextFormat) -> dict[str, str]:
    """Rules' column -> file's column, for every column that the rules read; names match in any case."""
    folded = [name.strip().upper() for name in names]
    if len(names) == 1 and len(reads) > 1:
        _refuse_other_delimiter(path, names[0], text)
    if not set(folded) & {name for column in rule.columns for name in rule.names(column)}:
        _refuse_headless(path, rule)
    columns, problems = {}, []
    found = _shown(folded, known={name for column in rule.columns for name in rule.names(column)})
    for column in reads:
        known = next((alias for alias in rule.names(column) if alias in folded), None)
        if known is None:
            what = f"missing column {' or '.join(rule.names(column))}"
            expected = f"it among the columns of the header (found: {found})"
            problems.append(
                Problem(what=what, where=str(path), expected=expected, do="add it, or an alias in the rules")
            )
        elif folded.count(known) > 1:
            problems.append(Problem(what=f"column {known} twice", where=str(path), do="keep one of them"))
        else:
            columns[column] = names[folded.index(known)]
    if problems:
        raise ExtractionError(problems)
    return columns


def _shown(names: list[str], *, known: set[str]) -> str:
    """A header for a message. Where a line end got lost it runs on into a patient's row: then unknown names are not
    shown."""
    doubtful = any(_CELL.match(name) for name in names)
    return ", ".join(name for name in names if name in known or not doubtful)[:400] + (", ..." if doubtful else "")


def _refuse_headless(path: Path, rule: FileRule) -> None:
    """A first line without one known name may be a patient's row, so it is not shown."""
    raise ExtractionError.of(
        "no header",
        where=f"{path}:1",
        expected=f"column names such as {', '.join(rule.columns[:5])}",
        do="export the table with its header",
    )


def _refuse_other_delimiter(path: Path, header: str, text: TextFormat) -> None:
    """Say so when a one-column header is really a row in another dialect."""
    for delimiter, word in _OTHER_DELIMITERS.items():
        if delimiter != text.delimiter and delimiter in header:
            raise ExtractionError.of(
                f"wrong delimiter: columns are separated by {word}",
                where=f"{path}:1",
                expected=_OTHER_DELIMITERS[text.delimiter],
                do=f"export the table again, or say so in rules.yaml: `text: {{delimiter: {delimiter!r}}}`",
            )


# --- batches ---------------------------------------------------------------------------------------------------------


def _ahead(batches: Generator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same batches; while one is worked on, the next is parsed on another core."""
    with ThreadPoolExecutor(max_workers=1) as pool, closing(batches):
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


class _NotText(Exception):
    """A byte that no text has."""


class _Bytes(io.RawIOBase):
    """The bytes of a text file, decompressed, on their way to the parser. A NUL stops them; lines, quotes are counted.

    A quote that is never closed swallows the lines up to the next one, and the fast parser does not mind; nor does it
    mind a quote with something else on both sides, which is part of a cell or a mistake.
    """

    def __init__(self, source: BinaryIO, *, delimiter: str) -> None:
        self._source = source
        self._quotes = self._lines = 0
        self._odd = False
        self.may_be_hexadecimal = False  # some cell may be a number such as 0x1F
        self._tail = b"\n"  # the byte that is looked at next, where there is one, and the one before it
        self._edge = np.zeros(256, dtype=np.bool_)
        self._edge[[ord(delimiter), *b'\r\n"']] = True

    def agrees(self, rows: int) -> bool:
        """Whether a header and so many rows can be what was read; if not, the slow parser has to tell."""
        lines = self._lines + (self._tail[-1:] != b"\n")
        return not self._quotes or (self._quotes % 2 == 0 and lines == rows + 1 and not self._odd)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises _NotText."""
        data = self._source.read(size)
        if b"\0" in data:
            raise _NotText
        self.may_be_hexadecimal |= any(mark in data or mark == self._tail[-1:] + data[:1] for mark in (b"0x", b"0X"))
        values = np.frombuffer(data, dtype=np.uint8)
        self._lines += int(np.count_nonzero(values == ord("\n")))
        if quotes := int(np.count_nonzero(values == ord('"'))):
            self._quotes += quotes
            begins = len(self._tail) == 1
            self._look(self._tail + (data.removeprefix(codecs.BOM_UTF8) if begins else data))
        elif self._tail.endswith(b'"'):
            self._look(self._tail + data)
        self._tail = (self._tail + data[-2:])[-2:]
        return data

    def _look(self, data: bytes) -> None:
        """Note a quote, the first and the last byte excepted, with neither a delimiter, a line end nor a quote beside
        it."""
        values = np.frombuffer(data, dtype=np.uint8)
        at = np.flatnonzero(values[1:-1] == ord('"'))
        self._odd |= not (self._edge[values[at]] | self._edge[values[at + 2]]).all()

    def close(self) -> None:
        self._source.close()
        super().close()


def _text(table: Table, casts: Casts) -> Generator[pl.DataFrame]:
    """The read columns of a text file. A fast parser reads; when it stumbles, the slow one says where."""
    width = len(table.names)
    place = {name: f"c{index}" for index, name in enumerate(table.names)}
    wanted = {place[name]: column for column, name in table.columns.items()}
    rows = 0
    try:
        with _Bytes(textfile.open_bytes(table.path), delimiter=table.text.delimiter) as source:
            for batch in _stream(source, text=table.text, width=width, include=list(wanted)):
                rows += batch.num_rows
                named = batch.rename_columns(wanted)
                yield pl.DataFrame(casts.apply(named, may_be_hexadecimal=source.may_be_hexadecimal))
            sound = source.agrees(rows)
    except (*textfile.DAMAGED, pa.ArrowInvalid, UnicodeError, _NotText):  # their texts quote cells
        rows, sound = -1, False
    if not sound:
        _tell(table, rows)


def _tell(table: Table, rows: int) -> None:
    """Let the slow parser say what is wrong with a file of which the fast one read so many rows (-1: it failed, as it
    does when there is a header alone)."""
    if textfile.count_records(table.path, table.text, names=table.names) != max(rows, 0):
        do = "export or copy the file again"
        raise ExtractionError.of("damaged file", where=str(table.path), expected="a regular table of text", do=do)


def _stream(source: _Bytes, *, text: TextFormat, width: int, include: list[str]) -> Iterator[pa.RecordBatch]:
    """The included columns of c0, c1, ... in batches. The header's row is left out."""
    names = [f"c{index}" for index in range(width)]
    with pc.open_csv(
        pa.PythonFile(source, mode="r"),
        read_options=pc.ReadOptions(
            column_names=names, skip_rows_after_names=1, block_size=BLOCK_BYTES, encoding=_arrow_encoding(text)
        ),
        parse_options=pc.ParseOptions(delimiter=text.delimiter, newlines_in_values=True),
        convert_options=pc.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=include,
            strings_can_be_null=True,
            null_values=["", *text.missing],
        ),
    ) as reader:
        yield from reader


def _arrow_encoding(text: TextFormat) -> str:
    return "utf8" if text.encoding == "utf-8" else text.encoding


def _parquet(table: Table) -> Generator[pl.DataFrame]:
    """The read columns of a Parquet file as the text that a CSV would hold."""
    names = {name: column for column, name in table.columns.items()}
    with closing(parquetfile.batches(table.path, list(names))) as batches:
        for batch in batches:
            yield batch.rename(names)


def _cleaned(frame: pl.DataFrame, text: TextFormat) -> pl.DataFrame:
    """Text without white space around it; empty cells, and those that mean nothing at this source, are null."""
    trimmed = pl.col(pl.String).str.strip_chars()
    missing = ["", *text.missing]
    return frame.with_columns(pl.when(~trimmed.is_in(missing)).then(trimmed))


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"
