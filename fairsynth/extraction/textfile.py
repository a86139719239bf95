"""Text files, record by record: slow, exact, and able to name a line. Batches come from tables.py.

In:  a path, how the source writes text.   Out: header; records, with the line they begin on; what is wrong with a file.
Never: a cell in a message; a file held in memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from fairsynth.errors import ExtractionError
from fairsynth.extraction.rules import TextFormat

SHOWN_LINES = 5  # how many line numbers an error names
LONGEST_CELL = 2**24  # characters; a longer cell is an open quote, not a cell
DAMAGED = (csv.Error, EOFError, OSError, zlib.error)  # OSError: no permission, not gzip, a wrong checksum


def header(path: Path, text: TextFormat) -> list[str]:
    """The file's column names. Raises ExtractionError when there is none."""
    for _, cells in records(path, text):
        return cells
    raise ExtractionError.of("empty table", where=str(path), expected="a header and at least one row")


def count_records(path: Path, text: TextFormat, *, width: int) -> int:
    """Records below the header. Raises ExtractionError unless the file is text with `width` cells in every record."""
    ragged: list[int] = []
    number, rows = 0, -1
    for line, cells in records(path, text):
        rows += bool(cells)
        if cells and len(cells) != width:
            number += 1
            ragged += [line] if len(ragged) <= SHOWN_LINES else []
    if ragged:
        raise ExtractionError.of(
            "rows of another length",
            where=f"{path}  {shown_lines(ragged)}  ({number:,} in all)",
            expected=f"{width} cells, as in the header",
            do="export it again",
        )
    return rows


def lines_of(path: Path, text: TextFormat, rows: list[int]) -> list[int]:
    """The line on which each record begins; `rows` count from 0 below the header, blank lines left out."""
    wanted, found, last = set(rows), [], max(rows)
    filled = (line for line, cells in records(path, text) if cells)
    for number, line in enumerate(filled, start=-1):  # -1: the header
        if number in wanted:
            found.append(line)
        if number >= last:
            break
    return found


def records(path: Path, text: TextFormat) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of every record, the header first and blank lines as []. Text is checked."""
    begins = 1
    csv.field_size_limit(LONGEST_CELL)
    try:
        with _open_text(path, text) as handle:
            reader = csv.reader(_text_lines(path, handle, text), delimiter=text.delimiter, strict=True)
            for cells in reader:
                yield begins, cells
                begins = reader.line_num + 1
    except DAMAGED:
        do = "export or copy the file again"
        raise ExtractionError.of("damaged file", where=f"{path}  near line {begins}", do=do) from None


def shown_lines(lines: list[int]) -> str:
    """`line 3`, or `lines 3, 7, 9, ...`: numbers only."""
    shown = ", ".join(map(str, lines[:SHOWN_LINES]))
    more = ", ..." if len(lines) > SHOWN_LINES else ""
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}"


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed where it ends in .gz. Raises OSError."""
    return io.BufferedReader(gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _text_lines(path: Path, handle: TextIO, text: TextFormat) -> Iterator[str]:
    """The lines of a file that must be text without NUL."""
    number = 0
    try:
        for number, line in enumerate(handle, start=1):
            if "\0" in line:
                raise ExtractionError.of("not a text file", where=f"{path}:{number}", expected="no NUL byte")
            yield line
    except UnicodeDecodeError:
        raise ExtractionError.of(
            f"not {text.encoding.upper()}",
            where=f"{path}  after line {number}",  # decoding runs ahead in blocks: only the block is known
            expected=f"{text.encoding.upper()} text",
            do="re-encode the file, or name its encoding in rules.yaml: `text: {encoding: latin-1}`",
        ) from None


def _open_text(path: Path, text: TextFormat) -> TextIO:
    """The file as text; `newline` as the csv module wants it, a byte order mark dropped."""
    encoding = "utf-8-sig" if text.encoding == "utf-8" else text.encoding
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="")
