"""Laboratory values -> bins between fixed clinical cut points, in one unit.

In:  `data/labs.yaml`; values with their LOINC code and unit.   Out: the conversion table and the bin of each value.
Never: a cut point learnt from a site's data, so that a token means the same at every site.

A value is converted to the conventional unit, rounded to 6 significant digits (events are stored as float32), dropped
when it is not plausible, and binned: below a low cut, above a high cut, else `normal`; a value equal to a cut is on the
normal side of it.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Literal, Self

import polars as pl
from pydantic import Field, PositiveFloat, model_validator

from fairsynth.config import Strict, read_yaml
from fairsynth.visits.phenotypes import DATA

BINS = ("critical_low", "low", "normal", "high", "critical_high")
NORMAL = BINS.index("normal")
SIGNIFICANT_DIGITS = 6

Cut = float | None


class Lab(Strict):
    """One analyte; see the head of `data/labs.yaml`."""

    name: str
    loinc: str = Field(pattern=r"^\d+-\d$")
    also: tuple[str, ...] = ()
    unit: str
    units: dict[str, PositiveFloat]
    cuts: tuple[Cut, Cut, Cut, Cut]
    plausible: tuple[float, float]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        edges = [self.plausible[0], *(cut for cut in self.cuts if cut is not None), self.plausible[1]]
        if any(low >= high for low, high in pairwise(edges)):
            raise ValueError("plausible minimum, cuts and plausible maximum must increase")
        if (self.cuts[1] is None and self.cuts[0] is not None) or (self.cuts[2] is None and self.cuts[3] is not None):
            raise ValueError("a critical cut needs the cut before it")
        return self

    @property
    def codes(self) -> tuple[str, ...]:
        """Every LOINC code that is read as this analyte."""
        return (self.loinc, *self.also)

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Bin -> (low, high) in the conventional unit, for the bins that this analyte has.

        Low bins hold `low <= value < high`, high bins `low < value <= high`, `normal` both ends.
        """
        edges = (self.plausible[0], *self.cuts, self.plausible[1])
        return {
            name: (_first(edges[index::-1]), _first(edges[index + 1 :]))
            for index, name in enumerate(BINS)
            if index == NORMAL or edges[index + (index < NORMAL)] is not None
        }


def _first(edges: tuple[Cut, ...]) -> float:
    """The first edge that is set."""
    return next(edge for edge in edges if edge is not None)


class LabTable(Strict):
    """`data/labs.yaml`."""

    schema_: Literal["fairsynth.labs/1"] = Field(alias="schema")
    labs: tuple[Lab, ...]

    @model_validator(mode="after")
    def _readable_in_one_way(self) -> Self:
        names = [lab.loinc for lab in self.labs]
        pairs = [(code, unit) for lab in self.labs for code in lab.codes for unit in lab.units]
        if len(set(names)) != len(names) or len(set(pairs)) != len(pairs):
            raise ValueError("a LOINC code is listed twice with one unit")
        return self


@cache
def labs() -> tuple[Lab, ...]:
    """All analytes."""
    return read_yaml(DATA / "labs.yaml", LabTable).labs


@cache
def labs_by_loinc() -> dict[str, Lab]:
    """LOINC code, `also` codes included -> its analyte: the one that it names, where two analytes have it."""
    return {code: lab for lab in labs() for code in lab.also} | {lab.loinc: lab for lab in labs()}


@cache
def _labs_by_code_and_unit() -> dict[tuple[str, str], Lab]:
    return {(code, unit): lab for lab in labs() for code in lab.codes for unit in lab.units}


def find_lab(loinc: str | None, unit: str | None) -> Lab | None:
    """The analyte of a measurement, None where the table does not have its code with its unit."""
    return _labs_by_code_and_unit().get((loinc or "", plain_unit(unit)))


def plain_unit(unit: str | None) -> str:
    """A unit as the table writes it: lower case, no blanks, `u` for micro and for units; "" for none."""
    text = "".join((unit or "").split()).lower().replace("µ", "u").replace("μ", "u").rstrip(".")
    for written, plain in (("mcg", "ug"), ("mcl", "ul"), ("mcu", "uu"), ("units/", "u/"), ("kgh2o", "kg")):
        text = text.replace(written, plain)
    return text


def conversions(pairs: pl.DataFrame) -> pl.DataFrame:
    """What is needed to bin each kind of measurement.

    `pairs` has columns code, unit, loinc: the distinct measurements of a source, `loinc` null where it gives none.
    Returns the rows that the table knows, with name, loinc (the token's), factor, cut0..cut3, least, greatest.
    """
    rows = []
    for row in pairs.iter_rows(named=True):
        lab = find_lab(row["loinc"], row["unit"])
        if lab is None:
            continue
        factor = lab.units[plain_unit(row["unit"])]
        cuts = {f"cut{index}": cut for index, cut in enumerate(lab.cuts)}
        least, greatest = lab.plausible
        key = {"code": row["code"], "unit": row["unit"]}
        rows.append({**key, "loinc": lab.loinc, "factor": float(factor), **cuts, "least": least, "greatest": greatest})
    return pl.DataFrame(rows, schema=_CONVERSION_SCHEMA)


HOW_TO_BIN = ("factor", "cut0", "cut1", "cut2", "cut3", "least", "greatest")
_CONVERSION_SCHEMA = {
    **dict.fromkeys(("code", "unit", "loinc"), pl.String),
    **dict.fromkeys(HOW_TO_BIN, pl.Float64),
}


def converted() -> pl.Expr:
    """The value in the conventional unit, from columns numeric_value, factor."""
    return (pl.col("numeric_value").cast(pl.Float64) * pl.col("factor")).round_sig_figs(SIGNIFICANT_DIGITS)


def plausible() -> pl.Expr:
    """Whether columns value, least, greatest say that the value can be true."""
    return pl.col("value").is_between(pl.col("least"), pl.col("greatest")).fill_null(value=False)


def bin_index() -> pl.Expr:
    """Index into BINS, from columns value, cut0..cut3; a missing cut separates nothing."""
    below = sum((pl.col("value") < pl.col(cut)).fill_null(False).cast(pl.Int8) for cut in ("cut0", "cut1"))
    above = sum((pl.col("value") > pl.col(cut)).fill_null(False).cast(pl.Int8) for cut in ("cut2", "cut3"))
    return pl.lit(NORMAL, dtype=pl.Int8) - below + above
