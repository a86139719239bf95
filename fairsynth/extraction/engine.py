"""Raw tables -> `events/`: the one engine behind every source's rules.

In:  a data folder and a site configuration.   Out: the artefact `root/events` in MEDS 0.4 layout: data/*.parquet,
metadata/codes.parquet, metadata/dataset.json, and flow.json.
Never: a half-written artefact; an artefact of tables that have problems; a change to the data folder.

Every table is read once: while its cells are checked its events are spooled, inside the artefact's temporary folder,
which vanishes when a problem is found.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from contextlib import suppress
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from fairsynth import artefacts
from fairsynth.config import SiteConfig
from fairsynth.errors import ArtefactError, ExtractionError
from fairsynth.extraction.checks import survey
from fairsynth.extraction.events import Names
from fairsynth.extraction.frame import Frame
from fairsynth.extraction.meds import meds_files
from fairsynth.extraction.meds_rules import MedsRules
from fairsynth.extraction.reports import TableReport, TablesReport
from fairsynth.extraction.rules import Rules, read_source
from fairsynth.extraction.shards import EVENT_ARROW, Spool, Written, write_shards
from fairsynth.extraction.tables import find

__all__ = ["CODES", "DATA", "DATASET", "EVENT_ARROW", "FLOW", "KIND", "extract", "extract_anew"]

KIND = "events"
DATA = Path("data")  # these three by MEDS 0.4
CODES = Path("metadata/codes.parquet")
DATASET = Path("metadata/dataset.json")
FLOW = Path("flow.json")


def extract(data: Path, *, config: Path, root: Path) -> Path:
    """Write `root/events` from the tables in `data` by the rules in folder `config`, and return its path.

    A finished artefact whose inputs are unchanged (contents of tables and configuration, version of the code) is kept
    as it is. Raises ConfigError, and ExtractionError with every problem of the data folder; then nothing is written.
    """
    site, rules = read_source(config)
    inputs = _inputs(data, config=config, site=site, rules=rules)
    artefacts.sweep(root, kind=KIND)
    if not _is_current(root / KIND, inputs=inputs):
        _make(data, root=root, site=site, rules=rules, inputs=inputs)
    return root / KIND


def extract_anew(data: Path, *, config: Path, root: Path) -> TablesReport:
    """Write `root/events`, whatever is there, and tell what was found in the tables. Raises as `extract` does."""
    site, rules = read_source(config)
    return _make(data, root=root, site=site, rules=rules, inputs=_inputs(data, config=config, site=site, rules=rules))


def _make(
    data: Path, *, root: Path, site: SiteConfig, rules: Rules | MedsRules, inputs: dict[str, str]
) -> TablesReport:
    """Write the artefact; the report on its tables."""
    facts: dict[str, object] = {
        "source": site.source,
        "data_sha256": inputs["data"],
        "calendar": "artificial" if isinstance(rules, Rules) and rules.artificial else "real",
    }
    with artefacts.new(root, kind=KIND, inputs=inputs, facts=facts) as folder:
        report, counts = _write(folder, data, site=site, rules=rules)
        facts |= counts
    return report


def _inputs(data: Path, *, config: Path, site: SiteConfig, rules: Rules | MedsRules) -> dict[str, str]:
    """SHA-256 of everything that the artefact is made of."""
    files = {name: artefacts.sha256_file(config / name) for name in ("site.yaml", site.rules)}
    return _hashes(data, rules) | files


def _hashes(data: Path, rules: Rules | MedsRules) -> dict[str, str]:
    """SHA-256 of every table, and of all together as `data`. A table that is not there is left to the checks."""
    hashes = {}
    if isinstance(rules, MedsRules):
        for path in meds_files(data):
            with suppress(OSError):
                hashes[path.relative_to(data).as_posix()] = artefacts.sha256_file(path)
        return {"data": artefacts.sha256_json(hashes)}
    for rule in rules.files:
        with suppress(ExtractionError, OSError):
            hashes[rule.file] = artefacts.sha256_file(find(data, rule.file))
    return {**hashes, "data": artefacts.sha256_json(hashes)}


def _is_current(folder: Path, *, inputs: dict[str, str]) -> bool:
    """Whether a sound artefact of this code from these inputs is already there."""
    try:
        manifest = artefacts.read_manifest(folder, kind=KIND, verify=True)
    except ArtefactError:
        return False
    return bool(manifest["inputs"] == inputs and manifest["code_version"] == artefacts.code_version())


def _write(
    folder: Path, data: Path, *, site: SiteConfig, rules: Rules | MedsRules
) -> tuple[TablesReport, dict[str, int]]:
    """Write the files of the artefact; the report on its tables, the counts that its manifest states."""
    names, spool = Names(), Spool(folder / "spool")
    seen = survey(data, site=site, rules=rules, sink=spool.add, names=names)
    spool.close()
    frame, report = seen.checked()
    (folder / DATA).mkdir()
    written = write_shards(spool, folder / DATA, names=names, once=_tells_patients_by_visits(rules))
    shutil.rmtree(folder / "spool")
    (folder / CODES).parent.mkdir()
    pq.write_table(seen.describe(written.codes), folder / CODES)
    artefacts.write_json(folder / DATASET, _dataset(report.source))
    flow = _flow(written, frame=frame, report=report)
    artefacts.write_text(folder / FLOW, json.dumps(flow, indent=2) + "\n")  # in the order of the steps
    codes = len(written.codes)
    counts = {"patients": report.patients, "visits": report.visits, "events": written.events, "codes": codes}
    return report, counts


def _tells_patients_by_visits(rules: Rules | MedsRules) -> bool:
    """Whether every visit tells again who the patient is."""
    return isinstance(rules, Rules) and rules.patients == rules.visits.table


def _flow(written: Written, *, frame: Frame, report: TablesReport) -> dict[str, int]:
    """What came in, what was left out and why, what came out: step -> count, in order (no losses of zero)."""
    flow = {
        "patients": report.patients,
        "visits": report.visits,
        "visits that end before they start (kept)": report.visits_ending_before_they_start,
    }
    notes = {
        "patients without an event": report.patients - written.patients,
        "patients who die before they are born (kept)": written.deaths_before_birth,
        "visits that start more than a day before the patient's birth (kept)": _before_birth(written.births, frame),
    }
    flow |= {step: number for step, number in notes.items() if number}
    for table in report.tables:
        flow |= _table_flow(table)
        if table.attaches:
            flow[f"{table.table}: events that name no visit"] = table.events_without_visit
            flow[f"{table.table}: of these, in a visit by their time"] = table.events_attached
    if written.merged:
        flow["repeated facts of a patient (told once)"] = written.merged
    flow["events"] = written.events
    flow["events outside any visit"] = sum(
        table.events_without_visit - table.events_attached for table in report.tables
    )
    return flow


def _before_birth(births: pl.DataFrame, frame: Frame) -> int:
    """Visits that start more than a day before the birth of their patient (events some hours before it are usual)."""
    visits = frame.visits.join(births, on="subject_id", how="inner")
    return visits.filter(pl.col("start") < pl.col("time").dt.offset_by("-1d")).height


def _table_flow(table: TableReport) -> dict[str, int]:
    """The steps of one table. A row is kept or left out for one reason; events that a row did not give for want of a
    code or a time are counted too, for a row may give several."""
    missed = {
        "events missed for want of a code": table.rows_without_code,
        "events missed for want of a time": table.rows_without_time,
    }
    steps = {
        "rows": table.rows,
        **{f"rows left out, {reason}": number for reason, number in table.left_out.items()},
        "rows kept": table.kept,
        **{step: number for step, number in missed.items() if number},
        "events": table.events,
    }
    return {f"{table.table}: {step}": number for step, number in steps.items()}


def _dataset(source: str) -> dict[str, object]:
    """The MEDS description of the data set. It holds no time of making, so that equal inputs give equal files."""
    return {
        "dataset_name": source,
        "etl_name": "fairsynth.extraction",
        "etl_version": artefacts.code_version(),
        "meds_version": importlib.metadata.version("meds"),
        "code_modifier_columns": ["unit"],
        "other_extension_columns": ["visit_id"],
    }
