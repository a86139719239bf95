"""Two small simulations that the tests of this folder share."""

from pathlib import Path

import polars as pl
import pytest

from fairsynth.config import SimulationConfig
from fairsynth.simulate import simulate

PATIENTS = 1500


def read(folder: Path) -> dict[str, pl.DataFrame]:
    """All tables of a folder, every column as text."""
    return {path.stem: pl.read_csv(path, infer_schema_length=0) for path in sorted(folder.glob("*.csv"))}


@pytest.fixture(scope="session")
def mimic3_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "mimic3"
    simulate(SimulationConfig(source="mimic3", patients=PATIENTS, detail=0.1), folder)
    return folder


@pytest.fixture(scope="session")
def pic_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "pic"
    simulate(SimulationConfig(source="pic", patients=PATIENTS, detail=0.1), folder)
    return folder


@pytest.fixture(scope="session")
def mimic3(mimic3_folder):
    return read(mimic3_folder)


@pytest.fixture(scope="session")
def pic(pic_folder):
    return read(pic_folder)
