"""Folders of made-up tables."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Row = Iterable[object]


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of docs/new-hospital/made_up_hospital.py."""
    folder = tmp_path_factory.mktemp("made_up") / "raw"
    runpy.run_path(str(ROOT / "docs" / "new-hospital" / "made_up_hospital.py"))["main"](folder)
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes CSV files of the given header and rows, and gives the folder."""

    def write(**files: list[Row]) -> Path:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for name, rows in files.items():
            text = "\n".join(",".join(map(str, row)) for row in rows) + "\n"
            (folder / f"{name}.csv").write_text(text, encoding="utf-8")
        return folder

    return write
