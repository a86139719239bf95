"""What is installed here: versions, and packages that could stand in the app's way.

In:  the installed packages, the versions that the coordinator has where they are known.   Out: findings.
Never: a request to a package registry; an import of another's package.
"""

from __future__ import annotations

import importlib.machinery
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import fairsynth
from fairsynth.artefacts import VERSIONED
from fairsynth.operations.findings import Finding, failed, ok, skipped, warning

VERSIONS, EQUAL, APP = "versions", "versions at the server", "app's packages"
COMPARED = VERSIONED
APP_PACKAGES = ("server", "client")
INSTALL = "install FairSynth with the coordinator's lock file (docs/supply_chain.md)"


def versions_here() -> dict[str, str]:
    """The versions that a study's result depends on; empty text where a package is missing."""
    return {name: _version(name) for name in COMPARED} | {"python": platform.python_version()}


def versions_finding() -> Finding:
    """Whether every package that FairSynth needs is here, in a version that it takes."""
    here = versions_here()
    try:
        needed = metadata.requires("fairsynth") or []
    except metadata.PackageNotFoundError:
        return failed(VERSIONS, "FairSynth is not installed as a package", do=INSTALL)
    unfit = [told for told in map(_unfit, needed) if told]
    if unfit:
        return failed(VERSIONS, f"unfit: {', '.join(unfit)}", do=INSTALL)
    return ok(VERSIONS, ", ".join(f"{name} {version}" for name, version in here.items()))


def equal_finding(there: Mapping[str, str]) -> Finding:
    """Whether the versions here are those of the server, as far as the site was told of them."""
    here = versions_here()
    if not there:
        line = ", ".join(f"{name} {here[name]}" for name in COMPARED)
        because = "not compared, connection.json does not name the server's versions; compare with the coordinator"
        return skipped(EQUAL, f"{because}: {line}")
    other = [
        f"{name} {here[name] or 'missing'} here, {told} there" for name, told in _common(there) if here[name] != told
    ]
    if any(name.startswith(("fairsynth ", "flwr ")) for name in other):
        return failed(EQUAL, "; ".join(other), do=INSTALL)
    if other:
        return warning(EQUAL, "; ".join(other), do=f"{INSTALL}: results are equal to the bit only with equal versions")
    missing = [name for name in (*COMPARED, "python") if name not in there]
    said = f"equal: {', '.join(name for name, _ in _common(there))}"
    return ok(EQUAL, f"{said}; not told by the server: {', '.join(missing)}" if missing else said)


def app_finding(path: Sequence[str], *, imported: Sequence[str] = ()) -> Finding:
    """Whether another package on `path` has a name of the app's own two, which Flower imports beside it."""
    own = Path(fairsynth.__file__).resolve().parents[1]  # a development installation has the app beside the library
    found = {name: place for name in APP_PACKAGES if (place := _place(name, path)) and place != own}
    if taken := [name for name in APP_PACKAGES if name in imported and name in found]:
        do = f"remove what imports {' and '.join(taken)} at the start of Python (a .pth file, sitecustomize)"
        return failed(APP, f"a package named {' and '.join(taken)} is imported already: the app cannot load", do=do)
    if found:
        said = ", ".join(f"{name} in {place}" for name, place in found.items())
        return warning(APP, f"another package of the app's name: {said}", do="give FairSynth an environment of its own")
    return ok(APP, "no other package is named server or client")


def search_path() -> list[str]:
    """Where a Flower process of this environment looks for packages: not beside a script, nor in the present folder."""
    script = str(Path(sys.argv[0]).resolve().parent) if sys.argv and sys.argv[0] else ""
    return [entry for entry in sys.path if entry and str(Path(entry).resolve()) not in (script, str(Path.cwd()))]


def _common(there: Mapping[str, str]) -> list[tuple[str, str]]:
    """What can be compared, in our order."""
    return [(name, there[name]) for name in (*COMPARED, "python") if name in there]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _unfit(line: str) -> str:
    """What is wrong with an installed requirement; empty where nothing is, or where it is for another environment."""
    requirement = Requirement(line)
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return ""
    version = _version(requirement.name)
    if not version:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} {version} is not {requirement.specifier}"
    return ""


def _place(name: str, path: Sequence[str]) -> Path | None:
    """The folder that a package of this name would come from; folders without `__init__` give way, and do not count."""
    spec = importlib.machinery.PathFinder.find_spec(name, list(path))
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin).resolve()
    return place.parents[1] if place.name == "__init__.py" else place.parent
