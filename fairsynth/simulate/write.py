"""A simulation -> plain CSV tables in a folder, as a hospital would hand them over.

In:  a `SimulationConfig`, a folder that is absent or empty.   Out: the source's tables, a `SimulationSummary`.
Never: the latent truth, or anything else that the source does not ship, in the folder; a half-written folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl

from fairsynth.config import SimulationConfig
from fairsynth.errors import ConfigError
from fairsynth.simulate import mimic3, pic
from fairsynth.simulate.source import load
from fairsynth.simulate.truth import parts

SCHEMAS = {"mimic3": mimic3, "pic": pic}


@dataclass(frozen=True, kw_only=True)
class SimulationSummary:
    """What was written; `patients` can be fewer than asked where under-representation is simulated."""

    source: str
    patients: int
    admissions: int
    deaths: int  # recorded in hospital
    rows: dict[str, int]  # of each table

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.patients:,} simulated patients, {self.admissions:,} admissions, "
            f"{self.deaths:,} in-hospital deaths, {sum(self.rows.values()):,} rows in {len(self.rows)} tables"
        )


def full_size(config: SimulationConfig) -> SimulationConfig:
    """`config` with as many patients as its source has."""
    return config.model_copy(update={"patients": load(config.source).settings.patients})


def simulate(config: SimulationConfig, folder: Path) -> SimulationSummary:
    """Write the raw tables of `config` into `folder`: all of them, or nothing.

    The same config gives the same bytes. Raises ConfigError if `folder` is a file or not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError.of(
            "folder not empty", where=str(folder), expected="a folder that is absent or empty", do="name another folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        summary = _write_tables(config, temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


class _Table:
    """One open CSV file that grows by chunks and numbers its rows."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.rows = 0
        self._columns = columns
        self._handle: BinaryIO = path.open("wb")
        self._handle.write((",".join(columns) + "\n").encode())

    def append(self, frame: pl.DataFrame) -> None:
        """Write `frame`, whose columns may come in any order, with the next row numbers."""
        numbered = frame.with_row_index("ROW_ID", offset=self.rows + 1).select(self._columns)
        numbered.write_csv(self._handle, include_header=False, datetime_format="%Y-%m-%d %H:%M:%S")
        self.rows += frame.height

    def close(self) -> None:
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()


def _write_tables(config: SimulationConfig, folder: Path) -> SimulationSummary:
    schema = SCHEMAS[config.source]
    tables = {name: _Table(folder / f"{name}.csv", columns) for name, columns in schema.COLUMNS.items()}
    deaths = 0
    try:
        for name, frame in schema.dictionaries(load(config.source)).items():
            tables[name].append(frame)
        for part in parts(config):
            for name, frame in schema.chunk(part, config):
                tables[name].append(frame)
            deaths += int((part.planned.visits.recorded & part.seen).sum())
    finally:
        for table in tables.values():
            table.close()
    rows = {name: table.rows for name, table in tables.items()}
    return SimulationSummary(
        source=config.source, patients=rows["PATIENTS"], admissions=rows["ADMISSIONS"], deaths=deaths, rows=rows
    )
