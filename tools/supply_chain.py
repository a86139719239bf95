"""What FairSynth is made of: known vulnerabilities, licences, a bill of materials and a lock of what it needs to run.

    python -m tools.supply_chain audit|licences|sbom|lock --tools .venv-tools/bin --out build

In:  the environment of the Python that runs this, where FairSynth is installed.   Out: reports under `build/`.
Never: a pass when nothing could be looked up; a package that only development needs.

Exit codes: 0 sound, 1 something is wrong, 3 nothing could be looked up (audit without its database).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NAME = "fairsynth"
SOUND, WRONG, UNKNOWN = 0, 1, 3
PERMITTED = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|Zlib|CC0|Public Domain|BSL-1\.0|HPND)"
)
COPYLEFT = re.compile(r"GPL|General Public|Affero", re.IGNORECASE)
# Packages that may come with another licence, and why: name -> reason.
ACCEPTED: Mapping[str, str] = {}


def runtime(root: str = NAME) -> dict[str, str]:
    """Name -> version of all that `root` needs to run here, `root` itself left out; by the packages' own metadata."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name).version
        except PackageNotFoundError:
            if name == root:
                raise SystemExit(f"{root} is not installed in {sys.prefix}: make install") from None
            continue  # what another platform needs
        for text in requires(name) or ():
            need = Requirement(text)
            wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
            if wanted:
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    found.pop(root, None)
    return dict(sorted(found.items()))


