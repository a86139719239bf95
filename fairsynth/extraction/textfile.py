"""Text files, record by record: slow, exact, and able to name a line. Batches come from tables.py.

In:  a path, how the source writes text.   Out: header; records, with the line they begin on; what is wrong with a file.
Never: a cell in a message; a file held in memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

from fairsynth.errors import ExtractionError, Problem
from fairsynth.extraction.rules import TextFormat

SHOWN_LINES = 5  # how many line numbers an error names
LONGEST_ROW = 2**23  # bytes; the fast parser takes no more
LONGEST_CELL = 2**24  # characters; a longer cell is an open quote, not a cell
DAMAGED = (csv.Error, EOFError, OSError, zlib.error)  # OSError: no permission, not gzip, a wrong checksum

_NUL, _BYTE = re.compile("\0"), re.compile("[\udc80-\udcff]")  # a byte that the encoding does not have
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b.*")
_FORMATS = {
    b"\x1f\x8b": "a gzip archive: let its name end in .gz",
    b"PAR1": "Parquet: let its name end in .parquet",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def header(path: Path, text: TextFormat) -> list[str]:
    """The file's column names. Raises ExtractionError when there is none."""
    for _, cells in records(path, text):
        if "\0" in "".join(cells) or _BYTE.search("".join(cells)):
            raise ExtractionError(_not_text(f"{path}:1", path=path, text=text, nul=not _BYTE.search("".join(cells))))
        return cells
    expected, do = "a header and at least one row", "export the table again"
    raise ExtractionError.of("empty table", where=str(path), expected=expected, do=do)


def count_records(path: Path, text: TextFormat, *, names: tuple[str, ...]) -> int:
    """Records below the header. Raises ExtractionError unless the file is text with a cell for each of `names` in every
    record; every kind of fault is told, with its lines."""
    faults: dict[tuple[str, str], _Lines] = defaultdict(_Lines)
    rows = -1
    for line, cells in records(path, text):
        rows += bool(cells)
        if cells and (fault := _fault(cells, names=names, text=text)) is not None:
            faults[fault].add(line)
    if faults:
        raise ExtractionError(_told(path, text, kind, lines, width=len(names)) for kind, lines in faults.items())
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
    """(line on which it begins, cells) of every record, the header first and blank lines as []. Raises
    ExtractionError when the file cannot be read, or a quote is left open."""
    begins = 1
    csv.field_size_limit(LONGEST_CELL)
    try:
        with _open_text(path, text) as handle:
            reader = csv.reader(handle, delimiter=text.delimiter, strict=True)
            for cells in reader:
                yield begins, cells
                begins = reader.line_num + 1
    except DAMAGED as error:
        raise ExtractionError(_damage(error, path=path, line=begins)) from None


