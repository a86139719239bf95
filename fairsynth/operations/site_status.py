"""Where a site stands: the study that it takes part in, what left it, what is left of its budget, what went wrong.

In:  the site's folder.   Out: `SiteStatus`.
Never: a patient's value or a count of patients; a key or a secret; a charge, a line or a check of the raw tables.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairsynth.config import StudyPlan
from fairsynth.errors import FairSynthError
from fairsynth.federation.boundary import has_budget, place_of
from fairsynth.federation.noised.household import limit_of
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.site_folder import LOG, read_plan
from fairsynth.governance import ledger
from fairsynth.governance import restored as rules
from fairsynth.governance.budget import Budget
from fairsynth.governance.ledger import Entry
from fairsynth.governance.policy import read_policy
from fairsynth.operations import checks_server
from fairsynth.operations.doctor import SUPERNODE_PORT

PROBLEMS = 5  # that are shown
_LOG_BYTES = 256 << 10  # of the log's end that are read


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A line of site.log: what FairSynth's own errors say, which hold no patient's value."""

    time: str
    phase: str
    code: str
    what: str


@dataclass(frozen=True, kw_only=True)
class SiteStatus:
    """What `fairsynth status` tells of a site. Times are UTC, in ISO 8601."""

    site: str
    study: str | None  # that it enrolled for last
    plan_sha256: str | None
    profile: str | None
    last_answer: str | None
    last_kind: str | None
    ledger_entries: int
    ledger_head: str | None
    ledger_fault: str | None
    sent_bytes: int
    epsilon_spent: float | None
    epsilon_limit: float | None
    restored: str | None  # when its folder came out of a backup
    settled: bool
    supernode: bool
    supernode_said: str
    disk_free: int
    troubles: tuple[Trouble, ...]


def site_status(root: Path, *, supernode_port: int = SUPERNODE_PORT) -> SiteStatus:
    """Where the site at `root` stands. Raises ArtefactError when its site.json is missing or does not fit."""
    place = place_of(root)
    plan = _plan(root)
    entries = ledger.read(root)
    left = [entry for entry in entries if entry.event in ("released", "resent")]
    supernode = checks_server.supernode_finding(supernode_port)
    spent, limit = _budget(root, place.config)
    return SiteStatus(
        site=place.site,
        study=plan.name if plan else None,
        plan_sha256=plan_sha256(plan) if plan else None,
        profile=plan.privacy.profile if plan else None,
        last_answer=left[-1].time if left else None,
        last_kind=left[-1].kind if left else None,
        ledger_entries=len(entries),
        ledger_head=entries[-1].hash if entries else None,
        ledger_fault=_fault(root, entries),
        sent_bytes=sum(entry.bytes for entry in left),
        epsilon_spent=spent,
        epsilon_limit=limit,
        restored=_restored(entries),
        settled=_is_settled(entries),
        supernode=supernode.said.startswith("runs"),
        supernode_said=supernode.said,
        disk_free=shutil.disk_usage(root).free,
        troubles=_troubles(root / LOG),
    )


def _plan(root: Path) -> StudyPlan | None:
    try:
        return read_plan(root)
    except FairSynthError:
        return None


def _fault(root: Path, entries: list[Entry]) -> str | None:
    if not entries and not (root / ledger.NAME).is_file():
        return None
    try:
        fault = ledger.find_fault(root)
    except FairSynthError as error:
        return error.problems[0].what
    return None if fault is None else f"line {fault.line}: {fault.what}"


def _budget(root: Path, config: Path) -> tuple[float | None, float | None]:
    """Epsilon spent and allowed, over all studies; None where the site has no budget, or it cannot be read."""
    try:
        limit = limit_of(read_policy(config))
        return (Budget(root, limit=limit).told() if has_budget(root) else 0.0), limit.epsilon
    except FairSynthError:
        return None, None


def _restored(entries: list[Entry]) -> str | None:
    last = rules.last_restore(entries)
    return None if last is None else last.time


def _is_settled(entries: list[Entry]) -> bool:
    try:
        rules.check_settled(entries, where=Path())
    except FairSynthError:
        return False
    return True


def _troubles(path: Path) -> tuple[Trouble, ...]:
    """The last failures; lines that are none of this schema are left out."""
    if not path.is_file():
        return ()
    with path.open("rb") as handle:
        handle.seek(max(path.stat().st_size - _LOG_BYTES, 0))
        lines = handle.read().split(b"\n")[:-1]
    found = [trouble for line in lines if (trouble := _trouble(line)) is not None]
    return tuple(found[-PROBLEMS:])


def _trouble(line: bytes) -> Trouble | None:
    try:
        told: Any = json.loads(line)
        problems = told.get("problems") or [{}]
        what = str(problems[0].get("what", "")) or f"{told['type']} at {told['at']}"
        return Trouble(time=str(told["time"]), phase=str(told["phase"]), code=str(told["code"]), what=what)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
