"""Procedure codes of ICD-9-CM, ICD-10-PCS and CPT -> classes that all three systems share.

In:  `data/procedures.yaml`; codes, dotted or not.   Out: the name of a class, or None.
Never: patients; a code that looks like none of its system's.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from fairsynth.config import Strict, read_yaml
from fairsynth.visits.phenotypes import DATA

System = Literal["icd9", "icd10pcs", "cpt"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


Beginning = Annotated[str, AfterValidator(_compiles)]
CodeRange = Annotated[str, StringConstraints(pattern=r"^\d{5}(-\d{5})?$")]


class ProcedureClass(Strict):
    """One class, and which codes of each system are in it."""

    name: str = Field(pattern=r"^[a-z_]+$")
    icd9: Beginning | None = None
    icd10pcs: Beginning | None = None
    cpt: tuple[CodeRange, ...] = ()

    def holds(self, code: str, system: System) -> bool:
        """Whether `code` (no dots, upper case) is in this class."""
        if system == "cpt":
            return any(
                first <= code <= (last or first) for first, _, last in (text.partition("-") for text in self.cpt)
            )
        pattern = self.icd9 if system == "icd9" else self.icd10pcs
        return pattern is not None and re.match(pattern, code) is not None


class ProcedureTable(Strict):
    """`data/procedures.yaml`: the first class that holds a code is the code's."""

    schema_: Literal["fairsynth.procedures/1"] = Field(alias="schema")
    classes: tuple[ProcedureClass, ...]


_LOOKS_LIKE: dict[System, str] = {"icd9": r"\d{2,4}", "icd10pcs": r"[0-9B-DF-HX][0-9A-HJ-NP-Z]{6}", "cpt": r"\d{5}"}


@cache
def procedure_classes() -> tuple[ProcedureClass, ...]:
    """All classes, in the order in which they are tried."""
    return read_yaml(DATA / "procedures.yaml", ProcedureTable).classes


def procedure_class(code: str, *, system: System) -> str | None:
    """The class of a code: `procedure_class("96.72", system="icd9") == "mechanical_ventilation"`."""
    plain = code.replace(".", "").strip().upper()
    if not re.fullmatch(_LOOKS_LIKE[system], plain):
        return None
    return next((item.name for item in procedure_classes() if item.holds(plain, system)), None)
