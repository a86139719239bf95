"""What the template prints, as text: cells, rows, tables, pictures; and how numbers become text.

In:  numbers.   Out: frozen values of strings.
Never: a count between 1 and the minimum cell in clear; markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fairsynth.fairness.estimates import Estimate
from fairsynth.governance.disclosure import Count
from fairsynth.report.wording import INSUFFICIENT


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One table cell: `text` and what stands under it, or, without text, what is `missing`."""

    text: str = ""
    interval: str = ""
    note: str = ""
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A named row; `primary` is set off, `muted` is greyed."""

    name: str
    cells: tuple[Cell, ...]
    primary: bool = False
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with its caption, and a note below it."""

    caption: str
    columns: tuple[str, ...]  # the first heads the row names
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An inline SVG, made by this package, with its caption."""

    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """Tables under one heading that opens on demand."""

    name: str
    tables: tuple[Table, ...]


def number(value: float, digits: int = 2) -> str:
    """A number with a fixed number of digits, a true minus, never `-0.00`."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def span(estimate: Estimate) -> str:
    """`0.41 to 0.63`, or nothing where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{number(estimate.low)} to {number(estimate.high)}"


def estimate_cell(estimate: Estimate, *, note: str = "", missing: str = INSUFFICIENT) -> Cell:
    """Mean (sd) with its interval; `missing` where it was not estimated."""
    if estimate.mean is None:
        return Cell(missing=missing, note=note)
    deviation = "" if estimate.sd is None else f" ({number(estimate.sd)})"
    return Cell(text=f"{number(estimate.mean)}{deviation}", interval=span(estimate) or "no interval", note=note)


def count_text(value: Count) -> str:
    """A count with thousands separators; a suppressed one as it is."""
    return f"{value:,}" if isinstance(value, int) else value


def count_cell(value: Count) -> Cell:
    """A count as a cell; a suppressed one is greyed."""
    return Cell(text=count_text(value)) if isinstance(value, int) else Cell(missing=value)


def texts(values: Iterable[str]) -> tuple[Cell, ...]:
    """Plain cells."""
    return tuple(Cell(text=value) if value else Cell(missing="none") for value in values)


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    items = list(names)
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else "".join(items)
