"""Local laboratory items -> LOINC, by their name and unit; dictionaries of local codes.

In:  items that enough patients carry, descriptions.   Out: guessed `Parent`s, `DictionaryDraft`s.
Never: a cell that few patients carry.

A name alone is no proof: an item whose unit the shared table of tests does not know stays open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import polars as pl

from fairsynth.onboarding import words
from fairsynth.onboarding.columns import ICD10, LOINC, Column
from fairsynth.onboarding.counts import all_cells
from fairsynth.onboarding.drafts import DictionaryDraft, Parent
from fairsynth.onboarding.keys import named
from fairsynth.onboarding.samples import Sample
from fairsynth.visits.labs import Lab, labs_by_loinc, plain_unit

SAME_CODES = 0.5  # of the codes in use that a dictionary must have, where the column has another name


def laboratory_parents(items: pl.DataFrame, *, literal: str, labels: Mapping[str, str]) -> tuple[Parent, ...]:
    """A LOINC code for each item of `items` (columns item, unit) whose name the shared table of tests knows."""
    units: dict[str, set[str]] = {}
    for item, unit in items.select("item", "unit").iter_rows():
        units.setdefault(item, set()).add(plain_unit(unit))
    found = []
    for item, used in sorted(units.items()):
        if (lab := _lab(item, labels.get(item, item))) is not None:
            known = sorted(used & lab.units.keys())
            said = f"by its name{' and unit' if known else '; its unit is not known here'}"
            parent = Parent(
                code=f"{literal}{item}", loinc=f"LOINC/{lab.loinc}", said=f"{lab.name}, {said}", open=not known
            )
            found.append(parent)
    return tuple(found)


def dictionary(
    sample: Sample, columns: Mapping[str, Column], *, used: Iterable[tuple[str, Column]]
) -> DictionaryDraft | None:
    """The dictionary that a table without patients is, for the codes in `used` of which it holds the most."""
    found: list[tuple[float, str, str]] = []
    for literal, code in used:
        for key in _possible_keys(columns, code):
            share = _share(code.distinct.is_in(all_cells(sample, key).implode()))
            if share > (0 if key == code.name else SAME_CODES):
                found.append((share, literal, key))
    for _, literal, key in sorted(found, key=lambda one: -one[0]):
        others = {name: column for name, column in columns.items() if name != key}
        keys: dict[str, object] = {"code": f"{literal}{{{key}}}"}
        if (text := _description(others)) is not None:
            keys["description"] = text
        if parents := list(_parents(others)):
            keys["parents"] = parents
        if len(keys) > 1:
            return DictionaryDraft(sample=sample, keys=keys)
    return None


def _lab(item: str, label: str) -> Lab | None:
    """The shared test of an item that is a LOINC code, or whose label is one of its names."""
    if re.fullmatch(LOINC, item):
        return labs_by_loinc().get(item)
    name = re.sub(r"[^0-9a-z()]+", " ", label.lower()).strip()
    names = {re.sub(r"[^0-9a-z()]+", " ", lab.name.lower()): lab for lab in labs_by_loinc().values()}
    known = words.LABORATORY_NAMES.get(name, name)
    return names.get(re.sub(r"[^0-9a-z()]+", " ", known))


def _possible_keys(columns: Mapping[str, Column], code: Column) -> list[str]:
    """The column of a dictionary that is called like a column of codes, else those that could hold the codes."""
    if code.name in columns:
        return [code.name]
    return [column.name for column in columns.values() if column.unique and column.is_identifier]


def _share(flags: pl.Series) -> float:
    return float(flags.sum()) / len(flags) if len(flags) else 0.0


def _description(columns: Mapping[str, Column]) -> str | None:
    """The column with the longest texts among those named like one."""
    texts = [column for column in named(columns, words.LABEL) if column.numbers < 0.5 and len(column.cells)]
    lengths = {column.name: float(str(column.cells.str.len_chars().mean())) for column in texts}
    return max(lengths, key=lambda name: lengths[name]) if lengths else None


def _parents(columns: Mapping[str, Column]) -> Iterable[str]:
    for column in columns.values():
        if column.matches(LOINC) > 0.5 and len(column.cells):
            yield f"LOINC/{{{column.name}}}"
        elif "icd10" in column.plain.replace("_", "") and column.matches(ICD10) > 0.5:
            yield f"ICD10/{{{column.name}}}"
