"""Raw files -> tables under the rules' own column names.

In:  a data folder and `Rules`.   Out: one `Table` a file, scanned lazily as text, and the problems found on the way
(missing file or column, wrong delimiter, damaged or non-text file).
Never: a cell in a message; a write; a file held in memory.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import polars as pl
import pyarrow.parquet as pq

from fairsynth.errors import ExtractionError, Problem
from fairsynth.extraction.rules import FileRule, Rules

ENDINGS = (".csv", ".csv.gz", ".parquet")
ROW = "__row__"  # 0-based number of a record in its file
SHOWN_LINES = 5  # how many line numbers an error names
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """One file: where it is, how many records it has, and what it calls the columns that the rules read."""

    rule: FileRule
    path: Path
    rows: int
    columns: dict[str, str]  # rules' name -> the file's name, for the columns that the rules read
    blank_lines: bool  # some lines are empty and are to be skipped

    def scan(self) -> pl.LazyFrame:
        """The columns that the rules read, as trimmed text (empty: null), and `ROW`."""
        if _is_parquet(self.path):
            frame = _as_text(pl.scan_parquet(self.path, row_index_name=ROW))
        else:
            frame = pl.scan_csv(self.path, infer_schema=False, row_index_name=ROW)
        if self.blank_lines:
            frame = frame.filter(~pl.all_horizontal(pl.exclude(ROW).is_null()))
        cells = [_trimmed(name).alias(column) for column, name in self.columns.items()]
        return frame.select(ROW, *cells)

    def lines(self, rows: list[int]) -> list[int]:
        """The line on which each record begins (Parquet: the number of the row, from 1)."""
        if _is_parquet(self.path) or not rows:
            return [row + 1 for row in rows]
        wanted, found, last = set(rows), [], max(rows)
        for number, (line, _) in enumerate(_records(self.path), start=-1):  # -1: the header
            if number in wanted:
                found.append(line)
            if number >= last:
                break
        return found


def open_tables(data: Path, rules: Rules) -> tuple[dict[str, Table], list[Problem]]:
    """Every file of the rules that can be read, by name, and the problems of those that cannot."""
    tables: dict[str, Table] = {}
    problems: list[Problem] = []
    if not data.is_dir():
        return {}, [Problem(what="missing folder", where=str(data), expected="the raw tables", do="check the path")]
    for rule in rules.files:
        try:
            tables[rule.file] = _open(data, rule, rules.reads(rule))
        except ExtractionError as error:
            problems.extend(error.problems)
    return tables, problems


def collect(frame: pl.LazyFrame, where: str) -> pl.DataFrame:
    """The rows of `frame`; an error about cells becomes ours, without its text, which quotes them."""
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.ComputeError, OSError):
        do = "export the table again"
        raise ExtractionError.of("file cannot be read", where=where, expected="a regular table", do=do) from None


def _open(data: Path, rule: FileRule, reads: tuple[str, ...]) -> Table:
    """The table of one rule. Raises ExtractionError with all that is wrong with the file."""
    path = find(data, rule.file)
    names = _parquet_header(path) if _is_parquet(path) else _csv_header(path)
    columns = _match(path, rule, reads=reads, names=names)
    if _is_parquet(path):
        rows, blank = int(pq.read_metadata(path).num_rows), False
    else:
        rows, blank = _check_records(path, width=len(names))
    if rows == 0 and not rule.may_be_empty:
        raise ExtractionError.of("empty table", where=str(path), expected="at least one row below the header")
    return Table(rule=rule, path=path, rows=rows, columns=columns, blank_lines=blank)


def find(data: Path, name: str) -> Path:
    """The one file of `data` that is called `name`, in any case, with a known ending. Raises ExtractionError."""
    files = sorted(path for path in data.iterdir() if path.is_file())
    found = [path for path in files if path.name.lower() in {f"{name.lower()}{ending}" for ending in ENDINGS}]
    if len(found) == 1:
        return found[0]
    if found:
        where = ", ".join(path.name for path in found)
        raise ExtractionError.of("table found more than once", where=where, expected="one file", do="keep one of them")
    known = [path.name for path in files if path.name.lower().endswith(ENDINGS)]
    raise ExtractionError.of(
        "missing file",
        where=f"{data / name}.csv",
        expected=f"{name} with one of {', '.join(ENDINGS)} (found: {', '.join(known) or 'no tables'})",
        do="add the file, or check the data folder",
    )


def _match(path: Path, rule: FileRule, *, reads: tuple[str, ...], names: list[str]) -> dict[str, str]:
    """Rules' column -> file's column, for every column that the rules read; names match in any case."""
    folded = [name.strip().upper() for name in names]
    if len(names) == 1 and len(reads) > 1:
        _refuse_other_delimiter(path, names[0])
    if not set(folded) & {name for column in rule.columns for name in rule.names(column)}:
        _refuse_headless(path, rule)
    columns, problems = {}, []
    for column in reads:
        known = next((alias for alias in rule.names(column) if alias in folded), None)
        if known is None:
            what = f"missing column {' or '.join(rule.names(column))}"
            expected = f"it among the columns of the header (found: {', '.join(folded)[:400]})"
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


def _refuse_headless(path: Path, rule: FileRule) -> None:
    """A first line without one known name may be a patient's row, so it is not shown."""
    raise ExtractionError.of(
        "no header",
        where=f"{path}:1",
        expected=f"column names such as {', '.join(rule.columns[:5])}",
        do="export the table with its header",
    )