def shown_lines(lines: list[int], *, word: str = "line") -> str:
    """`line 3`, or `lines 3, 7, 9, ...`: numbers only."""
    shown = ", ".join(map(str, lines[:SHOWN_LINES]))
    more = ", ..." if len(lines) > SHOWN_LINES else ""
    return f"{word}{'s' if len(lines) > 1 else ''} {shown}{more}"


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed where it ends in .gz. Raises OSError."""
    return io.BufferedReader(gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def unreadable(path: Path) -> Problem:
    """A file that this account may not read."""
    return Problem(what="file may not be read", where=str(path), do="give this account the right to read it")


def _open_text(path: Path, text: TextFormat) -> TextIO:
    """The file as text; `newline` as the csv module wants it, a byte order mark dropped. What is no text is kept, as
    characters that no text has, so that its record is known when it is found."""
    encoding = "utf-8-sig" if text.encoding == "utf-8" else text.encoding
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, errors="surrogateescape", newline="")


# --- what is wrong ---------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Lines:
    """Where a fault was found: how often, and the first lines."""

    number: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        self.number += 1
        if len(self.first) <= SHOWN_LINES:
            self.first.append(line)


def _fault(cells: list[str], *, names: tuple[str, ...], text: TextFormat) -> tuple[str, str] | None:
    """What is wrong with a record, and in which column (empty: in none)."""
    for kind, pattern in (("nul", _NUL), ("byte", _BYTE)):
        if pattern.search("".join(cells)):
            index = next(index for index, cell in enumerate(cells) if pattern.search(cell))
            return kind, names[index] if len(cells) == len(names) else ""
    if len(cells) != len(names):
        return "length", ""
    if 4 * sum(map(len, cells)) > LONGEST_ROW and sum(len(cell.encode()) for cell in cells) > LONGEST_ROW:
        return "size", names[max(range(len(cells)), key=lambda index: len(cells[index]))]
    swallowing = next((index for index in range(len(cells)) if _holds_rows(cells, index, text=text)), None)
    return None if swallowing is None else ("rows", names[swallowing])


def _told(path: Path, text: TextFormat, fault: tuple[str, str], lines: _Lines, *, width: int) -> Problem:
    """A kind of fault as a problem."""
    kind, column = fault
    where = "  ".join(filter(None, (str(path), column, shown_lines(lines.first), f"({lines.number:,} in all)")))
    if kind == "length":
        do = "export the table again; a cell with a delimiter, a quote or a line end in it needs quotes around it"
        return Problem(what="rows of another length", where=where, expected=f"{width} cells, as in the header", do=do)
    if kind == "size":
        expected, do = f"at most {LONGEST_ROW:,} bytes in a row", "shorten its longest cell, or leave the column out"
        return Problem(what="rows too long", where=where, expected=expected, do=do)
    if kind == "rows":
        expected = "no rows between an opening and a closing quote"
        do = "export the table again; a quote inside a cell is written twice"
        return Problem(what="quotes around several rows", where=where, expected=expected, do=do)
    return _not_text(where, path=path, text=text, nul=kind == "nul")


def _not_text(where: str, *, path: Path, text: TextFormat, nul: bool) -> Problem:
    """Bytes that no text, or no text in this encoding, has."""
    seems = _seems(path)
    if nul:
        return Problem(what="not a text file", where=where, expected=f"no NUL byte{seems}", do="export it as text")
    name = text.encoding.upper()
    do = "re-encode the file, or name its encoding in rules.yaml: `text: {encoding: latin-1}`, cp1252 or gb18030"
    return Problem(what=f"not {name}", where=where, expected=f"{name} text{seems}", do=do)


def _seems(path: Path) -> str:
    """What a file's first bytes say that it is."""
    with path.open("rb") as handle:
        start = handle.read(4)
    found = next((name for magic, name in _FORMATS.items() if start.startswith(magic)), None)
    return f" (it seems to be {found})" if found and path.suffix.lower() != ".gz" else ""


def _damage(error: Exception, *, path: Path, line: int) -> Problem:
    """Why a file cannot be read on."""
    if isinstance(error, PermissionError):
        return unreadable(path)
    where, what = f"{path}  near line {line}", "damaged file"
    if isinstance(error, csv.Error):
        expected = "quotes in pairs, around whole cells"
        if "field larger" in str(error):
            expected = f"cells of at most {LONGEST_CELL:,} characters, {expected}"
        do = "export the table again; a quote inside a cell is written twice"
        return Problem(what=what, where=where, expected=expected, do=do)
    expected = "a whole gzip archive" if path.suffix.lower() == ".gz" else "a readable file"
    return Problem(what=what, where=where, expected=expected, do="copy or export the file again")


def _holds_rows(cells: list[str], index: int, *, text: TextFormat) -> bool:
    """Whether a quoted cell holds lines that are rows of the table: its quotes were never a pair."""
    lines = cells[index].splitlines()[1:]
    if not lines:
        return False
    *middle, last = (line.split(text.delimiter) for line in lines)
    whole = any(len(row) == len(cells) and _alike(row, cells, but=index) for row in middle)
    return whole or (len(last) == index + 1 and _alike(last, cells, but=index))


def _alike(row: list[str], cells: list[str], *, but: int) -> bool:
    """Whether cells have numbers and dates, at least one, where the record has them."""
    kinds = {
        (_kind(one), _kind(other))
        for place, (one, other) in enumerate(zip(row, cells, strict=False))
        if place != but and one.strip() and other.strip()
    }
    return any(one != "text" for one, _ in kinds) and all(one == other for one, other in kinds)


def _kind(cell: str) -> str:
    if _NUMBER.fullmatch(cell.strip()):
        return "number"
    return "date" if _DATE.fullmatch(cell.strip()) else "text"
