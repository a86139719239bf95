"""What `flwr run` sends to the sites: exactly these files."""

from __future__ import annotations

import ast
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from fairsynth.augmentation import mixing
from fairsynth.federation import plans
from fairsynth.federation.engine import find_app

ROOT = Path(__file__).resolve().parents[2]


def test_the_app_bundle_holds_two_thin_folders_and_nothing_else():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pathspec, in Flower
        bundle_bytes = build_fab_from_disk(ROOT)
    with zipfile.ZipFile(BytesIO(bundle_bytes)) as bundle:
        names = set(bundle.namelist())
    assert names == {
        "pyproject.toml",
        ".info/CONTENT",
        "client/__init__.py",
        "client/app.py",
        "client/session.py",
        "server/__init__.py",
        "server/app.py",
        "server/transport.py",
    }


def test_the_two_halves_stay_thin_and_import_no_torch():
    files = [*ROOT.glob("server/*.py"), *ROOT.glob("client/*.py")]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 300
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                assert node.level or not (node.module or "").startswith(("server", "client"))
            assert not any(name.split(".")[0] == "torch" for name in names)


def test_the_app_is_found_from_a_folder_below_and_from_anywhere_by_the_installed_library(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT / "tests" / "federation")
    assert find_app() == ROOT
    monkeypatch.chdir(tmp_path)
    assert find_app() == ROOT


def test_server_and_sites_name_the_approaches_alike():
    assert plans.APPROACHES == mixing.APPROACHES