def _refuse_other_delimiter(path: Path, header: str) -> None:
    """Say so when a one-column header is really a row in another dialect."""
    for delimiter, word in _OTHER_DELIMITERS.items():
        if delimiter in header:
            raise ExtractionError.of(
                f"wrong delimiter: columns are separated by {word}",
                where=f"{path}:1",
                expected="commas",
                do="export the table as comma-separated values",
            )


# --- text ------------------------------------------------------------------------------------------------------------


def _csv_header(path: Path) -> list[str]:
    """The file's column names."""
    for _, cells in _records(path):
        return cells
    raise ExtractionError.of("empty table", where=str(path), expected="a header and at least one row")


def _check_records(path: Path, *, width: int) -> tuple[int, bool]:
    """(records below the header, whether some lines are blank); every record must have `width` cells."""
    rows, blank = -1, False
    ragged: list[int] = []
    for line, cells in _records(path):
        if not cells:
            blank = True
            continue
        rows += 1
        if len(cells) != width and len(ragged) <= SHOWN_LINES:
            ragged.append(line)
    if ragged:
        expected = f"{width} cells, as in the header"
        raise ExtractionError.of(
            "rows of another length", where=f"{path}  {shown_lines(ragged)}", expected=expected, do="export it again"
        )
    return rows, blank


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of every record, the header first and blank lines as []. Text is checked."""
    begins = 1
    try:
        with _open_text(path) as text:
            reader = csv.reader(_text_lines(path, text), strict=True)
            for cells in reader:
                yield begins, cells
                begins = reader.line_num + 1
    except (csv.Error, EOFError, OSError, zlib.error):  # OSError: no permission, not gzip, a wrong checksum
        do = "export or copy the file again"
        raise ExtractionError.of("damaged file", where=f"{path}  near line {begins}", do=do) from None


def _text_lines(path: Path, text: TextIO) -> Iterator[str]:
    """The lines of a file that must be UTF-8 without NUL."""
    number = 0
    try:
        for number, line in enumerate(text, start=1):
            if "\0" in line:
                raise ExtractionError.of("not a text file", where=f"{path}:{number}", expected="no NUL byte")
            yield line
    except UnicodeDecodeError:
        where = f"{path}  after line {number}"  # decoding runs ahead in blocks: only the block is known
        raise ExtractionError.of("not UTF-8", where=where, expected="UTF-8 text", do="re-encode the file") from None


def _open_text(path: Path) -> TextIO:
    """The file as text; `newline` as the csv module wants it, a byte order mark dropped."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def shown_lines(lines: list[int]) -> str:
    """`line 3`, or `lines 3, 7, 9, ...`: numbers only."""
    shown = ", ".join(map(str, lines[:SHOWN_LINES]))
    more = ", ..." if len(lines) > SHOWN_LINES else ""
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}"


# --- Parquet and cells -----------------------------------------------------------------------------------------------


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _parquet_header(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (OSError, ValueError):  # pyarrow's ArrowInvalid is a ValueError
        raise ExtractionError.of("damaged file", where=str(path), expected="Parquet", do="copy it again") from None


def _as_text(frame: pl.LazyFrame) -> pl.LazyFrame:
    """A typed frame as the text a CSV would hold."""
    texts = [
        pl.col(name).dt.to_string("%Y-%m-%d %H:%M:%S") if dtype.is_temporal() else pl.col(name).cast(pl.String)
        for name, dtype in frame.collect_schema().items()
        if name != ROW
    ]
    return frame.select(ROW, *texts)


def _trimmed(name: str) -> pl.Expr:
    """A cell without white space around it; an empty one is null."""
    text = pl.col(name).str.strip_chars()
    return pl.when(text.str.len_bytes() > 0).then(text)
