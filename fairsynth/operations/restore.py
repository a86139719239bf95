"""A backup put in a new folder; a site's so that nothing which left it since is told a second time otherwise.

In:  a backup's file, an empty or new folder.   Out: the folder; of a site, lines `restored` in its ledger.
Never: a folder that has something already; a site that answers as if it had never answered more than its backup knows
(`governance.restored`).
"""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError, ConfigError, FairSynthError
from fairsynth.federation.boundary import place_of
from fairsynth.federation.noised.releases import releases_of
from fairsynth.federation.plans import plan_sha256
from fairsynth.governance import approval, budget, drawn, ledger
from fairsynth.governance import restored as rules
from fairsynth.governance.budget import Budget, Limit
from fairsynth.governance.chained import Chained
from fairsynth.governance.drawn import Drawn
from fairsynth.governance.identity import PRIVATE, Identity, load_identity
from fairsynth.governance.ledger import Facts, Ledger
from fairsynth.governance.policy import read_policy
from fairsynth.operations import archive
from fairsynth.operations.archive import Archive
from fairsynth.operations.backup import RELEASE_RUNS

_UNLIMITED = 1e9  # an epsilon: what is forfeited is charged whether there is room or not


@dataclass(frozen=True, kw_only=True)
class Plans:
    """Studies of a site by what becomes of them: those with noise, and those of which only the hash is known."""

    noised: tuple[StudyPlan, ...]
    unknown: tuple[str, ...]


def restore(path: Path, to: Path) -> Archive:
    """Put the backup at `path` into `to`.

    Raises ConfigError when `to` is not empty, ArtefactError when the backup is not sound; then nothing is left there.
    """
    to = to.resolve()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError.of(
            "folder that is not empty", where=str(to), expected="a new or empty folder", do="another --to"
        )
    with _becoming(to) as folder:
        found = archive.read(path, folder)
        if found.manifest.kind == "site":
            _reopen(folder, found)
    return found


def settle(root: Path, plans: Sequence[StudyPlan], *, officer: str) -> list[str]:
    """Say which plans a restored site took part in since its backup; those with noise are charged in full.

    The names of those charged now. Raises ConfigError when nothing is to be settled, or a plan that the backup knew by
    its hash alone is not among them.
    """
    now = datetime.datetime.now(datetime.UTC)
    identity = load_identity(root)
    with ledger.opened(root, identity=identity) as book:
        entries = book.entries(now=now)
        if rules.last_restore(entries) is None:
            raise ConfigError.of("nothing to settle", where=str(root), expected="a folder that was restored")
        given = {plan_sha256(plan): plan for plan in plans}
        marked = {one.study: one.label for one in entries if one.event == rules.RESTORED and one.study}
        charged = {one.study for one in entries if one.event == rules.RESTORED and one.label == rules.NOISED}
        unknown = {study for study, label in marked.items() if label == rules.UNKNOWN} - charged
        if missing := sorted(unknown - set(given)):
            raise ConfigError.of(
                "plans that were charged for, and are not at hand",
                where=", ".join(study[:12] for study in missing),
                do="give each with --plan: the coordinator has them",
            )
        new = [plan for study, plan in sorted(given.items()) if plan.privacy.noised and study not in charged]
        _forfeit(root, new, book=book, source="")
        facts = Facts(event="settled", officer=officer)
        book.append(facts, now=now)
    return [plan.name for plan in new]


def _reopen(folder: Path, found: Archive) -> None:
    """Tell the ledger, charge what may have happened, begin new noise."""
    if not (folder / PRIVATE).is_file():
        return  # nothing was ever signed, so nothing left
    identity: Identity = load_identity(folder)
    fault = ledger.find_fault(folder)
    if fault is not None:
        raise ArtefactError.of("backup of a damaged ledger", where=f"{ledger.NAME}:{fault.line}", do="an older backup")
    plans = _plans(folder)
    has_noise = bool(plans.noised) or (folder / budget.NAME).is_file()
    if has_noise and not (folder / budget.NAME).is_file():
        Chained.begin(folder / budget.NAME)
    if has_noise and not (folder / drawn.NAME).exists():
        Drawn.begin(folder)
    now = datetime.datetime.now(datetime.UTC)
    if (folder / RELEASE_RUNS).is_file():
        line = {"event": "restored", "time": now.isoformat(timespec="seconds")}
        with (folder / RELEASE_RUNS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line, sort_keys=True) + "\n")
    with ledger.opened(folder, identity=identity) as book:
        book.append(Facts(event="restored", sha256=found.sha256), now=now)
        for study in plans.unknown:
            book.append(Facts(event="restored", study=study, label=rules.UNKNOWN), now=now)
        _forfeit(folder, plans.noised, book=book, source=found.sha256)


def _forfeit(root: Path, plans: Sequence[StudyPlan], *, book: Ledger, source: str) -> None:
    """Charge every release of `plans` that is not charged, and enter each plan in the ledger with what that cost."""
    for plan in plans:
        if not (root / budget.NAME).exists():
            Chained.begin(root / budget.NAME)
            Drawn.begin(root)
        now = datetime.datetime.now(datetime.UTC)
        told = sum(entry.epsilon or 0.0 for entry in book.entries(now=now))
        after = Budget(root, limit=_limit(root, plan)).forfeit(
            releases_of(plan).by_label, plan_sha256=plan_sha256(plan)
        )
        facts = Facts(
            event="restored",
            study=plan_sha256(plan),
            label=rules.NOISED,
            sha256=source,
            epsilon=max(after.tight - told, 0.0),
        )
        book.append(facts, now=now)


def _plans(folder: Path) -> Plans:
    """What the backup knows of studies with noise. Raises NotApproved when an approval cannot be read."""
    approved = [one.grant.plan for one in approval.list_approvals(folder)]
    known = {plan_sha256(plan) for plan in approved}
    charged = {str(entry["plan"]) for entry in _charges(folder)}
    noised = tuple(plan for plan in approved if plan.privacy.noised)
    return Plans(noised=noised, unknown=tuple(sorted(charged - known)))


def _charges(folder: Path) -> list[dict[str, object]]:
    path = folder / budget.NAME
    return list(Chained(path).read()) if path.is_file() else []


def _limit(root: Path, plan: StudyPlan) -> Limit:
    """At the delta of the charges so far; before any, the policy's; the plan's where there is no policy here yet."""
    charges = _charges(root)
    if charges:
        delta = charges[-1]["delta"]
        return Limit(epsilon=_UNLIMITED, delta=float(delta) if isinstance(delta, float | int) else plan.privacy.delta)
    try:
        return Limit(epsilon=_UNLIMITED, delta=read_policy(place_of(root).config).delta)
    except FairSynthError:
        return Limit(epsilon=_UNLIMITED, delta=plan.privacy.delta)


@contextmanager
def _becoming(to: Path) -> Iterator[Path]:
    """A folder beside `to`, mode 0700, that takes its place when the block ends well, and goes when it does not."""
    to.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    try:
        yield aside
        if to.exists():
            to.rmdir()
        aside.rename(to)
        artefacts.sync_folder(to.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
