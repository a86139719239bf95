"""What a column's first cells look like: identifier, time, number, code, flag, a few words.

In:  the sample of a file.   Out: `Column`, which answers questions and keeps its cells to itself.
Never: a cell in what is printed or written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from fairsynth.onboarding import words
from fairsynth.onboarding.samples import Sample

NEARLY_ALL = 0.95
CLEARLY_MOST = 0.8
LOOKED_AT = 300  # distinct cells that formats are tried on
FEW_WORDS = 30  # at most so many different cells in a column of categories

_DAYS = {"year": "%Y-%m-%d", "day": "%d/%m/%Y", "month": "%m/%d/%Y"}
_SEPARATORS = {"year": ("-", "/", "."), "day": ("/", ".", "-"), "month": ("/", "-")}
_CLOCKS = ("", " %H:%M:%S", " %H:%M", "T%H:%M:%S", "T%H:%M", "T%H:%M:%SZ", " %H:%M:%S%.f", "T%H:%M:%S%.f")
_DIGITS = ("%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S")  # only where the name says that it is a time

ICD9 = re.compile(r"(?:\d{3}(?:\.?\d{1,2})?|V\d{2}(?:\.?\d{1,2})?|E\d{3}(?:\.?\d)?)")
ICD10 = re.compile(r"[A-TV-Z]\d[0-9AB](?:\.?[0-9A-Z]{1,5})?")
ICD9_PROCEDURE = re.compile(r"\d{2}(?:\.?\d{1,2})?")
ICD10_PROCEDURE = re.compile(r"[0-9A-HJ-NP-Z]{7}")
CPT = re.compile(r"\d{5}|\d{4}[FTU]")
LOINC = re.compile(r"\d{1,5}-\d")


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One column of a sample."""

    name: str
    rows: int
    cells: pl.Series = field(repr=False)  # those that are filled

    @property
    def plain(self) -> str:
        """The name in lower case."""
        return words.plain(self.name)

    @cached_property
    def distinct(self) -> pl.Series:
        """The different cells, sorted."""
        return self.cells.unique().sort()

    @property
    def filled(self) -> float:
        """Share of the rows that have a cell."""
        return len(self.cells) / self.rows if self.rows else 0.0

    @property
    def unique(self) -> bool:
        """Whether every row has a cell of its own."""
        return 0 < self.rows == len(self.distinct)

    @cached_property
    def numbers(self) -> float:
        """Share of the cells that are numbers."""
        return _share(self.cells.cast(pl.Float64, strict=False).is_not_null())

    @cached_property
    def whole_numbers(self) -> bool:
        """Whether all cells are whole numbers that fit an identifier."""
        return len(self.cells) > 0 and bool(self.cells.cast(pl.Int64, strict=False).is_not_null().all())

    @cached_property
    def formats(self) -> tuple[str, ...]:
        """The fewest formats by which nearly all cells are times; none if there are none."""
        cells = self.distinct.head(LOOKED_AT)
        digits = bool(words.TIME.search(self.plain))
        if not digits and _share(cells.str.contains(r"^\d{1,4}[-/.]\d{1,2}[-/.]\d")) < NEARLY_ALL:
            return ()
        return _formats(cells, digits=digits)

    @property
    def is_time(self) -> bool:
        """Whether the cells are times."""
        return bool(self.formats)

    def matches(self, pattern: re.Pattern[str]) -> float:
        """Share of the cells that are wholly of a pattern, in upper case."""
        return _share(self.cells.str.to_uppercase().str.contains(f"^(?:{pattern.pattern})$"))

    @property
    def is_identifier(self) -> bool:
        """Whether the cells could identify: all filled, short, without blanks; no times, no fractions."""
        if not len(self.cells) or self.is_time or words.ROW_NUMBER.search(self.plain):
            return False
        if self.numbers == 1 and not self.whole_numbers:
            return False
        return bool((self.cells.str.len_chars() <= 40).all() and not self.cells.str.contains(r"\s").any())

    @property
    def counts_rows(self) -> bool:
        """Whether the cells are small running numbers, which occur everywhere and prove nothing."""
        if not self.whole_numbers:
            return False
        numbers = self.distinct.cast(pl.Int64)
        return int(str(numbers.max())) <= 2 * self.rows + 10

    @property
    def categories(self) -> bool:
        """Whether there are few different cells, each repeated."""
        return 0 < len(self.distinct) <= min(FEW_WORDS, max(2, self.rows // 3))

    def overlap(self, other: Column) -> float:
        """Share of this column's different cells that the other has too."""
        return _share(self.distinct.is_in(other.distinct.implode()))

    def known(self, listed: Iterable[str]) -> list[str]:
        """The different cells that are in a published list of words, as they are written."""
        wanted = set(listed)
        return [cell for cell in self.distinct if cell.upper() in wanted]


def columns_of(sample: Sample) -> dict[str, Column]:
    """The columns of a sample by name, in file order."""
    return {
        name: Column(name=name, rows=sample.rows.height, cells=sample.rows[name].drop_nulls())
        for name in sample.rows.columns
    }


def month_or_day(columns: Iterable[Column]) -> tuple[str, ...]:
    """Which of "day" and "month" may come first in dates like 03/04/2021: both where no cell decides."""
    possible = {"day", "month"}
    for column in columns:
        kinds = {_first_of(form) for form in column.formats}
        if kinds & {"day", "month"}:
            possible &= {kind for kind in ("day", "month") if _all_parse(column, kind)}
    return tuple(sorted(possible)) or ("day", "month")


def date_formats(columns: Sequence[Column], *, first: str) -> tuple[str, ...]:
    """Every format that the columns need; of those with day and month in doubt, the ones that begin with `first`."""
    needed: dict[str, None] = {}
    for column in columns:
        for form in column.formats:
            needed[_turned(form, first) if _first_of(form) in ("day", "month") else form] = None
    return tuple(sorted(needed, key=len, reverse=True))


def _share(flags: pl.Series) -> float:
    return float(flags.sum()) / len(flags) if len(flags) else 0.0


def _all_formats(*, digits: bool) -> list[str]:
    made = [
        _DAYS[kind].replace(_DAYS[kind][2], separator) + clock
        for kind, separators in _SEPARATORS.items()
        for separator in separators
        for clock in _CLOCKS
    ]
    return [*made, *(_DIGITS if digits else ())]


def _formats(cells: pl.Series, *, digits: bool) -> tuple[str, ...]:
    """Formats, the one that fits most first, until nearly all cells are covered."""
    chosen: list[str] = []
    left = cells
    while len(left) > (1 - NEARLY_ALL) * len(cells):
        fits = {form: _parsed(left, form) for form in _all_formats(digits=digits)}
        best = max(fits, key=lambda form: int(fits[form].sum()))
        if not fits[best].any():
            return ()
        chosen.append(best)
        left = left.filter(~fits[best])
    return tuple(chosen) if len(cells) else ()


def _parsed(cells: pl.Series, form: str) -> pl.Series:
    return cells.str.to_datetime(form, time_unit="us", strict=False).is_not_null()


def _first_of(form: str) -> str:
    return {"%d": "day", "%m": "month"}.get(form[:2], "year")


def _turned(form: str, first: str) -> str:
    """The same format with day or month first."""
    separator = form[2]
    return (f"%d{separator}%m" if first == "day" else f"%m{separator}%d") + form[5:]


def _all_parse(column: Column, first: str) -> bool:
    cells = column.distinct.head(LOOKED_AT)
    forms = {_turned(form, first) if _first_of(form) in ("day", "month") else form for form in column.formats}
    parsed = pl.DataFrame([_parsed(cells, form).alias(form) for form in sorted(forms)])
    return _share(parsed.select(pl.any_horizontal(pl.all())).to_series()) >= NEARLY_ALL
