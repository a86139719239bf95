"""Small simulated tables, free to be spoilt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fairsynth.config import SimulationConfig
from fairsynth.simulate import simulate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 simulated children."""
    folder = tmp_path_factory.mktemp("tables") / "raw"
    simulate(SimulationConfig(source="pic", patients=300, seed=3, mix="study", detail=0.02), folder)
    return folder


@pytest.fixture
def site(simulated: Path, tmp_path: Path) -> Path:
    """A folder with `raw` and `config`, free to be spoilt."""
    shutil.copytree(simulated, tmp_path / "raw")
    shutil.copytree(ROOT / "site_configs" / "pic", tmp_path / "config")
    return tmp_path
