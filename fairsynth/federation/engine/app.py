"""Where the Flower app is: the folder whose `pyproject.toml` names its components."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import fairsynth
from fairsynth.errors import EngineError

_COMPONENTS = {"serverapp": "server.app:app", "clientapp": "client.app:app"}


def find_app() -> Path:
    """The repository root: the current folder or one above it, else the one that the installed library lies in.

    Raises EngineError when neither is a clone of FairSynth.
    """
    for folder in _candidates():
        if _is_app(folder / "pyproject.toml"):
            return folder
    raise EngineError.of(
        "the Flower app was not found",
        where=str(Path.cwd()),
        expected="a clone of FairSynth, with pyproject.toml, server/ and client/",
        do="run from inside a clone; the installed library alone does not hold the app that sites run",
    )


def _candidates() -> Iterator[Path]:
    here = Path.cwd()
    yield here
    yield from here.parents
    yield Path(fairsynth.__file__).resolve().parent.parent


def _is_app(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError):
        return False
    components = value.get("tool", {}).get("flwr", {}).get("app", {}).get("components")
    return bool(components == _COMPONENTS)