def audited(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """What a report of pip-audit means: a package that it skipped is not known to be sound."""
    packages = report["dependencies"]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    bad = [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version yet'}"
        for one in packages
        for flaw in one.get("vulns", ())
    ]
    if bad:
        return WRONG, [f"{len(bad)} known vulnerabilities", *bad]
    if skipped:
        return UNKNOWN, [
            f"NO DATABASE REACHABLE: {len(skipped)} of {len(packages)} packages could not be looked up.",
            "Nothing is known of them; this is not a pass. Run it where the vulnerability database can be reached.",
        ]
    return SOUND, [f"no known vulnerability in {len(packages)} packages"]


def licensed(packages: Iterable[Mapping[str, str]]) -> tuple[int, list[str]]:
    """Whether every package has a licence that asks for no more than its text to be kept."""
    found = list(packages)
    bad = [
        f"{one['Name']} {one['Version']}: {one['License']}"
        for one in found
        if canonicalize_name(one["Name"]) not in ACCEPTED
        and (COPYLEFT.search(one["License"]) or not PERMITTED.search(one["License"]))
    ]
    if bad:
        return WRONG, [
            "licences that are copyleft or unknown; accept one in tools/supply_chain.py with a reason:",
            *bad,
        ]
    return SOUND, [f"{len(found)} packages, all with permissive licences"]


def narrowed(bill: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A CycloneDX bill of materials of an environment, reduced to `names`."""
    kept = set(names)
    components = [one for one in bill.get("components", ()) if canonicalize_name(one["name"]) in kept]
    references = {one["bom-ref"] for one in components} | {
        str(bill.get("metadata", {}).get("component", {}).get("bom-ref"))
    }
    dependencies = [
        {**one, "dependsOn": [other for other in one.get("dependsOn", ()) if other in references]}
        for one in bill.get("dependencies", ())
        if one["ref"] in references
    ]
    return {**bill, "components": components, "dependencies": dependencies}


def audit(tools: Path, out: Path) -> tuple[int, list[str]]:
    """Ask pip-audit's database of every runtime package; of one first, so that offline nothing else is asked."""
    packages = runtime()
    first = dict([next(iter(packages.items()))])
    code, lines = _ask_database(tools, out, first)
    if code == UNKNOWN:
        lines[0] = f"NO DATABASE REACHABLE: none of {len(packages)} packages could be looked up."
        return code, lines
    return _ask_database(tools, out, packages)


def licences(tools: Path, out: Path) -> tuple[int, list[str]]:
    """Write `licences.json`, and judge it."""
    names = runtime()
    found = json.loads(
        _run([tools / "pip-licenses", "--python", sys.executable, "--with-system", "--format=json"]).stdout
    )
    packages = [one for one in found if canonicalize_name(one["Name"]) in names]
    if missing := sorted(set(names) - {canonicalize_name(one["Name"]) for one in packages}):
        return WRONG, ["packages of which the licence report says nothing:", *missing]
    (out / "licences.json").write_text(json.dumps(packages, indent=2) + "\n", encoding="utf-8")
    return licensed(packages)


def sbom(tools: Path, out: Path) -> tuple[int, list[str]]:
    """Write `sbom.json`, CycloneDX, of what FairSynth needs to run."""
    names = runtime()
    command = [tools / "cyclonedx-py", "environment", "--output-format", "JSON", "--pyproject", "pyproject.toml"]
    bill = narrowed(json.loads(_run([*command, sys.executable]).stdout), names)
    if missing := sorted(set(names) - {canonicalize_name(one["name"]) for one in bill["components"]}):
        return WRONG, ["packages that the bill of materials lacks:", *missing]
    (out / "sbom.json").write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    return SOUND, [f"{out / 'sbom.json'}: {len(bill['components'])} packages"]


def locked(report: Mapping[str, Any], *, leave_out: str = NAME) -> tuple[int, list[str]]:
    """The lines of a requirements file with hashes, of what pip's report would install; WRONG where one has no hash."""
    lines, bare = [], []
    for one in sorted(report["install"], key=lambda one: canonicalize_name(one["metadata"]["name"])):
        name, found = canonicalize_name(one["metadata"]["name"]), one["download_info"].get("archive_info", {})
        if name == leave_out:
            continue
        digest = found.get("hashes", {}).get("sha256")
        lines.append(f"{name}=={one['metadata']['version']} --hash=sha256:{digest}")
        bare += [] if digest else [name]
    return (WRONG, ["packages without a hash:", *bare]) if bare else (SOUND, lines)


def lock(_: Path, out: Path) -> tuple[int, list[str]]:
    """Write `requirements.lock`, for `pip install --require-hashes`: the wheels that pip takes on this platform."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    report = out / "pip-report.json"
    _run([*command, "--constraint", "constraints.txt", "--report", report, "."])
    code, lines = locked(json.loads(report.read_text(encoding="utf-8")))
    if code == SOUND:
        (out / "requirements.lock").write_text("\n".join(lines) + "\n", encoding="utf-8")
        lines = [f"{out / 'requirements.lock'}: {len(lines)} packages with hashes"]
    return code, lines


def _ask_database(tools: Path, out: Path, packages: Mapping[str, str]) -> tuple[int, list[str]]:
    (out / "runtime.txt").write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
    command = [tools / "pip-audit", "--requirement", out / "runtime.txt", "--no-deps", "--disable-pip"]
    result = _run([*command, "--format=json", "--progress-spinner=off"], check=False)
    try:
        report = json.loads(result.stdout)
    except ValueError:
        return UNKNOWN, ["NO DATABASE REACHABLE: pip-audit gave no report.", *result.stderr.splitlines()[-1:]]
    (out / "audit.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return audited(report)


def _run(command: list[Any], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=check)


COMMANDS: Mapping[str, Callable[[Path, Path], tuple[int, list[str]]]] = {
    "audit": audit,
    "licences": licences,
    "lock": lock,
    "sbom": sbom,
}


def main() -> None:
    """Run one command, say what it found, and exit by it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("--tools", type=Path, required=True, help="folder of pip-audit, pip-licenses and cyclonedx-py")
    parser.add_argument("--out", type=Path, default=Path("build"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    code, lines = COMMANDS[arguments.command](arguments.tools, arguments.out)
    print("\n".join(f"{arguments.command}: {line}" for line in lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
