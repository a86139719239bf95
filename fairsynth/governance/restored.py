"""What a site may still answer whose folder came out of a backup.

In:  the ledger's lines.   Out: nothing, or StateRestored.
Never: a second draw of noise for a release that may have left already; a study that goes on as if nothing were lost.

Between the backup and its return the site may have answered more than its books know. So the ledger gets a line
`restored`, and from there on
  - an approval from before that line holds no more: an officer approves again, with that decision's consequences;
  - a plan with noise that the backup knew, or that is named when the restore is settled, is refused for ever: its
    releases count as charged in full, and under another draw their mean would be nearer to what noise hides;
  - other plans with noise wait until an officer has settled which plans there were meanwhile (`settled`).
Keys of masks are in no backup: a masked study starts again with new ones (`masking.session`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fairsynth.config import StudyPlan
from fairsynth.errors import StateRestored
from fairsynth.governance.ledger import Entry

RESTORED, SETTLED, APPROVED = "restored", "settled", "approved"
NOISED, UNKNOWN = "noised", "unknown"  # labels of a plan's line; unknown: its plan is not at hand, only its hash


def check_not_before(entries: Sequence[Entry], plan: StudyPlan, *, study: str, where: Path) -> None:
    """Raise StateRestored unless the approved study began after the last restore, or there was none."""
    last = last_restore(entries)
    if last is None:
        return
    if plan.privacy.noised:
        check_not_told(entries, study=study, where=where)
        check_settled(entries, where=where)
    approved = [entry.number for entry in entries if entry.event == APPROVED and entry.study == study]
    if not approved or approved[-1] < last.number:
        raise StateRestored.of(
            "study from before the site's folder was restored from a backup",
            where=f"{where}; ledger line {last.number}",
            expected="an approval since then",
            do="start a new plan; or fairsynth approve again, and the server begins the study anew in another folder",
        )


def check_not_told(entries: Sequence[Entry], *, study: str, where: Path) -> None:
    """Raise StateRestored where the ledger says that a plan with noise may have been answered before a restore."""
    lines = [entry.number for entry in entries if entry.event == RESTORED and entry.study == study]
    if lines:
        raise StateRestored.of(
            "study with noise from before the site's folder was restored from a backup",
            where=f"{where}; ledger line {lines[0]}",
            expected="a plan that was never answered: drawn again, this one's noise would average out",
            do="start a new plan, with another seed; this one's releases are charged in full",
        )


def check_settled(entries: Sequence[Entry], *, where: Path) -> None:
    """Raise StateRestored while nobody has said which plans with noise were answered since the backup."""
    last = last_restore(entries)
    if last is not None and not any(one.event == SETTLED and one.number > last.number for one in entries):
        raise StateRestored.of(
            "what was answered between the backup and its restore is not settled",
            where=f"{where}; ledger line {last.number}",
            expected="every plan with noise that this site took part in since the backup, charged in full",
            do="fairsynth settle SITE_FOLDER --officer NAME [--plan PLAN.json ...] (docs/operations.md)",
        )


def last_restore(entries: Sequence[Entry]) -> Entry | None:
    """The line of the last restore, None where there was none."""
    found = [entry for entry in entries if entry.event == RESTORED and not entry.study]
    return found[-1] if found else None
