"""The tiny tables of extraction_tables.py on disk, and the site configurations that read them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from extraction_tables import TABLES

ROOT = Path(__file__).resolve().parents[2]

Site = Callable[..., Path]


@pytest.fixture
def mimic3() -> Path:
    """The site configuration for MIMIC-III."""
    return ROOT / "site_configs" / "mimic3"


@pytest.fixture
def pic() -> Path:
    """The site configuration for PIC."""
    return ROOT / "site_configs" / "pic"


@pytest.fixture
def make_data(tmp_path: Path) -> Site:
    """A function that writes the tiny tables, some replaced or left out (None), and gives the folder."""

    def make(folder: str = "data", **changed: str | bytes | None) -> Path:
        data = tmp_path / folder
        data.mkdir()
        for name, content in (TABLES | changed).items():
            if content is not None:
                (data / f"{name}.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        return data

    return make


@pytest.fixture
def tiny_tables() -> dict[str, str]:
    """The tables by name, as text."""
    return dict(TABLES)
