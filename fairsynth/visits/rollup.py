"""A source's own codes -> the vocabulary that all sites share, at the levels of the study.

In:  the distinct event codes of a source, their descriptions and parent codes, `LevelsConfig`.
Out: one row a code: its kind, its token, and whether the token says the same at every site.
Never: events. Each distinct code is mapped once; events are looked up in the result.

At the default levels:

    DIAG//ICD9CM//4280          DX//CCS//108        unmapped: DX//ICD9//<category>
    DIAG//ICD10CN//I50.000      DX//CCS//108        through the WHO code of its parents; unmapped: DX//ICD10//<category>
    DIAG//OMOP//319835          DX//CCS//108        through its parents alone; unmapped: DX//OMOP//319835
    PROC//ICD9PROC//3961        PX//CLASS//cardiopulmonary_bypass
    DRUG//Heparin Sodium 5,000  RX//heparin
    DRUG//insulin//Up           RX//insulin         the detail is no part of the name
    DRUG//OMOP//1367571         RX//heparin         through the description
    UNIT//MICU                  UNIT//MICU
    OBS//a1c//>7                OBS//a1c//>7
    LAB//50912                  (by value, see labs.py; the row has the item's LOINC code)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from fairsynth.config import LevelsConfig
from fairsynth.visits.ccs import icd9_to_ccs, icd10_to_ccs, plain_icd9
from fairsynth.visits.drugs import normalise
from fairsynth.visits.procedures import System, procedure_class

CODED_KINDS = ("DIAG", "PROC")  # coded for the whole stay, after it
TIMED_KINDS = ("DRUG", "UNIT", "LAB", "OBS")
KINDS = (*CODED_KINDS, *TIMED_KINDS)

DESCRIBED = ("code", "description", "parent_codes")
ROLLUP_SCHEMA = {
    "code": pl.String,
    "kind": pl.String,
    "token": pl.String,
    "standard": pl.Boolean,
    "loinc": pl.String,
    "ccs": pl.Int64,
}

# A vocabulary, as codes and parents name it -> what its codes are.
_DIAGNOSES = {"ICD9CM": "ICD9", **dict.fromkeys(("ICD10", "ICD10CM", "ICD10CN", "ICD10GM", "KCD7", "CIM10"), "ICD10")}
_PROCEDURES: dict[str, System] = {
    **{"ICD9PROC": "icd9", "ICD10PCS": "icd10pcs"},
    **{"CPT": "cpt", "CPT4": "cpt"},
}
_CONCEPT = "OMOP"  # a drug's name is the concept's description


@dataclass(frozen=True, kw_only=True)
class Source:
    """One code of a source: what follows its kind, its description, and its parents as (vocabulary, code)."""

    rest: str
    description: str = ""
    parents: tuple[tuple[str, str], ...] = ()

    @property
    def system(self) -> str:
        """The code system, of a code that names one."""
        return self.rest.partition("//")[0]

    @property
    def code(self) -> str:
        """The code within its system."""
        return self.rest.partition("//")[2]

    def parent(self, *vocabularies: str) -> tuple[str, str] | None:
        """The first parent in one of `vocabularies`, which are tried in order."""
        return next((found for name in vocabularies for found in self.parents if found[0] == name), None)


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """What became of a code. `standard`: the token says the same at every site."""

    token: str | None = None
    standard: bool = False
    loinc: str | None = None
    ccs: int | None = None


def roll_up(codes: pl.Series, *, described: pl.DataFrame, levels: LevelsConfig) -> pl.DataFrame:
    """The token of each code in `codes`, in the columns of ROLLUP_SCHEMA.

    `described` is the events' `codes.parquet` (code, description, parent_codes). Codes of other kinds are left out; a
    null token means that the code has none (a laboratory item, or a name of which nothing is left). `ccs` is the CCS
    category of a diagnosis, whatever the level.
    """
    known = {code: (text, parents) for code, text, parents in described.select(DESCRIBED).iter_rows()}
    rows = []
    for code in codes:
        kind, _, rest = code.partition("//")
        if kind in KINDS:
            text, parents = known.get(code, (None, None))
            pairs = tuple(_split(parent) for parent in parents or ())
            rolled = _ROLL_UPS[kind](Source(rest=rest, description=text or "", parents=pairs), levels)
            rows.append({"code": code, "kind": kind, **vars(rolled)})
    return pl.DataFrame(rows, schema=ROLLUP_SCHEMA)


def _split(parent: str) -> tuple[str, str]:
    vocabulary, _, code = parent.partition("/")
    return vocabulary.upper(), code


def _standard_diagnosis(source: Source) -> tuple[str, str] | None:
    """(ICD9 or ICD10, code): of a national ICD-10 through the WHO's code, of OMOP through its parents alone.

    A code that can only be one of ICD-10 is, although the source (eICU) has it in a column for ICD-9.
    """
    found = None if source.system == "ICD9CM" else source.parent(*_DIAGNOSES)
    if found is None and source.system in _DIAGNOSES:
        found = (source.system, source.code)
    if found is None:
        return None
    system, code = _DIAGNOSES[found[0]], found[1]
    return ("ICD10" if system == "ICD9" and _can_only_be_icd10(code) else system), code


def _can_only_be_icd10(code: str) -> bool:
    """Whether a code begins as none of ICD-9-CM does: E needs three digits before its dot, V two."""
    return re.match(r"[A-DF-U]\d|[W-Z]\d|E\d\d\.", code.strip().upper()) is not None


def _diagnosis(source: Source, levels: LevelsConfig) -> Rolled:
    own = f"DX//{source.rest}" if source.code else None
    standard = _standard_diagnosis(source)
    if standard is None:
        return Rolled(token=own)
    system, code = standard
    ccs = icd9_to_ccs(code) if system == "ICD9" else icd10_to_ccs(code)
    if levels.diagnoses == "source":
        return Rolled(token=own, standard=True, ccs=ccs)
    if levels.diagnoses == "ccs" and ccs is not None:
        return Rolled(token=f"DX//CCS//{ccs}", standard=True, ccs=ccs)
    plain = plain_icd9(code) if system == "ICD9" else code.replace(".", "").strip().upper()
    stem = plain[: 4 if system == "ICD9" and plain.startswith("E") else 3]
    token = f"DX//{system}//{stem}" if stem else None
    return Rolled(token=token, standard=bool(stem) and levels.diagnoses == "category", ccs=ccs)


def _procedure(source: Source, levels: LevelsConfig) -> Rolled:
    own = f"PX//{source.rest}" if source.code else None
    found = (source.system, source.code) if source.system in _PROCEDURES else source.parent(*_PROCEDURES)
    if found is None:
        return Rolled(token=own)
    system = _PROCEDURES[found[0]]
    name = procedure_class(found[1], system=system)
    if levels.procedures == "source":
        return Rolled(token=own, standard=name is not None)
    if levels.procedures == "class" and name is not None:
        return Rolled(token=f"PX//CLASS//{name}", standard=True)
    stem = found[1].replace(".", "").strip().upper()[: 2 if system == "icd9" else 3]
    return Rolled(token=f"PX//{system.upper()}//{stem}" if stem else None, standard=name is not None)


def _drug(source: Source, levels: LevelsConfig) -> Rolled:
    written = source.description if source.system == _CONCEPT else source.system
    name = written.strip() if levels.drugs == "source" else normalise(written)
    if name:
        return Rolled(token=f"RX//{name}", standard=True)
    concept = source.parent("RXNORM") if source.system == _CONCEPT else None
    return Rolled(token=f"RX//RXNORM//{concept[1]}", standard=True) if concept else Rolled()


def _as_it_is(kind: str) -> Callable[[Source, LevelsConfig], Rolled]:
    """The source's own words are the token."""
    return lambda source, _: Rolled(token=f"{kind}//{source.rest}" if source.rest else None)


def _lab(source: Source, levels: LevelsConfig) -> Rolled:
    del levels
    found = source.parent("LOINC")
    return Rolled(loinc=found[1] if found else None)


_ROLL_UPS: dict[str, Callable[[Source, LevelsConfig], Rolled]] = {
    "DIAG": _diagnosis,
    "PROC": _procedure,
    "DRUG": _drug,
    "UNIT": _as_it_is("UNIT"),
    "OBS": _as_it_is("OBS"),
    "LAB": _lab,
}
