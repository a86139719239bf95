"""A source's own codes -> the vocabulary that all sites share.

In:  the distinct event codes of a source and their parent codes.   Out: one row a code: its kind and its token.
Never: events. Each distinct code is mapped once; events join to the result.

    DIAG//ICD9CM//4280          DX//CCS//108        unmapped: DX//ICD9//<3 characters>
    DIAG//ICD10CN//I50.000      DX//CCS//108        through the WHO code of `parent_codes`; unmapped: DX//ICD10//<3>
    PROC//ICD9PROC//3961        PX//ICD9//39
    DRUG//Heparin Sodium 5,000  RX//heparin
    UNIT//MICU                  UNIT//MICU
    LAB//50912                  (by value, see labs.py; the row has the item's LOINC code)
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from fairsynth.visits.ccs import icd9_to_ccs, icd10_to_ccs
from fairsynth.visits.drugs import normalise

CODED_KINDS = ("DIAG", "PROC")  # coded for the whole stay, after it
TIMED_KINDS = ("DRUG", "UNIT", "LAB")
KINDS = (*CODED_KINDS, *TIMED_KINDS)

ROLLUP_SCHEMA = {"code": pl.String, "kind": pl.String, "token": pl.String, "loinc": pl.String}


def roll_up(codes: pl.Series, parents: pl.DataFrame) -> pl.DataFrame:
    """The token of each code in `codes`; columns code, kind, token, loinc.

    `parents` is the events' `codes.parquet` (code, parent_codes). Codes of other kinds are left out; a null token means
    that the code has none (a laboratory item, or a name of which nothing is left).
    """
    known = dict(zip(parents["code"].to_list(), parents["parent_codes"].to_list(), strict=True))
    rows = []
    for code in codes:
        kind, _, rest = code.partition("//")
        if kind in KINDS:
            parent = tuple(known.get(code) or ())
            token = _ROLL_UPS[kind](rest, parent)
            loinc = _parent(parent, "LOINC/") if kind == "LAB" else None
            rows.append({"code": code, "kind": kind, "token": token, "loinc": loinc})
    return pl.DataFrame(rows, schema=ROLLUP_SCHEMA)


def _parent(parents: tuple[str, ...], prefix: str) -> str | None:
    """The first parent code of one vocabulary, without the vocabulary's name."""
    return next((parent.removeprefix(prefix) for parent in parents if parent.startswith(prefix)), None)


def _diagnosis(rest: str, parents: tuple[str, ...]) -> str | None:
    system, _, code = rest.partition("//")
    is_icd9 = system.startswith("ICD9")
    standard = code if is_icd9 else _parent(parents, "ICD10/") or code
    ccs = icd9_to_ccs(standard) if is_icd9 else icd10_to_ccs(standard)
    if ccs is not None:
        return f"DX//CCS//{ccs}"
    stem = standard.replace(".", "").strip().upper()[:3]
    return f"DX//{'ICD9' if is_icd9 else 'ICD10'}//{stem}" if stem else None


def _procedure(rest: str, parents: tuple[str, ...]) -> str | None:
    del parents
    stem = rest.rpartition("//")[2].replace(".", "").strip()[:2]
    return f"PX//ICD9//{stem}" if stem else None


def _drug(rest: str, parents: tuple[str, ...]) -> str | None:
    del parents
    name = normalise(rest)
    return f"RX//{name}" if name else None


def _unit(rest: str, parents: tuple[str, ...]) -> str | None:
    del parents
    return f"UNIT//{rest}" if rest else None


def _lab(rest: str, parents: tuple[str, ...]) -> str | None:
    del rest, parents
    return None


_ROLL_UPS: dict[str, Callable[[str, tuple[str, ...]], str | None]] = {
    "DIAG": _diagnosis,
    "PROC": _procedure,
    "DRUG": _drug,
    "UNIT": _unit,
    "LAB": _lab,
}
