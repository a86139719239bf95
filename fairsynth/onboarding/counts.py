"""Which cells of a column may be written down: those that enough patients carry.

In:  a sample's file, its columns, the visits' patients.   Out: cells and their numbers of patients; how many are left.
Never: a cell that fewer than `ENOUGH_PATIENTS` carry; a whole file in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from fairsynth.errors import ExtractionError
from fairsynth.extraction.rules import FileRule
from fairsynth.extraction.tables import open_table
from fairsynth.onboarding.keys import Keys
from fairsynth.onboarding.people import ENOUGH_PATIENTS
from fairsynth.onboarding.samples import Sample

MAXIMUM_ROWS = 2_000_000  # of a file that are counted


@dataclass(frozen=True, kw_only=True)
class Common:
    """`rows`: the counted columns, patients; at least ENOUGH_PATIENTS each. `rare`: how many others there are."""

    rows: pl.DataFrame
    rare: int


def common_cells(sample: Sample, columns: tuple[str, ...], *, keys: Keys, visits: Sample | None) -> Common:
    """The different cells of `columns` together, and how many patients carry them, in the first rows of the file."""
    who = keys.subject.get(sample.name)
    stay = keys.visit.get(sample.name)
    owners = None if who else _owners(keys, visits)
    name = who or stay
    if name is None or (who is None and owners is None):
        return Common(rows=pl.DataFrame(schema={**dict.fromkeys(columns, pl.String), "patients": pl.UInt32}), rare=0)
    pairs = pl.concat([batch.unique() for batch in _batches(sample, (name, *columns))]).unique()
    if owners is not None:
        pairs = pairs.join(owners, left_on=name, right_on="visit", how="inner").rename({"subject": "__who__"})
    else:
        pairs = pairs.rename({name: "__who__"})
    counts = pairs.drop_nulls([columns[0], "__who__"]).group_by(columns).agg(patients=pl.col("__who__").n_unique())
    common = counts.filter(pl.col("patients") >= ENOUGH_PATIENTS).sort(
        "patients", *columns, descending=[True, *[False] * len(columns)]
    )
    return Common(rows=common, rare=len(counts) - len(common))


def descriptions(sample: Sample, *, code: str, description: str) -> dict[str, str]:
    """Code -> description of a dictionary."""
    rows = pl.concat(list(_batches(sample, (code, description)))).drop_nulls().unique(code, keep="first")
    return dict(rows.iter_rows())


def all_cells(sample: Sample, column: str) -> pl.Series:
    """The different cells of a column."""
    return pl.concat([batch.unique() for batch in _batches(sample, (column,))])[column].drop_nulls().unique()


def _owners(keys: Keys, visits: Sample | None) -> pl.DataFrame | None:
    """visit, subject: whose visits they are."""
    if visits is None or visits.name not in keys.subject or visits.name not in keys.visit:
        return None
    names = keys.visit[visits.name], keys.subject[visits.name]
    found = pl.concat(list(_batches(visits, names))).drop_nulls().unique(names[0], keep="first")
    return found.select(visit=pl.col(names[0]), subject=pl.col(names[1]))


def _batches(sample: Sample, columns: tuple[str, ...]) -> Iterator[pl.DataFrame]:
    """The columns of the first rows of a file, as trimmed text; what can be read, where it is damaged."""
    yield pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    rule, seen = FileRule(file=sample.name, columns=sample.columns, may_be_empty=True), 0
    try:
        table = open_table(sample.path.parent, rule, reads=columns, text=sample.text)
        for batch in table.batches():
            seen += batch.height
            yield batch.select(columns)
            if seen >= MAXIMUM_ROWS:
                return
    except ExtractionError:  # told by `fairsynth check`, with its line
        return
