"""The only door out: a copy of events and tables, with a card, after the gate or by an officer's name.

In:  a site's folder, a verdict of exactly these patients, perhaps an override.   Out: the artefact `export/`.
Never: records, seeds or manifests of the site in the copy; half an export; a release that the journal does not name.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fairsynth import artefacts, plain_json
from fairsynth.config import Strict, StudyPlan
from fairsynth.errors import ArtefactError, ConfigError
from fairsynth.synthesis.release import runs
from fairsynth.synthesis.release.candidate import Candidate, candidate
from fairsynth.synthesis.release.card import (
    INTENDED_USE,
    OVERRIDDEN,
    PASSED,
    Card,
    Privacy,
    gate_on_card,
    markdown,
)
from fairsynth.synthesis.release.check import Report, blocked, report_of
from fairsynth.synthesis.release.verdict import outside
from fairsynth.synthesis.tables import NOTICE
from fairsynth.visits.cohort import COHORT, plan_sha256

KIND = "export"
CARD, CARD_TEXT = "card.json", "card.md"
_PARTS = ("events", "tables")


class Override(Strict):
    """An officer who releases what the gate blocks. The name is on the card; the reason stays in the journal."""

    officer: str = Field(min_length=2, max_length=200, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$")
    reason: str = Field(min_length=10, max_length=2000)


def export(
    root: Path,
    *,
    out: Path,
    synthetic: Path | None = None,
    override: Override | None = None,
    intended_use: str = INTENDED_USE,
) -> Path:
    """Write `out/export` and return it: whole or not at all.

    Raises ReleaseBlocked when the gate has not seen these patients or blocks them and there is no `override`,
    ConfigError when there is an export already, ArtefactError when something is missing or altered.
    """
    found = candidate(root, synthetic)
    report = report_of(found)
    if report.verdict.blocking and override is None:
        raise blocked(report, where=root)
    if (out / KIND).exists():
        raise ConfigError.of("an export is here", where=str(out / KIND), do="another --out")
    needed = override if report.verdict.blocking else None
    statement = PASSED if needed is None else OVERRIDDEN
    _journal(found, report, needed)
    facts = {"synthetic": True, "release": statement}
    inputs = {"generator": found.generator, "events": found.hashes["events"], "tables": found.hashes["tables"]}
    with artefacts.new(out, kind=KIND, inputs=inputs, facts=facts) as folder:
        for part in _PARTS:
            _copy(found, part, folder)
        artefacts.write_text(folder / "tables" / NOTICE, f"{statement}\nRead {CARD_TEXT} first.\n")
        card = _card(found, report, needed, intended_use, hashes={part: _hash(folder, part) for part in _PARTS})
        artefacts.write_json(folder / CARD, card.model_dump(mode="json", by_alias=True))
        artefacts.write_text(folder / CARD_TEXT, markdown(card))
    return out / KIND


def _journal(found: Candidate, report: Report, override: Override | None) -> None:
    """On disk before anything is written outside."""
    told: dict[str, Any] = {"outcome": report.verdict.outcome.value, "gates": [], "officer": None, "reason": None}
    if override is not None:
        gates = [one.gate for one in report.verdict.blocking]
        told |= {"gates": gates, "officer": override.officer, "reason": override.reason}
    runs.record(found.root, "export", generator=found.generator, candidate=found.sha256, **told)


def _copy(found: Candidate, part: str, folder: Path) -> None:
    """Copy one part without the site's manifest; what arrives is what the gate saw."""
    shutil.copytree(found.folder / part, folder / part, ignore=shutil.ignore_patterns(artefacts.MANIFEST))
    if _hash(folder, part) != found.hashes[part]:
        raise ArtefactError.of("altered while it was copied", where=str(found.folder / part), do="export again")


def _hash(folder: Path, part: str) -> str:
    return artefacts.sha256_folder(folder / part)


def _card(
    found: Candidate, report: Report, override: Override | None, intended_use: str, *, hashes: Mapping[str, str]
) -> Card:
    """The card of what lies in the export, by the hashes of its parts."""
    plan = _plan(found.root)
    facts = artefacts.read_manifest(found.root / COHORT, kind=COHORT)["facts"]
    gate = gate_on_card(
        outside(report.verdict),
        run=report.run,
        limit=report.limit,
        not_tested=report.verdict.not_run,
        rules_sha256=report.verdict.rules_sha256,
    )
    return Card(
        statement=PASSED if override is None else OVERRIDDEN,
        study=plan.name,
        plan_sha256=plan_sha256(plan),
        vocabulary_sha256=facts["vocabulary_sha256"],
        generator_sha256=found.generator,
        events_sha256=hashes["events"],
        tables_sha256=hashes["tables"],
        fairsynth=artefacts.code_version(),
        patients=len(found.records),
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        privacy=_privacy(found),
        gate=gate,
        officer=None if override is None else override.officer,
        intended_use=intended_use,
    )


def _plan(root: Path) -> StudyPlan:
    path = root / "plan.json"
    try:
        return StudyPlan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise ArtefactError.of("no study plan", where=str(path), do="run the study, or the training, again") from None


def _privacy(found: Candidate) -> Privacy | None:
    """What the manifest of the synthetic patients says of epsilon: a fact `privacy`, written by an accountant."""
    for path in (found.folder / "records" / artefacts.MANIFEST, found.folder / artefacts.MANIFEST):
        if path.is_file():
            told = plain_json.read(path)["facts"].get("privacy")
            return None if told is None else Privacy.model_validate(told)
    return None
