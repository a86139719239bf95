"""The 25 phenotypes of the MIMIC benchmark as CCS categories.

In:  `data/phenotypes.yaml`.   Out: names in token order, and the CCS category of each.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from fairsynth.config import Name, Strict, read_yaml

DATA = Path(__file__).parent / "data"


class Phenotype(Strict):
    """One phenotype: token name, CCS single-level category, the category's title."""

    name: Name
    ccs: PositiveInt
    title: str


class PhenotypeTable(Strict):
    """`data/phenotypes.yaml`."""

    schema_: Literal["fairsynth.phenotypes/1"] = Field(alias="schema")
    phenotypes: tuple[Phenotype, ...]


@cache
def phenotypes() -> tuple[Phenotype, ...]:
    """All phenotypes, in token order."""
    return read_yaml(DATA / "phenotypes.yaml", PhenotypeTable).phenotypes
