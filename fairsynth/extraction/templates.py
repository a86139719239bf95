"""Code templates: a literal that ends, at most, in one column, so that every code leads back to the cell that made it.

In:  text such as `DIAG//ICD9CM//{ICD9_CODE}`.   Out: `Template`, and `Parent` for names in other vocabularies.
Never: expressions, data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import polars as pl
from pydantic import AfterValidator, Field

_TEMPLATE = re.compile(r"(?P<literal>[^{}]+)(?:\{(?P<column>[^{}]+)\})?")
_FIELD = re.compile(r"\{([^{}]+)\}")

# A column as the rules write it: upper case, as headers are matched; no braces, no blanks around it.
_NAME = r"[^\s{}a-z](?:[^{}\x00-\x1fa-z]*[^\s{}a-z])?"
Column = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=120)]


@dataclass(frozen=True, kw_only=True)
class Template:
    """A code template taken apart: `literal` then the cell of `column` (None: a constant code)."""

    literal: str
    column: str | None

    @classmethod
    def parse(cls, text: str) -> Template:
        """The template that `text` writes. Raises ValueError when it is not `literal` or `literal{COLUMN}`."""
        match = _TEMPLATE.fullmatch(text)
        if match is None:
            raise ValueError("a code is a literal that ends, at most, in one {COLUMN}")
        return cls(literal=match["literal"], column=_column(match["column"]))

    def invert(self, code: str) -> dict[str, str] | None:
        """The cell that made `code`, by column; None when this template cannot have made it."""
        if self.column is None:
            return {} if code == self.literal else None
        cell = code.removeprefix(self.literal)
        return {self.column: cell} if cell and len(cell) < len(code) else None

    def filled(self, cell: pl.Expr | None = None) -> pl.Expr:
        """The code of a row; null where its cell is empty. `cell` stands for the column's cell where it is given."""
        literal = pl.lit(self.literal)
        return literal if self.column is None else literal + (pl.col(self.column) if cell is None else cell)

    def overlaps(self, other: Template) -> bool:
        """Whether some code could come from both."""
        if self.column is None:
            return other.invert(self.literal) is not None
        if other.column is None:
            return self.invert(other.literal) is not None
        return self.literal.startswith(other.literal) or other.literal.startswith(self.literal)


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A name in another vocabulary: `LOINC/{LOINC_CODE}`; or `{VOCABULARY_ID}/{CODE}`, the vocabulary in a cell."""

    text: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the name is made of."""
        return tuple(_FIELD.findall(self.text))

    def filled(self) -> pl.Expr:
        """The parent of a dictionary's row; null where one of its cells is empty."""
        parts = _FIELD.split(self.text)  # literal, column, literal, ...
        return pl.concat_str([pl.col(part) if index % 2 else pl.lit(part) for index, part in enumerate(parts)])

    def invert(self, parent: str) -> dict[str, str] | None:
        """The cells that made `parent`, by column; None when this template cannot have made it. The first cell of two
        ends at the first character that follows it in the template."""
        parts = _FIELD.split(self.text)
        pattern = "".join(
            "(.+?)" if index % 2 and parts[index + 1] else "(.+)" if index % 2 else re.escape(part)
            for index, part in enumerate(parts)
        )
        match = re.fullmatch(pattern, parent)
        return dict(zip(self.columns, match.groups(), strict=True)) if match else None


def _column(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(_NAME, name):
        raise ValueError(f"{{{name}}} is not a column: a code is a literal, then a column in upper case")
    return name


def _is_template(text: str) -> str:
    Template.parse(text)
    return text


def _is_parent(text: str) -> str:
    names = _FIELD.findall(text)
    if not names or not re.fullmatch(r"(?:[^{}]*\{[^{}]+\})+", text):
        raise ValueError("a parent is VOCABULARY/{COLUMN}, or {COLUMN}/{COLUMN}")
    for name in names:
        _column(name)
    return text


Code = Annotated[str, AfterValidator(_is_template)]
ParentCode = Annotated[str, AfterValidator(_is_parent)]
