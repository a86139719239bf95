"""Whether the FairSynth that is installed can go on with a folder that another version wrote.

In:  a folder of a server, a site or a coordinator.   Out: findings, each with what to do.
Never: a change in the folder; a promise about a version that is not installed: ask it with that version's own command.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fairsynth import artefacts, plain_json
from fairsynth.artefacts import software_versions
from fairsynth.config import Strict, StudyPlan
from fairsynth.errors import ArtefactError, FairSynthError
from fairsynth.federation import activity, journal
from fairsynth.federation.boundary import has_budget, place_of
from fairsynth.federation.server_folder import EXCHANGES, FINISHED, PLAN, ROUNDS, STUDY, is_taken
from fairsynth.federation.site_folder import read_plan
from fairsynth.governance import approval, budget, ledger
from fairsynth.governance.budget import Budget, Limit
from fairsynth.governance.policy import read_policy
from fairsynth.operations.checks_software import versions_here
from fairsynth.operations.findings import Finding, failed, guarded, ok, skipped, warning
from fairsynth.operations.folders import Folder, find_folder
from fairsynth.provisioning import documents
from fairsynth.provisioning.connection import CONNECTION, read_connection, read_server
from fairsynth.provisioning.documents import Grant, Kit
from fairsynth.provisioning.records import SiteRecord

_OTHER = "install that version again; what it wrote is not converted"
_AS_IT_WAS = "finish the study with the versions that it began with, then upgrade; or begin it anew in another folder"


def examine(path: Path) -> Iterator[Finding]:
    """What is found at the folder `path`. Raises ConfigError when it is none of FairSynth's."""
    folder = find_folder(path)
    yield ok("installed", ", ".join(f"{name} {version}" for name, version in versions_here().items()))
    yield from {"server": _server, "site": _site, "coordinator": _coordinator}[folder.kind](folder)


def _server(folder: Folder) -> Iterator[Finding]:
    root = folder.root
    yield guarded(PLAN, lambda: _read(PLAN, StudyPlan.model_validate(plain_json.read(root / PLAN)).name))
    yield guarded("server", lambda: _nobody(root))
    yield guarded("study", lambda: _study(root))
    written = [root / name for name in ("generator-plain", "generator-fairsynth", "terms", "audit")]
    for part in (ROUNDS, EXCHANGES):
        written += sorted((root / part).glob("[!.]*"))
    yield guarded("artefacts", lambda: _artefacts(written))
    if (root / activity.NAME).is_file() and activity.read(root) is None:
        yield ok(activity.NAME, "of another version; the next study writes it anew", do="nothing")


def _nobody(root: Path) -> Finding:
    if is_taken(root):
        return failed("server", "a server works here now", do="wait until the study has finished")
    return ok("server", "none works here now")


def _study(root: Path) -> Finding:
    """An unfinished study forbids every version but its own: another gives other last bits."""
    found = journal.scan(root / journal.NAME)
    if found.damaged is not None:
        do = "fairsynth study ... --resume, with the versions that it began with, mends it; then ask again"
        return failed("study", f"damaged journal, line {found.damaged}", do=do)
    if not found.events:
        return ok("study", "none has begun")
    if found.events[-1]["event"] == FINISHED:
        return ok("study", "finished: the report can be written again, nothing is resumed")
    began = next((event for event in reversed(found.events) if event["event"] == STUDY), {})
    then, now = began.get("versions", {}), software_versions()
    other = [f"{name} {then[name]} then, {now.get(name)} now" for name in sorted(then) if then[name] != now.get(name)]
    if other:
        return failed("study", f"unfinished, and begun with other versions: {'; '.join(other)}", do=_AS_IT_WAS)
    do = "go on with it before you install anything else: fairsynth study ... --resume"
    return warning("study", "unfinished, and begun with the versions that are installed", do=do)


def _site(folder: Folder) -> Iterator[Finding]:
    root = folder.root
    yield guarded("site.json", lambda: _read("site.json", f"site {place_of(root).site}"))
    if (root / CONNECTION).is_file():
        yield guarded(CONNECTION, lambda: _connection(root))
    yield guarded("policy", lambda: _read("policy", read_policy(place_of(root).config).sha256[:12]))
    yield guarded("approvals", lambda: _read("approvals", f"{len(list(approval.list_approvals(root)))}"))
    yield guarded("ledger", lambda: _ledger(root))
    if has_budget(root):
        yield guarded("privacy budget", lambda: _budget(root))
    if (root / PLAN).is_file():
        yield guarded("study", lambda: _joined(read_plan(root)))
    written = [root / name for name in ("events", "visits", "cohort")]
    yield guarded("artefacts", lambda: _artefacts(written))


def _joined(plan: StudyPlan) -> Finding:
    """A site cannot know whether the study that it enrolled for is over."""
    do = "ask the coordinator whether it has finished; while it has not, keep the version that it began with"
    return warning("study", f"enrolled for {plan.name}", do=do)


def _connection(root: Path) -> Finding:
    return _read(CONNECTION, f"consortium {read_connection(root).consortium}")


def _ledger(root: Path) -> Finding:
    if not (root / ledger.NAME).is_file():
        return ok("ledger", "empty")
    fault = ledger.find_fault(root)
    if fault is not None:
        return failed("ledger", f"line {fault.line}: {fault.what}", do=_OTHER)
    return ok("ledger", f"{len(ledger.read(root))} lines, all read")


def _budget(root: Path) -> Finding:
    entries = Budget(root, limit=Limit(epsilon=1.0, delta=1e-6)).entries()
    unread = [number for number, entry in enumerate(entries, start=1) if not budget.is_known(entry)]
    if unread:
        return failed("privacy budget", f"{budget.NAME}:{unread[0]} is of an unknown kind", do=_OTHER)
    return ok("privacy budget", f"{len(entries)} charges, all read")


def _coordinator(folder: Folder) -> Iterator[Finding]:
    root = folder.root
    yield guarded("server.json", lambda: _read("server.json", read_server(root).facts.consortium))
    models: dict[str, type[Strict]] = {"sites": SiteRecord, "kits": Kit, "grants": Grant}
    for name, model in models.items():
        for path in sorted((root / name).glob("*.json")):
            yield guarded(f"{name}/{path.name}", partial(_document, path, model))


def _document(path: Path, model: type[Strict]) -> Finding:
    documents.read(path, model, error=ArtefactError)
    return ok(f"{path.parent.name}/{path.name}", "read")


def _read(name: str, said: str) -> Finding:
    return ok(name, f"read: {said}")


def _artefacts(folders: list[Path]) -> Finding:
    """Which versions wrote them, and whether this one reads their schema."""
    there = [folder for folder in folders if folder.is_dir()]
    if not there:
        return skipped("artefacts", "there are none")
    versions: set[str] = set()
    for folder in there:
        try:
            versions.add(str(_manifest(folder)))
        except FairSynthError as error:
            return failed("artefacts", f"{folder}: {error.problems[0].what}", do=_OTHER)
    return ok("artefacts", f"{len(there)} read, written by fairsynth {', '.join(sorted(versions))}")


def _manifest(folder: Path) -> str:
    return str(artefacts.read_manifest(folder, kind=folder.name).get("code_version", "unknown"))
