"""A killed extract leaves nothing that looks finished; a finished one is kept until something that it read changes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from extraction_accounts import assert_nobody_is_lost

from fairsynth.artefacts import MANIFEST, read_manifest
from fairsynth.config import SimulationConfig
from fairsynth.extraction import extract
from fairsynth.simulate import simulate

CHILD = """
import sys
from pathlib import Path
from fairsynth.extraction import extract, shards
shards.HELD_EVENTS = 1000  # so that the spool has files
print("ready", flush=True)
extract(Path(sys.argv[1]), config=Path(sys.argv[2]), root=Path(sys.argv[3]))
"""


def simulated(folder: Path, *, patients: int, detail: float) -> Path:
    """Tables of made-up patients."""
    config = SimulationConfig(source="mimic3", patients=patients, seed=3, mix="study", detail=detail)
    simulate(config, folder / "tables")
    return folder / "tables"


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """6 MB."""
    return simulated(tmp_path_factory.mktemp("tables"), patients=400, detail=0.3)


@pytest.fixture
def start(mimic3):
    """A function that starts an extract in a process of its own, and gives it once it is on its way."""
    running = []

    def run(tables: Path, root: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", CHILD, str(tables), str(mimic3), str(root)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield run
    for child in running:
        child.kill()
        child.wait()
        child.stdout.close()


def kill(child: subprocess.Popen) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()


def content(events: Path) -> str:
    """The hash of an artefact's files; they are those that were written."""
    return read_manifest(events, kind="events", verify=True)["content"]


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def touch_a_cell(tables: Path) -> None:
    """Change one cell of the patients table."""
    path = tables / "PATIENTS.csv"
    path.write_text(path.read_text().replace(",F,", ",M,", 1))


@pytest.fixture
def copied(tables, tmp_path) -> Path:
    """Tables that a test may change."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for path in tables.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("moment", ["spool/*.arrows", "data/*.parquet", "metadata/codes.parquet"])
def test_a_killed_extract_leaves_the_older_events_and_the_next_one_cleans_up(moment, copied, start, mimic3, tmp_path):
    root = tmp_path / "site"
    older = content(extract(copied, config=mimic3, root=root))
    touch_a_cell(copied)
    child = start(copied, root)
    while child.poll() is None and not any(root.glob(f".events.*/{moment}")):
        time.sleep(0.001)
    kill(child)
    found = content(root / "events")  # whole; another than the older one only if the child was quicker
    if found == older:
        assert len(names(root)) > 1  # what the child had begun
    out = extract(copied, config=mimic3, root=root)
    assert names(root) == ["events"]
    assert content(out) == content(extract(copied, config=mimic3, root=tmp_path / "afresh")) != older
    assert_nobody_is_lost(out)


def test_a_killed_first_extract_leaves_no_events(tables, start, mimic3, tmp_path):
    root = tmp_path / "site"
    child = start(tables, root)
    while child.poll() is None and not any(root.glob(".events.*/spool/*.arrows")):
        time.sleep(0.001)
    kill(child)
    assert not (root / "events").exists()
    extract(tables, config=mimic3, root=root)
    assert names(root) == ["events"]


def test_what_a_killed_extract_left_is_removed_even_where_nothing_is_to_be_done(tables, mimic3, tmp_path):
    root = tmp_path / "site"
    extract(tables, config=mimic3, root=root)
    (root / ".events.left" / "spool").mkdir(parents=True)
    extract(tables, config=mimic3, root=root)
    assert names(root) == ["events"]


@pytest.mark.slow
def test_an_extract_of_158_megabytes_can_be_killed_at_any_moment(start, mimic3, tmp_path):
    tables = simulated(tmp_path, patients=3000, detail=1.0)
    root = tmp_path / "site"
    begin = time.monotonic()
    start(tables, tmp_path / "afresh").wait()
    whole, seconds = content(tmp_path / "afresh" / "events"), time.monotonic() - begin
    for moment in range(1, 12):
        child = start(tables, root)
        time.sleep(seconds * moment / 12)
        kill(child)
        if (root / "events").exists():
            assert content(root / "events") == whole
    assert content(extract(tables, config=mimic3, root=root)) == whole
    assert names(root) == ["events"]


# --- kept, or made again ---------------------------------------------------------------------------------------------


@pytest.fixture
def config(mimic3, tmp_path) -> Path:
    """A configuration that a test may change."""
    folder = tmp_path / "config"
    folder.mkdir()
    for name in ("site.yaml", "rules.yaml"):
        (folder / name).write_bytes((mimic3 / name).read_bytes())
    return folder


def add(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data/LABEVENTS.csv", "101,7001,50912,2150-01-03 09:00:00,1.3,mg/dL\n"),
        ("data/D_LABITEMS.csv", "50960,Magnesium,2601-3\n"),
        ("config/rules.yaml", "# a remark\n"),
        ("config/site.yaml", "maximum_unreadable_share: 0.1\n"),
    ],
)
def test_events_are_made_again_when_what_they_came_from_changes(name, text, make_data, config, tmp_path):
    data = make_data()
    first = (extract(data, config=config, root=tmp_path / "site") / MANIFEST).stat().st_mtime_ns
    add(tmp_path / name, text)
    assert (extract(data, config=config, root=tmp_path / "site") / MANIFEST).stat().st_mtime_ns > first


def test_events_are_kept_while_contents_are_the_same(make_data, config, tmp_path):
    data = make_data()
    out = extract(data, config=config, root=tmp_path / "site")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    os.utime(data / "LABEVENTS.csv")
    (data / "NOTEEVENTS.csv").write_text("a table that no rule names\n")
    (config / "groups.yaml").write_text("# not read here\n")
    extract(data, config=config, root=tmp_path / "site")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_damaged_manifest_is_an_artefact_to_be_made_again(make_data, config, tmp_path):
    data = make_data()
    out = extract(data, config=config, root=tmp_path / "site")
    whole = content(out)
    (out / MANIFEST).write_text("{")
    assert content(extract(data, config=config, root=tmp_path / "site")) == whole
