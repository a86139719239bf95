"""What is missing: visits without a kind of code, patients without sex or birth, values without a number.

In:  shards of an events artefact.   Out: `MissingQuality` and findings.
Never: a count of people or visits between 1 and the minimum cell; more than one shard in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from fairsynth.config import Strict
from fairsynth.quality.findings import Finding, error, note, warning
from fairsynth.quality.parts import Part, part
from fairsynth.visits.patients import SEX_OF_GENDER
from fairsynth.visits.shards import Shards

CONTENT = {"diagnosis": "DIAG//", "drug": "DRUG//", "laboratory value": "LAB//", "procedure": "PROC//"}
MANY_EMPTY = 0.5  # of the visits: above it, a kind describes the minority of them
MANY_UNUSABLE = 0.05  # of the patients or visits


class MissingQuality(Strict):
    """Shares of all visits and patients of the source, before any are chosen."""

    visits_without: dict[str, Part]  # a diagnosis, a drug, ...
    visits_without_admission: Part
    visits_without_discharge: Part
    patients_without: dict[str, Part]  # sex, birth, the sensitive attribute
    values_without_number: Part  # of laboratory events; events, so never hidden


def describe_missing(shards: Shards, *, attribute: str, patients: int, visits: int, minimum: int) -> MissingQuality:
    """What is missing among `patients` and `visits`, the numbers in the source's own tables."""
    counted = pl.concat([_counts(shard, attribute=attribute) for shard in shards]).sum().row(0, named=True)

    def lacking(name: str, total: int) -> Part:
        return part(total - counted[name], total, minimum=minimum)

    return MissingQuality(
        visits_without={name: lacking(name, visits) for name in CONTENT},
        visits_without_admission=lacking("admission", visits),
        visits_without_discharge=lacking("discharge", visits),
        patients_without={name: lacking(name, patients) for name in ("sex", "birth", attribute.lower())},
        values_without_number=part(counted["values"] - counted["numbers"], counted["values"], minimum=1),
    )


def missing_findings(missing: MissingQuality) -> Iterator[Finding]:
    """Patients and visits that cannot enter a cohort, and visits that would enter almost empty."""
    for name, lack in missing.patients_without.items():
        if lack.some:
            level = error if lack.count == lack.total else warning if (lack.share or 0) > MANY_UNUSABLE else note
            yield level(
                f"patients without {name}: {lack}", where="patients", do="they enter no cohort; check the rules"
            )
    if missing.visits_without_admission.some:
        what = f"visits without an ADMISSION// event: {missing.visits_without_admission}"
        yield warning(what, where="visits", do="they enter no cohort: let the rules make an ADMISSION// code of each")
    if missing.visits_without_discharge.some:
        what = f"visits without a DISCHARGE// event: {missing.visits_without_discharge}"
        yield note(what, where="visits", do="such a visit ends with its last event")
    for name, lack in missing.visits_without.items():
        if lack.share is not None and MANY_EMPTY < lack.share < 1:
            yield note(f"visits without a {name}: {lack}", where="visits")


def _counts(shard: pl.LazyFrame, *, attribute: str) -> pl.DataFrame:
    """One row: how many visits and patients of a shard have each thing, laboratory events, and numbers among them."""
    code = pl.col("code")
    by_visit = {name: code.str.starts_with(prefix) for name, prefix in CONTENT.items()}
    by_visit |= {"admission": code.str.starts_with("ADMISSION//"), "discharge": code.str.starts_with("DISCHARGE//")}
    by_patient = {
        "sex": code.is_in(list(SEX_OF_GENDER)),
        "birth": (code == "MEDS_BIRTH") & pl.col("time").is_not_null(),
        attribute.lower(): code.str.starts_with(f"{attribute}//"),
    }
    lab = code.str.starts_with("LAB//")
    values = shard.select(
        lab.sum().alias("values"), (lab & pl.col("numeric_value").is_not_null()).sum().alias("numbers")
    )
    counted = [
        _having(shard.filter(pl.col("visit_id").is_not_null()), ["subject_id", "visit_id"], by_visit),
        _having(shard, ["subject_id"], by_patient),
        values,
    ]
    found = pl.concat(pl.collect_all(counted, engine="streaming"), how="horizontal")
    return found.cast(pl.Int64)


def _having(events: pl.LazyFrame, key: list[str], conditions: dict[str, pl.Expr]) -> pl.LazyFrame:
    """One row: for each condition, how many values of `key` have an event that meets it."""
    return (
        events.group_by(key)
        .agg(test.any().alias(name) for name, test in conditions.items())
        .select(pl.col(name).sum() for name in conditions)
    )
