"""Rules of the house that no single package can check."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("fairsynth", "server", "client", "benchmarks") for path in (ROOT / folder).rglob("*.py")]


def test_imports_point_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_only_one_library_module_imports_flower():
    importing = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fairsynth").rglob("*.py")
        if any(name.split(".")[0] == "flwr" for name in _imports(path))
    }
    assert importing == {"fairsynth/federation/flower.py"}


def test_the_legacy_api_of_flower_is_not_used():
    legacy = re.compile(r"flwr\.(client|server|common|simulation)\b|NumPyClient|start_server|start_client|ServerConfig")
    assert [path for path in SOURCES if legacy.search(path.read_text(encoding="utf-8"))] == []


def test_nothing_can_unpickle():
    banned = {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}
    assert [path for path in SOURCES if banned & {name.split(".")[0] for name in _imports(path)}] == []


def test_the_flower_halves_are_thin():
    files = [*(ROOT / "server").glob("*.py"), *(ROOT / "client").glob("*.py")]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    assert lines <= 330
    assert not {"torch", "numpy"} & {name.split(".")[0] for path in files for name in _imports(path)}


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^    make ([a-z]+)", readme, flags=re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))


def test_links_between_documents_lead_somewhere():
    broken = []
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        missing = (target for target in targets if "://" not in target and not (path.parent / target).exists())
        broken.extend(f"{path.name} -> {target}" for target in missing)
    assert broken == []


def test_no_text_names_a_folder_of_one_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    personal = re.compile("/" + r"(work|home|root|Users)/[a-z]")
    texts = [ROOT / name for name in listed if (ROOT / name).suffix in {".py", ".md", ".yaml", ".toml", ".txt", ""}]
    assert [path for path in texts if path.is_file() and personal.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_wheel_holds_the_library_and_nothing_else(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"fairsynth", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names
