"""What is to leave: synthetic patients as records, events and tables, and what they come from.

In:  a site's folder; what a study (`synthetic/`) or `fairsynth generate` wrote.   Out: `Candidate`, checked as a chain:
tables are of these events, events of these records, records of this site's cohort.
Never: events that were not decoded from the records that the gate compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairsynth import artefacts
from fairsynth.errors import ArtefactError
from fairsynth.synthesis.decode import RECORDS, records_sha256
from fairsynth.visits.cohort import COHORT
from fairsynth.visits.records import Records

OF_STUDY = "synthetic"  # the artefact that a study writes
ARM = "fairsynth"  # whose patients of it are events and tables


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """`folder` holds `events/` and `tables/`; `generator` is the hash of the weights that drew the patients."""

    root: Path
    folder: Path
    records: Records
    generator: str
    hashes: dict[str, str]

    @property
    def sha256(self) -> str:
        """The hash of all that would leave."""
        return artefacts.sha256_json(self.hashes)


def candidate(root: Path, synthetic: Path | None) -> Candidate:
    """What lies in `synthetic` (of `fairsynth generate`), or in `root/synthetic` (of a study).

    Raises ArtefactError when something is missing, altered, or not of one piece.
    """
    folder = root / OF_STUDY if synthetic is None else synthetic
    if synthetic is None and not folder.is_dir():
        do = "fairsynth generate ... --out NEW, then give --synthetic NEW"
        raise ArtefactError.of("no synthetic patients", where=str(folder), do=do)
    records, generator, cohort = _of_study(folder) if synthetic is None else _generated(folder)
    own = artefacts.read_manifest(root / COHORT, kind=COHORT)["content"]
    events = artefacts.read_manifest(folder / "events", kind="events", verify=True)
    tables = artefacts.read_manifest(folder / "tables", kind="tables", verify=True)
    hashes = {"records": records_sha256(records), "events": events["content"], "tables": tables["content"]}
    told = (events["inputs"].get("records"), tables["inputs"].get("events"), cohort, events["inputs"].get("cohort"))
    if told != (hashes["records"], hashes["events"], own, own):
        raise ArtefactError.of(
            "synthetic patients that are not of one piece, or of another cohort",
            where=str(folder),
            expected="records, events and tables of one `fairsynth study` or `fairsynth generate` at this site",
            do="make them again",
        )
    return Candidate(root=root, folder=folder, records=records, generator=generator, hashes=hashes)


def _of_study(folder: Path) -> tuple[Records, str, Any]:
    inputs = artefacts.read_manifest(folder, kind=OF_STUDY, verify=True)["inputs"]
    return Records.load(folder / f"{ARM}.safetensors"), _generator(inputs, f"weights-{ARM}", folder), inputs["cohort"]


def _generated(folder: Path) -> tuple[Records, str, Any]:
    where = folder / RECORDS
    inputs = artefacts.read_manifest(where, kind=RECORDS, verify=True)["inputs"]
    parts = [Records.load(path) for path in sorted(where.glob("*.safetensors"))]
    if not parts:
        raise ArtefactError.of("no synthetic patients", where=str(where), do="make them again")
    return Records.concatenate(parts), _generator(inputs, "generator", where), inputs["cohort"]


def _generator(inputs: dict[str, Any], name: str, where: Path) -> str:
    if not isinstance(inputs.get(name), str):
        raise ArtefactError.of("synthetic patients of no known generator", where=str(where), do="make them again")
    return str(inputs[name])
