"""G11 and the files' part of G8: do events and tables hold anything but codes that many patients share?

In:  `events/` and `tables/` of synthetic patients, the site's own folder.   Out: problems, in words without a value;
the number of rare source codes.
Never: a cell's or a code's text in a problem.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from fairsynth import plain_json
from fairsynth.extraction.engine import DATA, KIND
from fairsynth.extraction.rules import Rules, read_source
from fairsynth.synthesis.assemble import FIRST_ID, SYNTHETIC
from fairsynth.synthesis.inverse import guard
from fairsynth.synthesis.timeline import FIRST_YEAR
from fairsynth.visits.prepare import VISITS

STRUCTURAL = ("MEDS_BIRTH", "MEDS_DEATH", f"ADMISSION//{SYNTHETIC}", f"DISCHARGE//{SYNTHETIC}")
_BIRTH = "MEDS_BIRTH"
_IDENTIFIERS = ("subject_id", "visit_id")


def file_problems(folder: Path, *, root: Path) -> tuple[str, ...]:
    """What is wrong with `folder/events` and `folder/tables`, beside the site at `root`."""
    return (*_strange_codes(folder, root), *_identifiers(folder, root), *_dates(folder), *_cells(folder, root))


def rare_source_codes(folder: Path, *, root: Path, least: int) -> int:
    """Source codes of the synthetic events that fewer than `least` training patients of the site have."""
    patients = pl.scan_parquet(root / VISITS / "patients.parquet").filter(split="train").select("subject_id")
    written = _codes(folder).filter(~pl.col("code").is_in(STRUCTURAL))
    support = (
        _events(root)
        .select("subject_id", "code")
        .join(patients, on="subject_id", how="semi")
        .group_by("code")
        .agg(patients=pl.col("subject_id").n_unique())
    )
    rare = written.join(support, on="code", how="left").filter(pl.col("patients").fill_null(0) < least)
    return _count(rare)


def _strange_codes(folder: Path, root: Path) -> list[str]:
    """Free text: a code that the site's own events do not have."""
    own = _codes(root)
    strange = _codes(folder).filter(~pl.col("code").is_in(STRUCTURAL)).join(own, on="code", how="anti")
    return _said(_count(strange), "codes that no event of the site has")


def _identifiers(folder: Path, root: Path) -> list[str]:
    problems = []
    for name in _IDENTIFIERS:
        made = _events(folder).select(name).drop_nulls().unique()
        low = _count(made.filter(pl.col(name) < FIRST_ID))
        shared = _count(made.join(_events(root).select(name).drop_nulls().unique(), on=name, how="semi"))
        problems += _said(low + shared, f"identifiers ({name}) outside the range of synthetic ones, or of the site")
    return problems


def _dates(folder: Path) -> list[str]:
    early = _events(folder).filter(pl.col("code") != _BIRTH, pl.col("time").dt.year() < FIRST_YEAR)
    return _said(_count(early), "events outside the synthetic calendar")


def _cells(folder: Path, root: Path) -> list[str]:
    """Cells that a spreadsheet would run, or that hold control characters."""
    entry = plain_json.read(root / "site.json")
    _, rules = read_source(Path(entry["config"]))
    if not isinstance(rules, Rules):
        return []
    found = 0
    for path in sorted((folder / "tables").glob("*.csv")):
        text = path.read_bytes().decode(rules.text.encoding)
        cells = pl.read_csv(text.encode(), separator=rules.text.delimiter, infer_schema=False, quote_char='"')
        runs = [(guard(pl.col(name)) != pl.col(name)).sum().alias(name) for name in cells.columns]
        found += int(cells.select(runs).sum_horizontal().item()) if cells.height else 0
    return _said(found, "cells that a spreadsheet would run, or with control characters")


def _events(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(folder / KIND / DATA / "*.parquet")


def _codes(folder: Path) -> pl.LazyFrame:
    return _events(folder).select("code").unique()


def _count(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect(engine="streaming").item())


def _said(count: int, what: str) -> list[str]:
    return [f"{count:,} {what}"] if count else []
