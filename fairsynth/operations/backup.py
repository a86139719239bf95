"""What of a folder goes into a backup.

In:  a folder of a server, a site or a coordinator; a study may run there.   Out: one file (`archive`).
Never: raw tables; a mask's key, noise that was drawn or what was sent of a site: put back, they would be used twice;
a patient's record, unless the cohort is asked for; a round or an exchange that is not whole.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fairsynth import artefacts, plain_json
from fairsynth.errors import ArtefactError, ConfigError, LedgerDamaged
from fairsynth.federation import journal
from fairsynth.federation.boundary import place_of
from fairsynth.federation.server_folder import EXCHANGES, PLAN, ROUNDS
from fairsynth.governance import approval, budget, ledger
from fairsynth.governance.identity import PRIVATE, load_identity
from fairsynth.operations import archive
from fairsynth.operations.archive import Archive
from fairsynth.operations.checks_software import versions_here
from fairsynth.operations.folders import Folder, find_folder

_SERVER_FILES = (PLAN, "run.json", "asked-plan.json", "roster.json", "enrolment.json", journal.NAME)
_SERVER_FOLDERS = ("generator-plain", "generator-fairsynth", "terms", "audit")  # artefacts, in place once and whole
_SITE_FILES = (
    "site.json",
    "identity.key",
    "identity.pub",
    "supernode.key",
    "supernode.pub",
    "superexec.secret",
    "ca.crt",
    "request.json",
    "connection.json",
    "roster.json",
    "plan.json",
    ledger.NAME,
    ledger.HEAD,
    budget.NAME,  # after the ledger: it may know of more, never of less
)
RELEASE_RUNS = "release-runs.jsonl"  # of `synthesis.release.runs`, which lies above this package
_COHORT = ("events", "visits", "cohort", "audit", "home", "generator", "shared.json")
_ATTEMPTS = 3  # to read a round that a running server takes away meanwhile


def backup(path: Path, out: Path, *, with_cohort: bool = False) -> Archive:
    """Write the backup of the folder at `path` to `out`.

    Raises ConfigError when the folder is none, or `out` is in it; LedgerDamaged of a site whose ledger is not sound;
    ArtefactError when a file cannot be read, or `out` is there already.
    """
    folder, out = find_folder(path), out.resolve()
    if out.is_relative_to(path.resolve()):
        raise ConfigError.of("backup inside the folder itself", where=str(out), do="another --out, on another disk")
    if not out.parent.is_dir():
        raise ConfigError.of("missing folder", where=str(out.parent), do="make it, of mode 0700")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".backup.") as aside:  # mode 0700
        stage = Path(aside)
        collect = {"server": _server, "site": _site, "coordinator": _coordinator}[folder.kind]
        name = collect(folder, stage, with_cohort)
        files = {one.relative_to(stage).as_posix(): one for one in sorted(stage.rglob("*")) if one.is_file()}
        return archive.write(out, files, kind=folder.kind, name=name, versions=versions_here())


def _server(folder: Folder, stage: Path, _: bool) -> str:
    """Rounds, then exchanges, then the journal: what is younger than the rounds is played again when it is resumed."""
    root = folder.root
    for part in (ROUNDS, EXCHANGES):
        for one in _folders(root / part):
            _copy_artefact(one, stage / part / one.name)
    for name in _SERVER_FOLDERS:
        if (root / name).is_dir():
            _copy_artefact(root / name, stage / name)
    _copy_files(root, stage, _SERVER_FILES)
    found = journal.scan(stage / journal.NAME)
    if found.damaged is not None and not any(_folders(stage / ROUNDS)):
        raise ArtefactError.of(
            "damaged journal, and no committed round to mend it from",
            where=f"{root / journal.NAME}, line {found.damaged}",
            expected="a folder that a study can be resumed from",
        )
    return str(plain_json.read(stage / PLAN)["name"])


def _site(folder: Folder, stage: Path, with_cohort: bool) -> str:
    """Under the ledger's lock, so that no message leaves between ledger, head and budget."""
    root = folder.root
    place = place_of(root)
    if (root / PRIVATE).exists():
        with ledger.opened(root, identity=load_identity(root)):
            _copy_files(root, stage, _SITE_FILES)
            _copy_all(root / approval.FOLDER, stage / approval.FOLDER)
            _copy_files(root, stage, (RELEASE_RUNS,))
            for torn in sorted(root.glob(f"{ledger.TORN}.*")):
                _copy(torn, stage / torn.name)
        fault = ledger.find_fault(stage)
        if fault is not None:
            raise LedgerDamaged.of(
                f"ledger damaged: {fault.what}",
                where=f"{root / ledger.NAME}:{fault.line}",
                expected="a ledger that another folder can go on with",
                do="find out who changed it; an older backup may be sound",
            )
    else:
        _copy_files(root, stage, _SITE_FILES)
    for name in _COHORT if with_cohort else ():
        if (root / name).is_dir():
            _copy_artefact(root / name, stage / name)
        else:
            _copy_files(root, stage, (name,))
    return str(place.site)


def _coordinator(folder: Folder, stage: Path, _: bool) -> str:
    """Everything, the authority's private key among it."""
    root = folder.root
    _copy_all(root, stage)
    return str(plain_json.read(root / "server" / "server.json")["consortium"])


def _folders(root: Path) -> Iterator[Path]:
    """Those that have their name; one that is still written begins with a dot."""
    yield from sorted(one for one in root.glob("[!.]*") if one.is_dir())


def _copy_artefact(source: Path, target: Path) -> None:
    """An artefact, if it is whole; a round that a running server has taken away is left out."""
    for _ in range(_ATTEMPTS):
        shutil.rmtree(target, ignore_errors=True)
        if not source.is_dir():
            return
        try:
            _copy_all(source, target)
            artefacts.read_manifest(target, kind=source.name, verify=True)
        except (ArtefactError, FileNotFoundError):
            continue
        return
    shutil.rmtree(target, ignore_errors=True)


def _copy_all(source: Path, target: Path) -> None:
    """Every plain file under `source`, but what is still being written. Raises ArtefactError on a link."""
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_symlink():
            raise ArtefactError.of("link in a folder that is backed up", where=str(path), do="put the file there")
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            _copy(path, target / name)


def _copy_files(source: Path, target: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (source / name).is_file():
            _copy(source / name, target / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)
    target.chmod(0o600)
