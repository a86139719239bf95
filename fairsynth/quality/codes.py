"""What share of each kind of code the shared vocabulary knows, and the largest codes that it does not.

In:  the inventory of an events artefact (events.py), its codes with parents and descriptions.
Out: `KindQuality`, one a kind, and findings.
Never: a code that fewer than the minimum cell of patients carry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from fairsynth.config import LevelsConfig, Strict
from fairsynth.quality.events import kind
from fairsynth.quality.findings import Finding, note, warning
from fairsynth.visits.catalogue import rolled_up

VOCABULARIES = {  # at the default levels
    "DIAG": "CCS",
    "PROC": "procedure classes",
    "DRUG": "generic names",
    "LAB": "LOINC and a known unit",
}
NAMES = {"DIAG": "diagnoses", "PROC": "procedures", "DRUG": "drugs", "LAB": "laboratory values"}
SHOWN_CODES = 10
FEW_MAPPED = 0.8  # below this share of its events, a kind says less at this site than at others


class UnmappedCode(Strict):
    """A code without a place in the shared vocabulary."""

    code: str
    unit: str | None
    description: str | None
    events: int
    patients: int


class KindQuality(Strict):
    """One kind of code."""

    kind: str
    vocabulary: str
    codes: int
    events: int
    mapped_events: int
    mapped_share: float | None  # None: no event of this kind
    unmapped: tuple[UnmappedCode, ...]  # the largest that enough patients carry
    further_unmapped_codes: int  # smaller, or carried by too few patients to be named


def describe_kinds(placed: pl.DataFrame, *, minimum: int) -> tuple[KindQuality, ...]:
    """Every kind that has a shared vocabulary; `placed` is what `place` gives."""
    return tuple(_describe(name, placed.filter(kind=name), minimum=minimum) for name in VOCABULARIES)


def place(counts: pl.DataFrame, *, codes: pl.DataFrame, levels: LevelsConfig) -> pl.DataFrame:
    """`counts` with kind, description, `enters` (becomes a token) and `mapped` (one that says the same everywhere)."""
    enters = pl.col("token").is_not_null() | pl.col("loinc").is_not_null()
    rolled = rolled_up(counts.select("code", "unit"), codes=codes, levels=levels)
    known = rolled.select("code", "unit", enters=enters, mapped=pl.col("standard").fill_null(value=False))
    return (
        counts.with_columns(kind())
        .join(codes.select("code", "description"), on="code", how="left", maintain_order="left")
        .join(known, on=["code", "unit"], how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.col("enters", "mapped").fill_null(value=False))
    )


def kind_findings(kinds: Sequence[KindQuality]) -> Iterator[Finding]:
    """Kinds that are absent, and kinds of which little is mapped."""
    for one in kinds:
        name = NAMES[one.kind]
        if one.mapped_share is None:
            yield note(
                f"no {name}", where=f"codes {one.kind}//...", do="add a table to the rules, if the source has one"
            )
        elif one.mapped_share < FEW_MAPPED:
            yield warning(
                f"{one.mapped_share:.1%} of the {name} have a place in the shared vocabulary ({one.vocabulary})",
                where=f"codes {one.kind}//...  ({one.codes:,} codes)",
                do=_mend(one.kind),
            )


def _mend(name: str) -> str:
    if name == "LAB":
        return "give the largest unmapped items a LOINC parent in the rules, and check their units"
    if name == "DIAG":
        return "check that the rules name the right code system, and give unmapped codes a parent"
    return "read the largest unmapped codes"


def _describe(name: str, rows: pl.DataFrame, *, minimum: int) -> KindQuality:
    events, known = int(rows["events"].sum()), int(rows.filter("mapped")["events"].sum())
    missing = rows.filter(~pl.col("mapped")).sort("events", "code", "unit", descending=[True, False, False])
    shown = missing.filter(pl.col("patients") >= minimum).head(SHOWN_CODES)
    columns = ["code", "unit", "description", "events", "patients"]
    return KindQuality(
        kind=name,
        vocabulary=VOCABULARIES[name],
        codes=rows["code"].n_unique(),
        events=events,
        mapped_events=known,
        mapped_share=round(known / events, 6) if events else None,
        unmapped=tuple(UnmappedCode(**row) for row in shown.select(columns).iter_rows(named=True)),
        further_unmapped_codes=len(missing) - len(shown),
    )
